// SPDX-License-Identifier: Apache-2.0
internal import ContainerdAPI
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import FoundationEssentials
internal import GRPCCore
internal import Glibc
internal import Logging
public import Model
internal import SwiftProtobuf
internal import Synchronization

/// Keys of the labels on our container records.
enum ContainerLabel {
    static let task = "hivemind/task"
    static let attempt = "hivemind/attempt"
    static let app = "hivemind/app"
    static let namespace = "hivemind/namespace"
    static let service = "hivemind/service"
    static let stopSignal = "hivemind/stop-signal"
}

extension ContainerdRuntime {
    // MARK: Start

    /// Four calls to containerd: snapshot and record side by side, then the task, then its start.
    public func start(_ container: ContainerSpec) async throws -> StartedContainer {
        do {
            return try await launch(container)
        } catch let error as RPCError where error.code == .alreadyExists {
            // Left by a crash. What runs is what was asked for: ids are never used for anything else.
            if let running = try await running(container.id) { return running }
            try await remove(container.id)
            do { return try await launch(container) } catch {
                throw StartFailure.make(error, container: container)
            }
        } catch {
            throw StartFailure.make(error, container: container)
        }
    }

    private func running(_ id: ContainerID) async throws -> StartedContainer? {
        guard let found = try await containers().first(where: { $0.id == id }), case .running(let pid) = found.state
        else { return nil }
        return StartedContainer(pid: pid, startedAt: found.startedAt ?? Self.now())
    }

    /// - Throws: the `RPCError` as it came; nothing is left behind then, except by `alreadyExists`.
    private func launch(_ container: ContainerSpec) async throws -> StartedContainer {
        let reference = container.service.image
        guard let digest = container.service.imageDigest else {
            throw RuntimeError(.imageInvalid, "image `\(reference)` was not resolved to a digest before its start")
        }
        let image = try await images.unpacked(image: reference, digest: digest)
        try files.write(container)
        try TaskFiles.makeDirectories("\(logStore.directory)/\(container.task.raw)")
        // With the new one, five attempts stay.
        if container.attempt > 0 { await logStore.prune(task: container.task, keepingAttempts: 4) }
        do {
            let mounts = try await makeRecord(container, image: image)
            var create = Containerd_Services_Tasks_V1_CreateTaskRequest()
            create.containerID = container.id.raw
            create.rootfs = mounts
            create.stdout = logURI(container)
            create.stderr = create.stdout
            let pid = try await client.unary.tasks.create(create).pid
            var start = Containerd_Services_Tasks_V1_StartRequest()
            start.containerID = container.id.raw
            _ = try await client.unary.tasks.start(start)
            return StartedContainer(pid: Int32(bitPattern: pid), startedAt: Self.now())
        } catch let error as RPCError where error.code == .alreadyExists {
            throw error
        } catch {
            // Also when the caller was cancelled: a half made container must not stay.
            await Task.detached { [self] in
                do { try await remove(container.id) } catch {
                    log.warning(
                        "container left half made", metadata: ["container": "\(container.id)", "error": "\(error)"])
                }
            }.value
            throw error
        }
    }

    /// Makes snapshot and container record. The first container of an image has to look into it for its users, and so
    /// does one with a fresh volume; all others need not wait for the snapshot.
    private func makeRecord(_ container: ContainerSpec, image: UnpackedImage) async throws -> [Containerd_Types_Mount] {
        let seeds = container.mounts.compactMap { mount -> ImageRoot.Seed? in
            guard mount.seedsFromImage, case .bind(let source) = mount.kind else { return nil }
            return ImageRoot.Seed(volume: source, target: mount.target)
        }
        if seeds.isEmpty, let users = userDatabases.withLock({ $0[image.topChainID] }) {
            async let mounts = Result.of { [self] in try await prepareSnapshot(container.id, image: image) }
            async let record = Result.of { [self] in try await createRecord(container, image: image, users: users) }
            let result = await (mounts, record)
            // A leftover of either is told apart from all other failures: it decides what follows.
            if case .failure(let error as RPCError) = result.1, error.code == .alreadyExists { throw error }
            let prepared = try result.0.get()
            try result.1.get()
            return prepared
        }
        let mounts = try await prepareSnapshot(container.id, image: image)
        let users = try await look(container, image: image, mounts: mounts, seeds: seeds)
        try await createRecord(container, image: image, users: users)
        return mounts
    }

