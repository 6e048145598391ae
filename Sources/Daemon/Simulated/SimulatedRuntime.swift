// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Synchronization

/// Containers that exist in memory only, for trying Hivemind without root and for tests.
///
/// A reference whose repository is `missing` or ends in `/missing` does not exist; every other one has a digest
/// made from its text. A container runs until it is stopped, except by the first word of its command:
///
/// - `exit N` ends at once with code N, `crash` (or `crash…`) with code 1, `oom` by the memory limit;
/// - `missing` is a command the image does not have: starting it fails for good.
///
/// Nothing survives the process; `info().conditions` says so.
final class SimulatedRuntime: Runtime {
    /// Kept per task: older lines are dropped.
    static let logLinesMax = 1000
    /// Waiting for one reader of events; what does not fit becomes one `.resync`.
    static let eventsMax = 1024

    private struct Container {
        var spec: ContainerSpec
        var state: ObservedContainer.State
        var startedAt: Timestamp
    }

    private struct State {
        var faults = Faults()
        var images: [String: ImageSummary] = [:]
        var containers: [ContainerID: Container] = [:]
        var logs: [TaskID: [LogLine]] = [:]
        var nextProcess: Int32 = 100_000
        var nextReader = 0
        var eventReaders: [Int: AsyncStream<RuntimeEvent>.Continuation] = [:]
        var logReaders: [Int: (query: LogQuery, lines: AsyncThrowingStream<LogLine, any Error>.Continuation)] = [:]
    }

    private let state = Mutex(State())
    private let now: @Sendable () -> Timestamp

    /// - Parameter now: the clock that stamps starts, exits and lines.
    init(faults: Faults = Faults(), now: @escaping @Sendable () -> Timestamp = { .fromSystemClock() }) {
        self.now = now
        state.withLock { $0.faults = faults }
    }

    // MARK: Hooks

    /// Replaces the script of failures.
    func setFaults(_ faults: Faults) { state.withLock { $0.faults = faults } }

    /// Ends a running container as its process would. False when it does not run.
    @discardableResult
    func end(_ id: ContainerID, code: Int, outOfMemory: Bool = false) -> Bool {
        let at = now()
        return state.withLock { Self.end(id, ExitStatus(code: code, outOfMemory: outOfMemory, at: at), &$0) }
    }

    /// Adds a line a running container would have written.
    func write(_ text: String, by task: TaskID, to stream: LogLine.Stream = .stdout) {
        let line = LogLine(at: now(), stream: stream, text: text)
        state.withLock { Self.log(line, of: task, &$0) }
    }

    /// Tells every reader of events to list again.
    func loseEvents() {
        state.withLock { state in
            for reader in state.eventReaders.values { reader.yield(.resync) }
        }
    }

    // MARK: Images

    func resolve(image reference: String) async throws -> ResolvedImage {
        try state.withLock { state in
            try state.faults.take(.resolve)
            let name = try SimulatedImage(reference)
            if let stored = state.images[name.text] {
                return ResolvedImage(reference: name.text, digest: stored.digest, isLocal: name.isMissing)
            }
            try name.refuseMissing()
            return ResolvedImage(reference: name.text, digest: name.digest, isLocal: false)
        }
    }

    func pull(image reference: String, digest: String) async throws {
        let at = now()
        try state.withLock { state in
            try state.faults.take(.pull)
            let name = try SimulatedImage(reference)
            if state.images[name.text]?.digest == digest { return }
            try name.refuseMissing()
            guard name.digest == digest else {
                throw SimulatedError(.digestMismatch, "`\(name.text)` is \(name.digest), not \(digest)")
            }
            Self.store(name, at, &state)
        }
    }

    func importImages(archive path: String, name: String?) async throws -> [ImageSummary] {
        let at = now()
        return try state.withLock { state in
            try state.faults.take(.importImages)
            guard let name else {
                throw SimulatedError(
                    .imageInvalid, "a simulated runtime does not read archives", hint: "say what it is called: --name")
            }
            return [Self.store(try SimulatedImage(name), at, &state)]
        }
    }

    func images() async throws -> [ImageSummary] {
        state.withLock { $0.images.values.sorted { $0.name < $1.name } }
    }

    func removeImage(_ reference: String) async throws {
        try state.withLock { state in
            let name = try SimulatedImage(reference)
            guard state.images.removeValue(forKey: name.text) != nil else {
                throw SimulatedError(.imageNotFound, "there is no image `\(name.text)` here")
            }
        }
    }

    @discardableResult
    private static func store(_ name: SimulatedImage, _ at: Timestamp, _ state: inout State) -> ImageSummary {
        let image = ImageSummary(name: name.text, digest: name.digest, sizeBytes: 1 << 20, createdAt: at)
        state.images[name.text] = image
        return image
    }

    // MARK: Containers

