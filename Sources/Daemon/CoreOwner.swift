// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Logging
internal import Model
internal import Orchestrator
internal import Raft
internal import Store
internal import Synchronization

/// The one owner of the core: a thread that feeds events in and carries effects out.
///
/// The core blocks on SQLite, so it never runs on the cooperative pool. Everybody else talks to it through the inbox.
final class CoreOwner: @unchecked Sendable {
    /// What others may know of the core without asking it.
    struct Status: Sendable {
        var term: UInt64 = 0
        var commitIndex: UInt64 = 0
        var appliedIndex: UInt64 = 0
        var isLeader = false
        var isCaughtUp = false
        var isAdopted = false
        /// Why changes are not taken now.
        var condition: String?
    }

    /// Events waiting for the core. Beyond it, proposals are refused as busy; observations are few per task.
    static let inboxMax = 20_000

    private struct Inbox {
        var events: [NodeCore.Event] = []
        var stopping = false
    }

    private struct Waiter {
        var continuation: CheckedContinuation<Applied, any Error>
    }

    // Only the core's thread touches these; everything below is behind a Mutex or immutable.
    private var core: NodeCore
    /// Up to here the log may be cut once the state is durable.
    private var checkpointDue: UInt64?

    private let inbox = Mutex(Inbox())
    private let signal = Signal()
    private let waiters = Mutex<[UInt64: Waiter]>([:])
    private let nextToken = Mutex<UInt64>(1)
    private let shared = Mutex(Status())
    private let placed = Mutex<[ObjectKey: Reason]>([:])
    private let log: Logger
    private let state: StateMachine
    private let writer: LogWriter
    private let sinks: Mutex<Sinks?> = Mutex(nil)
    /// Resumed once the thread has ended.
    private let ended = Signal()

    struct Sinks: Sendable {
        var perform: @Sendable (Action) -> Void
        var publish: @Sendable (NameTable, BalancingTable) -> Void
        var fail: @Sendable (DaemonError) -> Void
    }

    /// Reports of the log's thread, which exists before its owner does.
    private final class Relay: Sendable {
        private let sink = Mutex<(@Sendable (LogWriter.Report) -> Void)?>(nil)
        func connect(_ body: @escaping @Sendable (LogWriter.Report) -> Void) { sink.withLock { $0 = body } }
        func report(_ report: LogWriter.Report) { sink.withLock { $0 }?(report) }
    }

    /// Opens the log and puts the core on what it finds.
    /// - Throws: `LogError` when the log is damaged or belongs to another state; nothing is changed then.
    init(node: NodeID, state: StateMachine, logDirectory: String, seed: UInt64, log: Logger) throws {
        let meta = try state.read { try $0.meta() }
        let file = try LogFile(
            directory: try POSIXLogDirectory(path: logDirectory), minimumIndex: meta.appliedIndex)
        let recovered = file.recovered
        // The only member so far; ids of members become random when there are several.
        var configuration = RaftNode.Configuration(id: 1)
        // A config of 1 MiB may grow sixfold when JSON escapes it.
        configuration.entryBytesMax = 8 << 20
        let raft = RaftNode(
            configuration: configuration, hardState: recovered.hardState, log: recovered.extent,
            termStarts: recovered.termStarts, appliedIndex: meta.appliedIndex,
            configurations: [ConfigurationPoint(index: 0, membership: Membership(voters: [1]))])
        core = NodeCore(node: node, state: state, raft: raft, seed: seed, logTime: meta.logTime)
        self.state = state
        self.log = log
        let relay = Relay()
        writer = try LogWriter(log: file) { relay.report($0) }
        if recovered.cutTornTail { log.info("cut a record the last crash left unfinished") }
        relay.connect { [weak self] report in self?.logReported(report) }
    }

    private func logReported(_ report: LogWriter.Report) {
        switch report {
        case .persisted(let receipt, _):
            let wasFull = shared.withLock { status in
                defer { status.condition = nil }
                return status.condition != nil
            }
            if wasFull { log.info("the log's disk has room again, changes are taken") }
            send(.persisted(receipt))
        case .noSpace(let error):
            log.error("the log's disk is full, changes wait", metadata: ["error": "\(error.message)"])
            shared.withLock { $0.condition = "the disk of the log is full: changes are refused until there is room" }
        case .failed(let error):
            fail(DaemonError("the log cannot be written: \(error.message)", hint: error.hint))
        }
    }

    var status: Status { shared.withLock { $0 } }
    var placements: [ObjectKey: Reason] { placed.withLock { $0 } }

    func connect(_ sinks: Sinks) { self.sinks.withLock { $0 = sinks } }

    /// Starts the thread.
    func start() {
        Thread.spawn { self.loop() }
    }

    /// Ends the thread after what is in the inbox.
    func stop() {
        inbox.withLock { $0.stopping = true }
        signal.raise()
        ended.wait(seconds: 5)
        writer.shutdown()
    }

    func send(_ event: NodeCore.Event) {
        inbox.withLock { $0.events.append(event) }
        signal.raise()
    }