    private func look(
        _ container: ContainerSpec, image: UnpackedImage, mounts: [Containerd_Types_Mount], seeds: [ImageRoot.Seed]
    ) async throws -> UserDatabase {
        let known = userDatabases.withLock { $0[image.topChainID] }
        // Among its files, so that a crash in between leaves nothing that is not removed with them.
        let mountPoint = files.mountPoint(container.id)
        try TaskFiles.makeDirectories(mountPoint)
        defer { rmdir(mountPoint) }
        let found = try await ImageRoot(mounts: mounts, mountPoint: mountPoint).look(users: known == nil, seeds: seeds)
        guard let users = found ?? known else {
            throw RuntimeError(.internal, "the users of image `\(container.service.image)` were not read")
        }
        userDatabases.withLock { databases in
            if databases.count >= 256 { databases = [:] }
            databases[image.topChainID] = users
        }
        return users
    }

    private func prepareSnapshot(_ id: ContainerID, image: UnpackedImage) async throws -> [Containerd_Types_Mount] {
        var request = Containerd_Services_Snapshots_V1_PrepareSnapshotRequest()
        request.snapshotter = configuration.snapshotter
        request.key = id.raw
        request.parent = image.topChainID
        // Until the record names it, only this keeps it; `removeOrphans` takes what a crash left.
        request.labels = ["containerd.io/gc.root": Self.now().description, ContainerLabel.task: id.raw]
        return try await client.unary.snapshots.prepare(request).mounts
    }

    private func createRecord(_ container: ContainerSpec, image: UnpackedImage, users: UserDatabase) async throws {
        let service = container.service
        let text = service.user ?? image.config.user
        let document = try OCISpec(
            container: container, image: image.config, user: users.resolve(text), host: host,
            filesDirectory: files.directory(container.id), node: configuration.nodeName
        ).document()
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.withoutEscapingSlashes]

        var options = Containerd_Runc_V1_Options()
        // runc's own default is shared by every containerd of the machine.
        options.root = "\(configuration.dataDirectory)/runc"

