// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Logging
internal import Model
internal import Orchestrator
internal import ServiceLifecycle
internal import Synchronization

/// The effect rooms of one node, real or simulated.
struct Effects: Sendable {
    var runtime: any Runtime
    var networking: any Networking
    var volumes: any VolumeDriver
    var names: any NameService
}

/// Carries out actions on this node and reports what came of them.
///
/// Values go from one room to the next: a volume's path becomes a mount, an attachment's namespace a field of the
/// container. Nothing is decided here.
final class Agent: Service {
    private let effects: Effects
    private let log: Logger
    private let report: @Sendable (Observation) -> Void
    private let actions: AsyncStream<Action>
    private let input: AsyncStream<Action>.Continuation
    /// Starts under way, so that one can be given up.
    private let starts = Mutex<[TaskID: Task<Void, Never>]>([:])
    private let slots: Slots

    /// More starts at once than this only make each of them slower.
    private static let startsAtOnce = 8

    init(effects: Effects, log: Logger, report: @escaping @Sendable (Observation) -> Void) {
        self.effects = effects
        self.log = log
        self.report = report
        // Bounded by construction: the reconciler has at most one action under way per task.
        (actions, input) = AsyncStream.makeStream()
        slots = Slots(Self.startsAtOnce)
    }

    func perform(_ action: Action) { input.yield(action) }

    func run() async throws {
        await withDiscardingTaskGroup { group in
            group.addTask { await self.followEvents() }
            for await action in actions.cancelOnGracefulShutdown() {
                switch action {
                // In the order asked for, so that no start escapes the word that gives it up.
                case .start(let request):
                    let work = Task { await self.startInSlot(request) }
                    starts.withLock { $0[request.task] = work }
                    group.addTask { await self.finish(work, request) }
                case .cancelStart(let task): starts.withLock { $0[task] }?.cancel()
                default: group.addTask { await self.carryOut(action) }
                }
            }
            group.cancelAll()
        }
    }

    private func followEvents() async {
        for await event in effects.runtime.events().cancelOnGracefulShutdown() {
            switch event {
            case .exited(let container, let status): report(.exited(container, status))
            case .resync: report(.resync)
            }
        }
    }

    private func carryOut(_ action: Action) async {
        switch action {
        case .start, .cancelStart: break
        case .stop(let task, let container, let signal, let timeout):
            await attempt("stop", task: task, failed: { .stopFailed(task, container, $0) }) {
                try await self.effects.runtime.stop(container, signal: signal, timeoutMilliseconds: timeout)
                self.report(.stopped(task, container))
            }
        case .discard(let containers):
            for container in containers {
                await attempt("discard", task: container.parts?.task, failed: { _ in nil }) {
                    try await self.effects.runtime.remove(container)
                }
            }
        case .clean(let task, let containers):
            await attempt("clean", task: task, failed: { .cleanFailed(task, $0) }) {
                for container in containers { try await self.effects.runtime.remove(container) }
                try await self.effects.networking.detach(task: task)
                self.report(.cleaned(task))
            }
        case .forgetLogs(let task):
            await attempt("remove logs", task: task, failed: { _ in nil }) {
                try await self.effects.runtime.removeLogs(task: task)
            }
        case .deleteVolume(let key):
            await attempt("delete volume \(key)", task: nil, failed: { .volumeDeleteFailed(key, $0) }) {
                try await self.effects.volumes.delete(key)
                self.report(.volumeDeleted(key))
            }
        case .takeInventory(let token): await takeInventory(token)
        }
    }

    private func attempt(
        _ what: String, task: TaskID?, failed: (Reason) -> Observation?, _ body: () async throws -> Void
    ) async {
        do {
            try await body()
        } catch {
            let reason = reason(for: error)
            log.warning(
                "action failed, will be retried",
                metadata: ["action": "\(what)", "task": "\(task?.raw ?? "-")", "reason": "\(reason.message)"])
            if let observation = failed(reason) { report(observation) }
        }
    }

    private func takeInventory(_ token: UInt64) async {
        while !Task.isCancelled {
            do {
                async let containers = effects.runtime.containers()
                async let attached = effects.networking.attachedTasks()
                async let logged = effects.runtime.loggedTasks()
                report(
                    .inventory(
                        Inventory(
                            token: token, containers: try await containers, attached: try await attached,
                            logged: try await logged)))
                return
            } catch {
                log.warning("cannot list what runs here, will try again", metadata: ["error": "\(error)"])
                try? await Task.sleep(for: .milliseconds(500))
            }
        }
    }