    /// Proposes a change and waits until it is applied.
    ///
    /// - Throws: `Problem`: `busy` and `no_leader` are certainly without effect; `timeout` may still take effect.
    func propose(_ change: Change, request: String? = nil, deadline: Duration) async throws -> Applied {
        if inbox.withLock({ $0.events.count >= Self.inboxMax }) {
            throw Problem(.busy, "too many requests wait for this node", hint: "try again in a moment")
        }
        if let condition = status.condition {
            throw Problem(
                .noSpace, condition, hint: "free space; writes resume by themselves, running apps are not affected")
        }
        let token = nextToken.withLock { token in
            defer { token += 1 }
            return token
        }
        let expiry = Task {
            try await Task.sleep(for: deadline)
            self.resolve(
                token,
                .failure(
                    Problem(
                        .timeout, "the change was not agreed in time; it may still take effect",
                        hint: "look before you repeat it")))
        }
        defer { expiry.cancel() }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                waiters.withLock { $0[token] = Waiter(continuation: continuation) }
                // A cancellation before this line found nobody to wake.
                if Task.isCancelled { return cancel(token) }
                send(.propose(NodeCore.Proposition(token: token, request: request, change: change)))
            }
        } onCancel: {
            // Who asked has gone; what was proposed may still take effect.
            cancel(token)
        }
    }

    private func cancel(_ token: UInt64) {
        waiters.withLock { $0.removeValue(forKey: token) }?.continuation.resume(throwing: CancellationError())
    }

    private func resolve(_ token: UInt64, _ result: Result<Applied, Problem>) {
        guard let waiter = waiters.withLock({ $0.removeValue(forKey: token) }) else { return }
        switch result {
        case .success(let applied): waiter.continuation.resume(returning: applied)
        case .failure(let problem): waiter.continuation.resume(throwing: problem)
        }
    }

    // MARK: - The thread

    private func loop() {
        defer { ended.raise() }
        do {
            try carryOut(core.step(.tick, now: Self.now()))
            while true {
                let (events, stopping) = inbox.withLock { inbox in
                    defer { inbox.events = [] }
                    return (inbox.events, inbox.stopping)
                }
                if events.isEmpty {
                    if stopping { return }
                    let now = Self.now()
                    let due = core.wakeAt.map { max(0, $0 - now) } ?? 1000
                    if due == 0 {
                        try carryOut(core.step(.tick, now: now))
                    } else {
                        signal.wait(milliseconds: min(due, 1000))
                        try cutLog()
                        continue
                    }
                }
                for event in events { try carryOut(core.step(event, now: Self.now())) }
                publishStatus()
            }
        } catch {
            fail(
                DaemonError(
                    "the state cannot be written: \(error)", hint: "check the disk, then start the daemon again"))
        }
    }

    private func carryOut(_ effects: [NodeCore.Effect]) throws {
        for effect in effects {
            switch effect {
            case .write(let write): try writer.submit(write)
            case .load(let range): load(range, [])
            case .reply(let token, let result): resolve(token, result)
            case .perform(let action): sinks.withLock { $0 }?.perform(action)
            case .publish(let names, let balancing): sinks.withLock { $0 }?.publish(names, balancing)
            case .placement(let app, let reason): placed.withLock { $0[app] = reason }
            case .roleChanged(let change):
                log.debug("role changed", metadata: ["role": "\(change.role)", "term": "\(change.term)"])
            case .caughtUp(let index):
                shared.withLock { $0.isCaughtUp = true }
                log.info("state is current", metadata: ["index": "\(index)"])
            case .checkpoint(let applied):
                checkpointDue = applied
                try cutLog()
            case .halt(let message):
                fail(DaemonError("this node can no longer follow the log: \(message)"))
            }
        }
    }

    /// Readers may be in the way of a checkpoint; then the log is cut a little later.
    private func cutLog() throws {
        guard let applied = checkpointDue, try state.checkpoint() else { return }
        checkpointDue = nil
        try writer.compact(through: applied)
    }

    /// Reads in pieces of bounded size until the range is complete.
    private func load(_ range: Range<UInt64>, _ found: [Entry]) {
        let rest = range.lowerBound + UInt64(found.count)..<range.upperBound
        guard !rest.isEmpty else { return send(.loaded(found)) }
        writer.read(rest, bytesMax: 4 << 20) { [weak self] result in
            switch result {
            case .success(let entries): self?.load(range, found + entries)
            case .failure(let error):
                self?.fail(DaemonError("the log cannot be read: \(error.message)", hint: error.hint))
            }
        }
    }

    private func publishStatus() {
        let adopted = core.isAdopted
        let (term, commit, applied, leader) = (core.term, core.commitIndex, core.appliedIndex, core.isLeader)
        shared.withLock { status in
            status.term = term
            status.commitIndex = commit
            status.appliedIndex = applied
            status.isLeader = leader
            status.isAdopted = adopted
        }
    }

    private func fail(_ error: DaemonError) {
        log.error("the core has stopped", metadata: ["error": "\(error.message)"])
        let open = waiters.withLock { waiters in
            defer { waiters = [:] }
            return waiters
        }
        for waiter in open.values {
            waiter.continuation.resume(
                throwing: Problem(.internal, "this node has stopped: \(error.message)", hint: error.hint))
        }
        sinks.withLock { $0 }?.fail(error)
    }

    static func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(milliseconds: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000)
    }
}