    func start(_ container: ContainerSpec) async throws -> StartedContainer {
        let at = now()
        return try state.withLock { state in
            if let existing = state.containers[container.id], case .running(let pid) = existing.state {
                return StartedContainer(pid: pid, startedAt: existing.startedAt)
            }
            try state.faults.take(.start)
            let image = try SimulatedImage(container.service.image)
            guard state.images[image.text] != nil else {
                throw SimulatedError(
                    .imageNotFound, "image `\(image.text)` was not pulled", hint: "pull it before starting")
            }
            let words = (container.service.entrypoint ?? []) + (container.service.command ?? [])
            if words.first == "missing" {
                throw SimulatedError(.commandNotFound, "the image `\(image.text)` has no command `missing`")
            }
            state.nextProcess += 1
            let pid = state.nextProcess
            state.containers[container.id] = Container(spec: container, state: .running(pid: pid), startedAt: at)
            Self.log(
                LogLine(at: at, stream: .stdout, text: "started \(image.text) \(words.joined(separator: " "))"),
                of: container.task, &state)
            if let status = Self.immediateEnd(words, at) { Self.end(container.id, status, &state) }
            return StartedContainer(pid: pid, startedAt: at)
        }
    }

    func stop(_ id: ContainerID, signal: String?, timeoutMilliseconds: Int) async throws {
        let at = now()
        let number = SignalName.number(signal.flatMap(SignalName.normalised) ?? "SIGTERM") ?? 15
        try state.withLock { state in
            try state.faults.take(.stop)
            Self.end(id, ExitStatus(code: 128 + Int(number), outOfMemory: false, at: at), &state)
        }
    }

    func remove(_ id: ContainerID) async throws {
        let at = now()
        try state.withLock { state in
            try state.faults.take(.remove)
            Self.end(id, ExitStatus(code: 137, outOfMemory: false, at: at), &state)
            state.containers[id] = nil
        }
    }

    func containers() async throws -> [ObservedContainer] {
        try state.withLock { state in
            try state.faults.take(.containers)
            return state.containers.values.map {
                ObservedContainer(
                    id: $0.spec.id, task: $0.spec.task, attempt: $0.spec.attempt, state: $0.state,
                    startedAt: $0.startedAt)
            }.sorted { $0.id < $1.id }
        }
    }

    func events() -> AsyncStream<RuntimeEvent> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: RuntimeEvent.self, bufferingPolicy: .bufferingNewest(Self.eventsMax))
        let reader = state.withLock { state in
            state.nextReader += 1
            state.eventReaders[state.nextReader] = continuation
            return state.nextReader
        }
        continuation.onTermination = { [weak self] _ in
            _ = self?.state.withLock { $0.eventReaders.removeValue(forKey: reader) }
        }
        return stream
    }

    private static func immediateEnd(_ words: [String], _ at: Timestamp) -> ExitStatus? {
        guard let first = words.first else { return nil }
        if first == "exit" {
            let code = words.dropFirst().first.flatMap(Int.init) ?? 0
            return ExitStatus(code: code & 255, outOfMemory: false, at: at)
        }
        if first == "oom" { return ExitStatus(code: 137, outOfMemory: true, at: at) }
        return first.hasPrefix("crash") ? ExitStatus(code: 1, outOfMemory: false, at: at) : nil
    }

    @discardableResult
    private static func end(_ id: ContainerID, _ status: ExitStatus, _ state: inout State) -> Bool {
        guard case .running? = state.containers[id]?.state else { return false }
        state.containers[id]?.state = .exited(status)
        for reader in state.eventReaders.values {
            // A full buffer has just dropped its oldest event: the reader has to list again.
            if case .dropped = reader.yield(.exited(id, status)) { reader.yield(.resync) }
        }
        return true
    }

    // MARK: Logs

    func removeLogs(task: TaskID) async throws {
        // Ended outside of the lock: ending a stream calls back into this object.
        let ended = try state.withLock { state in
            try state.faults.take(.removeLogs)
            state.logs[task] = nil
            let ended = state.logReaders.filter { $0.value.query.task == task }
            for reader in ended.keys { state.logReaders[reader] = nil }
            return ended.values.map(\.lines)
        }
        for lines in ended { lines.finish() }
    }

    func loggedTasks() async throws -> [TaskID] { state.withLock { $0.logs.keys.sorted() } }

    func logs(_ query: LogQuery) -> AsyncThrowingStream<LogLine, any Error> {
        let (stream, continuation) = AsyncThrowingStream.makeStream(
            of: LogLine.self, throwing: (any Error).self, bufferingPolicy: .bufferingNewest(2 * Self.logLinesMax))
        let reader: Int? = state.withLock { state in
            var lines = state.logs[query.task] ?? []
            if let since = query.since { lines.removeAll { $0.at < since } }
            if let tail = query.tail { lines = lines.suffix(tail) }
            for line in lines { continuation.yield(line) }
            guard query.follow else {
                continuation.finish()
                return nil
            }
            state.nextReader += 1
            state.logReaders[state.nextReader] = (query, continuation)
            return state.nextReader
        }
        if let reader {
            continuation.onTermination = { [weak self] _ in
                _ = self?.state.withLock { $0.logReaders.removeValue(forKey: reader)?.lines }
            }
        }
        return stream
    }

    private static func log(_ line: LogLine, of task: TaskID, _ state: inout State) {
        var lines = state.logs[task] ?? []
        if lines.count == logLinesMax { lines.removeFirst() }
        lines.append(line)
        state.logs[task] = lines
        for reader in state.logReaders.values where reader.query.task == task { reader.lines.yield(line) }
    }

    func info() async -> RuntimeInfo {
        RuntimeInfo(
            kind: "simulated", version: "1", address: "memory", isReady: true,
            conditions: ["simulated runtime: containers are pretended and forgotten when the daemon ends"])
    }
}