    // MARK: - Start

    private func finish(_ work: Task<Void, Never>, _ request: StartRequest) async {
        await withTaskCancellationHandler {
            await work.value
        } onCancel: {
            work.cancel()
        }
        // The next attempt may have been asked for already.
        starts.withLock { if $0[request.task] == work { $0[request.task] = nil } }
    }

    private func startInSlot(_ request: StartRequest) async {
        do {
            let started = try await slots.use { try await self.prepareAndStart(request) }
            report(.started(request.task, attempt: request.attempt, started))
        } catch {
            let reason = reason(for: error)
            if !Task.isCancelled {
                log.warning(
                    "task did not start",
                    metadata: [
                        "task": "\(request.task)", "code": "\(reason.code.rawValue)", "reason": "\(reason.message)",
                    ])
            }
            report(.startFailed(request.task, attempt: request.attempt, reason))
        }
        for container in request.discard {
            do { try await effects.runtime.remove(container) } catch {
                log.warning("an ended container stays until the next look", metadata: ["container": "\(container)"])
            }
        }
    }

    private func prepareAndStart(_ request: StartRequest) async throws -> StartedContainer {
        let digest = request.service.imageDigest ?? ""
        async let attachment = effects.networking.attach(
            AttachmentRequest(task: request.task, address: request.address))
        async let pulled: Void = effects.runtime.pull(image: request.service.image, digest: digest)
        let (mounts, unseeded) = try await mounts(for: request)
        try await pulled
        let network = try await attachment
        try Task.checkCancellation()
        report(.starting(request.task, attempt: request.attempt))
        let started = try await effects.runtime.start(
            ContainerSpec(
                id: request.container, task: request.task, attempt: request.attempt, service: request.service,
                app: request.app, mounts: mounts, networkNamespace: network.namespacePath, address: request.address,
                nameServers: [AddressRanges.nameServer],
                hostname: request.service.hostname ?? "\(request.service.name)-\(request.task.raw.prefix(6))"))
        for volume in unseeded { try await effects.volumes.markSeeded(volume) }
        return started
    }

    private func mounts(for request: StartRequest) async throws -> (mounts: [ContainerMount], unseeded: [ObjectKey]) {
        var mounts: [ContainerMount] = []
        var unseeded: [ObjectKey] = []
        for mount in request.service.mounts {
            switch mount.source {
            case .volume(let name):
                let key = ObjectKey(namespace: request.app.namespace, name: name)
                let volume = try await effects.volumes.ensure(key)
                if !volume.isSeeded { unseeded.append(key) }
                mounts.append(
                    ContainerMount(
                        kind: .bind(source: volume.path), target: mount.target, readOnly: mount.readOnly,
                        seedsFromImage: !volume.isSeeded))
            case .bind(let path):
                var status = stat()
                guard stat(path, &status) == 0 else {
                    throw AgentError(
                        reason: Reason(
                            .mountSourceMissing, "bind mount source `\(path)` does not exist on this node",
                            hint: "make it first, or use a volume: --volume NAME:\(mount.target)"))
                }
                mounts.append(
                    ContainerMount(kind: .bind(source: path), target: mount.target, readOnly: mount.readOnly))
            case .tmpfs(let size):
                mounts.append(
                    ContainerMount(kind: .tmpfs(sizeBytes: size), target: mount.target, readOnly: mount.readOnly))
            }
        }
        return (mounts, unseeded)
    }
}

struct AgentError: ReasonError {
    var reason: Reason
}

/// At most so many at once; the rest wait in order.
actor Slots {
    private var free: Int
    private var waiting: [CheckedContinuation<Void, Never>] = []

    init(_ count: Int) { free = count }

    func use<Value: Sendable>(_ body: @Sendable () async throws -> Value) async rethrows -> Value {
        await take()
        defer { give() }
        return try await body()
    }

    private func take() async {
        if free > 0 {
            free -= 1
        } else {
            await withCheckedContinuation { waiting.append($0) }
        }
    }

    private func give() {
        if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() }
    }
}
