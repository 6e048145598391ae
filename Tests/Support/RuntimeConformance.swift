// SPDX-License-Identifier: Apache-2.0
public import Model

/// A check of a conformance suite that did not hold.
public struct ConformanceFailure: Error, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

/// What every `Runtime` promises, checked on the simulated one in unit tests and on the real one where it can run.
///
/// Each check uses tasks of its own and removes what it made, also when it fails.
public struct RuntimeConformance: Sendable {
    public let runtime: any Runtime
    /// An image the runtime can pull or has.
    public let image: String
    /// A reference that does not exist anywhere.
    public let missingImage: String
    /// Runs until it is stopped.
    public let foreverCommand: [String]
    /// Ends at once with code 3.
    public let exitThreeCommand: [String]
    /// Not in the image.
    public let missingCommand: [String]
    /// In front of every task id, so that suites can run side by side. At most 6 letters.
    public let prefix: String
    /// Gives a spec what this runtime needs, a network namespace for example.
    public let prepare: @Sendable (ContainerSpec) async throws -> ContainerSpec
    public let timeout: Duration

    public init(
        runtime: any Runtime, image: String, missingImage: String, foreverCommand: [String],
        exitThreeCommand: [String], missingCommand: [String], prefix: String, timeout: Duration = .seconds(30),
        prepare: @escaping @Sendable (ContainerSpec) async throws -> ContainerSpec = { $0 }
    ) {
        self.runtime = runtime
        self.image = image
        self.missingImage = missingImage
        self.foreverCommand = foreverCommand
        self.exitThreeCommand = exitThreeCommand
        self.missingCommand = missingCommand
        self.prefix = prefix
        self.timeout = timeout
        self.prepare = prepare
    }

    /// All checks, one after the other.
    public func checkAll() async throws {
        try await checkImages()
        try await checkStartStopRemove()
        try await checkExitIsTold()
        try await checkFinalReasons()
        try await checkStopOfAnEndedContainer()
    }

    public func checkImages() async throws {
        let resolved = try await pulled()
        let again = try await runtime.resolve(image: image)
        try require(again.digest == resolved.digest, "a reference resolves to \(again.digest), then \(resolved.digest)")
        try await runtime.pull(image: image, digest: resolved.digest)
        let listed = try await runtime.images()
        try require(listed.contains { $0.digest == resolved.digest }, "a pulled image is not listed: \(listed)")
    }

    public func checkStartStopRemove() async throws {
        try await pulled()
        try await withContainer("a", foreverCommand) { spec in
            let started = try await runtime.start(spec)
            try require(started.pid > 0, "pid \(started.pid)")
            let observed = try await listed(spec.id)
            try require(observed?.state == .running(pid: started.pid), "after start: \(String(describing: observed))")
            try require(observed?.task == spec.task && observed?.attempt == 0, "its task is not told")
            try await runtime.stop(spec.id, signal: "SIGTERM", timeoutMilliseconds: 1000)
            guard case .exited(let status)? = try await listed(spec.id)?.state else {
                throw ConformanceFailure("a stopped container is not listed as exited")
            }
            try require(status.code > 0, "stopped by a signal with code \(status.code)")
            try await runtime.remove(spec.id)
            try require(try await listed(spec.id) == nil, "a removed container is listed")
            try await runtime.remove(spec.id)
        }
    }

    public func checkExitIsTold() async throws {
        try await pulled()
        try await withContainer("b", exitThreeCommand) { spec in
            let events = runtime.events()
            _ = try await runtime.start(spec)
            let code = try await withThrowingTaskGroup(of: Int?.self) { group in
                group.addTask {
                    for await event in events {
                        switch event {
                        case .exited(let id, let status) where id == spec.id: return status.code
                        case .exited: continue
                        case .resync:
                            if case .exited(let status)? = try await listed(spec.id)?.state { return status.code }
                        }
                    }
                    return nil
                }
                group.addTask {
                    try await ContinuousClock().sleep(for: timeout)
                    return nil
                }
                defer { group.cancelAll() }
                return try await group.next() ?? nil
            }
            try require(code == 3, "told exit code \(String(describing: code)), not 3")
            guard case .exited(let status)? = try await listed(spec.id)?.state else {
                throw ConformanceFailure("an ended container is not listed as exited")
            }
            try require(status.code == 3 && !status.outOfMemory, "listed as \(status)")
            try require(status.reason.code == .exited, "its reason is \(status.reason.code)")
        }
    }

    public func checkFinalReasons() async throws {
        try await expect(.imageNotFound) { _ = try await runtime.resolve(image: missingImage) }
        try await expect(.imageNotFound) { try await runtime.removeImage(missingImage) }
        try await pulled()
        try await withContainer("c", missingCommand) { spec in
            try await expect(.commandNotFound) { _ = try await runtime.start(spec) }
            try require(try await listed(spec.id) == nil, "a container that could not start is left behind")
        }
    }

    public func checkStopOfAnEndedContainer() async throws {
        try await pulled()
        let never = ContainerID(task: TaskID("\(prefix)nobody"), attempt: 0)
        try await runtime.stop(never, signal: nil, timeoutMilliseconds: 100)
        try await runtime.remove(never)
    }

    // MARK: Parts

    @discardableResult
    private func pulled() async throws -> ResolvedImage {
        let resolved = try await runtime.resolve(image: image)
        try await runtime.pull(image: resolved.reference, digest: resolved.digest)
        return resolved
    }

    private func listed(_ id: ContainerID) async throws -> ObservedContainer? {
        try await runtime.containers().first { $0.id == id }
    }

    private func withContainer(
        _ suffix: String, _ command: [String], _ body: (ContainerSpec) async throws -> Void
    ) async throws {
        let task = TaskID("\(prefix)conf\(suffix)")
        let resolved = try await runtime.resolve(image: image)
        let service = ServiceSpec(name: "web", image: image, imageDigest: resolved.digest, command: command)
        let spec = try await prepare(
            ContainerSpec(
                id: ContainerID(task: task, attempt: 0), task: task, attempt: 0, service: service,
                app: ObjectKey(name: "conformance"), mounts: [], networkNamespace: nil, address: nil,
                nameServers: [], hostname: "conformance"))
        let result: Result<Void, any Error>
        do { result = .success(try await body(spec)) } catch { result = .failure(error) }
        try await runtime.remove(spec.id)
        try await runtime.removeLogs(task: task)
        try result.get()
    }

    private func expect(_ code: Reason.Code, _ body: () async throws -> Void) async throws {
        do { try await body() } catch {
            let found = reason(for: error)
            try require(found.code == code, "failed with \(found.code), not \(code): \(found.message)")
            return
        }
        throw ConformanceFailure("did not fail with \(code)")
    }

    private func require(_ holds: Bool, _ text: @autoclosure () -> String) throws {
        if !holds { throw ConformanceFailure(text()) }
    }
}