        var request = Containerd_Services_Containers_V1_CreateContainerRequest()
        request.container.id = container.id.raw
        request.container.image = service.image
        request.container.snapshotter = configuration.snapshotter
        request.container.snapshotKey = container.id.raw
        request.container.labels = [
            ContainerLabel.task: container.task.raw,
            ContainerLabel.attempt: "\(container.attempt)",
            ContainerLabel.app: container.app.name,
            ContainerLabel.namespace: container.app.namespace,
            ContainerLabel.service: service.name,
        ]
        if let signal = service.stopSignal ?? image.config.stopSignal {
            request.container.labels[ContainerLabel.stopSignal] = signal
        }
        request.container.runtime.name = "io.containerd.runc.v2"
        // By hand: the library's own packing adds a prefix containerd 1.6 does not know.
        request.container.runtime.options.typeURL = Containerd_Runc_V1_Options.protoMessageName
        request.container.runtime.options.value = try options.serializedData()
        request.container.spec.typeURL = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
        request.container.spec.value = try encoder.encode(document)
        _ = try await client.unary.containers.create(request)
    }

    private func logURI(_ container: ContainerSpec) -> String {
        let path = logStore.path(task: container.task, attempt: container.attempt)
        return "binary://\(Self.escaped(logProgram))?path=\(Self.escaped(path))&max_bytes=10485760&files=3"
    }

    /// Percent-encoded but for slashes.
    static func escaped(_ path: String) -> String {
        var text = ""
        for byte in path.utf8 {
            let character = Character(UnicodeScalar(byte))
            let isPlain = byte < 128 && (character.isLetter || character.isNumber || "/-._~".contains(character))
            text +=
                isPlain ? String(character) : "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
        }
        return text
    }

    // MARK: Stop and remove

    public func stop(_ id: ContainerID, signal: String?, timeoutMilliseconds: Int) async throws {
        try await explaining("stop container `\(id)`") {
            let number = try await stopSignal(id, signal)
            guard try await send(number, to: id) else { return }
            if try await hasExited(id, within: .milliseconds(max(0, timeoutMilliseconds))) { return }
            guard try await send(Signal.kill, to: id) else { return }
            try await requireExit(id)
        }
    }

    private func stopSignal(_ id: ContainerID, _ given: String?) async throws -> UInt32 {
        var text = given
        if text == nil {
            var request = Containerd_Services_Containers_V1_GetContainerRequest()
            request.id = id.raw
            do {
                text = try await client.unary.containers.get(request).container.labels[ContainerLabel.stopSignal]
            } catch let error as RPCError where error.code == .notFound {}
        }
        guard let text else { return Signal.terminate }
        if let number = Signal.number(text) { return number }
        log.warning("unknown stop signal, SIGTERM is sent", metadata: ["container": "\(id)", "signal": "\(text)"])
        return Signal.terminate
    }

    /// False when there is no process any more.
    private func send(_ signal: UInt32, to id: ContainerID) async throws -> Bool {
        var request = Containerd_Services_Tasks_V1_KillRequest()
        request.containerID = id.raw
        request.signal = signal
        do {
            _ = try await client.unary.tasks.kill(request)
            return true
        } catch let error as RPCError where error.code == .notFound {
            return false
        } catch let error as RPCError where error.code == .failedPrecondition || error.code == .unknown {
            // Some versions say so of a process that ended a moment ago.
            if try await hasEnded(id) { return false }
            throw error
        }
    }

    private func hasEnded(_ id: ContainerID) async throws -> Bool {
        var request = Containerd_Services_Tasks_V1_GetRequest()
        request.containerID = id.raw
        do {
            return try await client.unary.tasks.get(request).process.status == .stopped
        } catch let error as RPCError where error.code == .notFound {
            return true
        }
    }

    /// The event wakes it; questions in growing intervals make up for one that was lost.
    private func hasExited(_ id: ContainerID, within limit: Duration) async throws -> Bool {
        let deadline = ContinuousClock.now + limit
        var interval = Duration.milliseconds(100)
        while true {
            let left = ContinuousClock.now.duration(to: deadline)
            guard left > .zero else { return try await hasEnded(id) }
            await hub.waitForExit(id, atMost: min(interval, left))
            try Task.checkCancellation()
            if try await hasEnded(id) { return true }
            interval = min(interval * 2, .seconds(1))
        }
    }

    private func requireExit(_ id: ContainerID) async throws {
        guard try await hasExited(id, within: .seconds(30)) else {
            throw RuntimeError(
                .deadlineExceeded, "container `\(id)` still runs 30 s after SIGKILL",
                hint: "a process of it may hang in the kernel: see `ps -eo pid,stat,wchan:30,cmd`")
        }
    }

    public func remove(_ id: ContainerID) async throws {
        try await explaining("remove container `\(id)`") {
            try await deleteTask(id)
            async let record = Result.of { [self] in try await deleteRecord(id) }
            async let snapshot = Result.of { [self] in try await deleteSnapshot(id.raw) }
            let results = await (record, snapshot)
            try files.remove(id)
            try results.0.get()
            try results.1.get()
            hub.forget(id)
        }
    }

    private func deleteTask(_ id: ContainerID) async throws {
        var request = Containerd_Services_Tasks_V1_DeleteTaskRequest()
        request.containerID = id.raw
        do {
            _ = try await client.unary.tasks.delete(request)
        } catch let error as RPCError where error.code == .notFound {
            return
        } catch let error as RPCError where error.code == .failedPrecondition || error.code == .unknown {
            if try await send(Signal.kill, to: id) { try await requireExit(id) }
            do { _ = try await client.unary.tasks.delete(request) } catch let error as RPCError
                where error.code == .notFound
            {}
        }
    }

    private func deleteRecord(_ id: ContainerID) async throws {
        var request = Containerd_Services_Containers_V1_DeleteContainerRequest()
        request.id = id.raw
        do { _ = try await client.unary.containers.delete(request) } catch let error as RPCError
            where error.code == .notFound
        {}
    }

    private func deleteSnapshot(_ key: String) async throws {
        var request = Containerd_Services_Snapshots_V1_RemoveSnapshotRequest()
        request.snapshotter = configuration.snapshotter
        request.key = key
        do { _ = try await client.unary.snapshots.remove(request) } catch let error as RPCError
            where error.code == .notFound
        {}
    }

    // MARK: List

    public func containers() async throws -> [ObservedContainer] {
        try await explaining("list containers") {
            async let listed = client.unary.containers.list(.init())
            async let tasks = client.unary.tasks.list(.init())
            let processes = try await Dictionary(tasks.tasks.map { ($0.id, $0) }) { first, _ in first }
            return try await listed.containers.compactMap { record -> ObservedContainer? in
                guard let task = record.labels[ContainerLabel.task],
                    let attempt = record.labels[ContainerLabel.attempt].flatMap(Int.init)
                else { return nil }
                let id = ContainerID(record.id)
                return ObservedContainer(
                    id: id, task: TaskID(task), attempt: attempt, state: state(of: id, processes[record.id]),
                    startedAt: Timestamp(protobuf: record.createdAt))
            }.sorted { $0.id < $1.id }
        }
    }

    private func state(of id: ContainerID, _ process: Containerd_V1_Types_Process?) -> ObservedContainer.State {
        guard let process else { return .created }
        switch process.status {
        case .created: return .created
        case .stopped:
            let code = Int(process.exitStatus)
            let killed =
                hub.wasOutOfMemory(id)
                || code == 137
                    && OutOfMemory.wasCounted(
                        cgroup: OCISpec.cgroupPath(node: configuration.nodeName, container: id),
                        unified: host.isUnifiedCgroup)
            return .exited(ExitStatus(code: code, outOfMemory: killed, at: Timestamp(protobuf: process.exitedAt)))
        // A shim that did not answer in time has no state: what was alive is taken to be alive.
        default: return .running(pid: Int32(bitPattern: process.pid))
        }
    }

    /// Removes what a crash left between a record and the snapshot or files that go with it. Before any start: files
    /// are written ahead of their record.
    func removeOrphans() async throws {
        try await explaining("remove what a crash left") {
            let records = try await client.unary.containers.list(.init()).containers
            let ids = Set(records.map(\.id))
            for id in try files.all() where !ids.contains(id.raw) {
                log.info("files without a container removed", metadata: ["container": "\(id)"])
                try files.remove(id)
            }
            let known = Set(records.map(\.snapshotKey))
            let keys = try await client.withStreams { [configuration] services in
                var request = Containerd_Services_Snapshots_V1_ListSnapshotsRequest()
                request.snapshotter = configuration.snapshotter
                request.filters = ["labels.\"\(ContainerLabel.task)\""]
                return try await services.snapshots.list(request) { response in
                    var keys: [String] = []
                    for try await part in response.messages { keys += part.info.map(\.name) }
                    return keys
                }
            }
            for key in keys where !known.contains(key) {
                log.info("snapshot without a container removed", metadata: ["snapshot": "\(key)"])
                try await deleteSnapshot(key)
            }
        }
    }

    static func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(milliseconds: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000)
    }
}

extension Result where Success: Sendable, Failure == any Error {
    /// The outcome of `body`, so that two calls side by side can both be awaited before either's failure counts.
    static func of(_ body: @Sendable () async throws -> Success) async -> Result {
        do { return .success(try await body()) } catch { return .failure(error) }
    }
}
