// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Model
internal import Orchestrator
internal import Raft
internal import Store
internal import Synchronization

/// The one owner of the applied state and of what follows from it: a thread that blocks on SQLite so that consensus does
/// not have to.
///
/// `@unchecked Sendable`: `core` and the variables beside it are touched by the thread alone, after `start`; the rest is
/// immutable or behind a Mutex.
final class StateOwner: @unchecked Sendable {
    enum Job: Sendable {
        case event(NodeCore.Event)
        case committed(Committed)
        case install(Install)
        /// Agreed entries a member told this observer of; what is here already is skipped.
        case followed([Entry])
        /// The same for a whole state. Forced: this state is of another history, so that one that ends before it is taken.
        case replace(SnapshotMeta, isForced: Bool)
    }

    /// Where effects go. Called on the thread, in order.
    struct Sinks: Sendable {
        var perform: @Sendable (Action) -> Void
        var publish: @Sendable (NameTable, BalancingTable) -> Void
        var inForce: @Sendable (UInt64) -> Void
        var release: @Sendable (UInt64) -> Void
        var propose: @Sendable ([Proposal]) -> Void
        var applied: @Sendable (UInt64) -> Void
        var installed: @Sendable (Install) -> Void
        var compare: @Sendable (StatePicture) -> Void
        var checkpoint: @Sendable (UInt64) -> Void
        var nodes: @Sendable () -> Void
        /// Of an observer: the members its state names.
        var members: @Sendable (ConfigurationPoint) -> Void
        /// The log of this node, an observer until now, begins here, durably.
        var begin: @Sendable (LogPosition, ConfigurationPoint) throws -> Void
        var fail: @Sendable (DaemonError) -> Void
    }

    struct Status: Sendable {
        var appliedIndex: UInt64 = 0
        var isCaughtUp = false
        var isAdopted = false
        /// The node applies no more: it met a command it does not know.
        var halted: String?
        /// The disk of the state is full.
        var isOutOfSpace = false
    }

    /// Entries of one transaction.
    static let batchEntriesMax = 256
    static let retryMilliseconds: Int64 = 1_000

    private var core: NodeCore
    /// Nil unless this node observes: its id, should it become a member.
    private var observer: MemberID?
    /// The members may have changed since they were looked at.
    private var looksAtMembers = true
    /// Committed and not applied, because the disk is full.
    private var held: [Entry] = []
    private var retryAt: Int64 = 0
    private let mailbox = Mailbox<Job>()
    private let shared = Mutex(Status())
    private let placed = Mutex<[ObjectKey: Reason]>([:])
    private let ended = Signal()
    private let state: StateMachine
    private let writer: LogWriter
    private let snapshots: SnapshotStore
    private let proposals: Proposals
    private let log: Logger
    private let sinks: Mutex<Sinks?> = Mutex(nil)

    /// - Parameter observer: the node's member id when it is none yet.
    init(
        core: NodeCore, observer: MemberID?, state: StateMachine, writer: LogWriter, snapshots: SnapshotStore,
        proposals: Proposals,
        log: Logger
    ) {
        self.core = core
        self.observer = observer
        self.state = state
        self.writer = writer
        self.snapshots = snapshots
        self.proposals = proposals
        self.log = log
        shared.withLock { $0.appliedIndex = core.appliedIndex }
        proposals.replaced(through: core.appliedIndex)
    }

    var status: Status { shared.withLock { $0 } }
    var placements: [ObjectKey: Reason] { placed.withLock { $0 } }

    func connect(_ sinks: Sinks) { self.sinks.withLock { $0 = sinks } }

    func start() { Thread.spawn { self.loop() } }

    func stop() {
        mailbox.close()
        ended.wait(seconds: 5)
    }

    /// Lets go of whom it handed effects to, after `stop`: they hold it in turn.
    func disconnect() { sinks.withLock { $0 = nil } }

    func put(_ job: Job) { mailbox.put(job) }

    // MARK: - The thread

    private func loop() {
        defer { ended.raise() }
        guard let sinks = sinks.withLock({ $0 }) else { return }
        do {
            while true {
                let (jobs, isClosed) = mailbox.take(waitMilliseconds: wait())
                if isClosed, jobs.isEmpty { return }
                if !held.isEmpty, Clock.monotonic() >= retryAt { try apply([], sinks) }
                if jobs.isEmpty {
                    if let wake = core.wakeAt, wake <= Clock.now() { try step(.tick, sinks) }
                } else {
                    try work(jobs, sinks)
                }
                if looksAtMembers, held.isEmpty {
                    // Who votes is in no node's row, so that no row of nodes has told of it.
                    sinks.nodes()
                    if let observer { try lookAtMembers(observer, sinks) } else { looksAtMembers = false }
                }
                publish()
            }
        } catch {
            sinks.fail(
                DaemonError(
                    "the state cannot be written: \(error)", hint: "check the disk, then start the daemon again"))
        }
    }

    private func wait() -> Int64 {
        var due: Int64 = 1_000
        if let wake = core.wakeAt { due = min(due, max(0, wake - Clock.now())) }
        if !held.isEmpty { due = min(due, max(0, retryAt - Clock.monotonic())) }
        if observer != nil, looksAtMembers, held.isEmpty { due = min(due, 20) }
        return due
    }

    private func work(_ jobs: [Job], _ sinks: Sinks) throws {
        // What was committed while the thread was busy goes into as few transactions as fit.
        var entries: [Entry] = []
        for job in jobs {
            if case .committed(let committed) = job {
                if !committed.fromLog.isEmpty {
                    if !entries.isEmpty { try apply(entries, sinks) }
                    entries = []
                    try applyFromLog(committed.fromLog, sinks)
                }
                entries += committed.entries
                continue
            }
            if !entries.isEmpty {
                try apply(entries, sinks)
                entries = []
            }
            switch job {
            case .event(let event): try step(event, sinks)
            case .install(let install): try self.install(install, sinks)
            case .followed(let entries): try follow(entries, sinks)
            case .replace(let meta, let isForced): try replace(meta, isForced: isForced, sinks)
            case .committed: break
            }
        }
        if !entries.isEmpty { try apply(entries, sinks) }
    }

    private func apply(_ entries: [Entry], _ sinks: Sinks) throws {
        held += entries
        while !held.isEmpty {
            let batch = Array(held.prefix(StateMachine.batch(of: held, max: Self.batchEntriesMax)))
            do {
                try step(.committed(batch), sinks)
            } catch let error as StateMachine.NoSpace {
                // Nothing of the batch is in the state. Reads go on; the entries wait until there is room.
                retryAt = Clock.monotonic() + Self.retryMilliseconds
                return outOfSpace(error)
            }
            held.removeFirst(batch.count)
            if core.isHalted { held = [] }
        }
        if shared.withLock({ $0.isOutOfSpace }) {
            log.info("the state's disk has room again")
            shared.withLock { $0.isOutOfSpace = false }
        }
    }

    private func outOfSpace(_ error: StateMachine.NoSpace) {
        let isNews = shared.withLock { status in
            defer { status.isOutOfSpace = true }
            return !status.isOutOfSpace
        }
        guard isNews else { return }
        log.error("the state's disk is full, changes wait", metadata: ["error": "\(error)"])
        do {
            // For what is committed already. No more comes, so that little of it is needed.
            try writer.giveUpBallast()
        } catch {
            log.warning("the log's reserve could not be given to the state", metadata: ["error": "\(error)"])
        }
    }

    private func step(_ event: NodeCore.Event, _ sinks: Sinks) throws {
        for effect in try core.step(event, now: Clock.now()) {
            switch effect {
            case .propose(let proposals): sinks.propose(proposals)
            case .applied(let entries):
                proposals.applied(entries)
                if let last = entries.last { sinks.applied(last.position.index) }
            case .perform(let action): sinks.perform(action)
            case .publish(let names, let balancing): sinks.publish(names, balancing)
            case .inForce(let index): sinks.inForce(index)
            case .release(let index): sinks.release(index)
            case .placement(let app, let reason): placed.withLock { $0[app] = reason }
            case .caughtUp(let index):
                shared.withLock { $0.isCaughtUp = true }
                log.info("state is current", metadata: ["index": "\(index)"])
            case .compare(let picture): sinks.compare(picture)
            case .nodes: sinks.nodes()
            case .checkpoint(let applied): sinks.checkpoint(applied)
            case .halt(let message):
                log.critical("this node can no longer follow the log", metadata: ["error": "\(message)"])
                shared.withLock { $0.halted = message }
            }
        }
    }

    /// Entries of an earlier run, in pieces of bounded size. Waits for the log's thread.
    private func applyFromLog(_ range: Range<UInt64>, _ sinks: Sinks) throws {
        var next = range.lowerBound
        while next < range.upperBound {
            let answer = Mutex<Result<[Entry], LogError>?>(nil)
            let done = Signal()
            writer.read(next..<range.upperBound, bytesMax: 4 << 20) { result in
                answer.withLock { $0 = result }
                done.raise()
            }
            while answer.withLock({ $0 == nil }) { done.wait(seconds: 1) }
            guard let piece = try answer.withLock({ try $0?.get() }), !piece.isEmpty else {
                throw LogError(.notAvailable, "entries from \(next) on are not in the log")
            }
            try apply(piece, sinks)
            next += UInt64(piece.count)
        }
    }

    // MARK: - Outside of the log

    private func follow(_ entries: [Entry], _ sinks: Sinks) throws {
        // Became a member meanwhile: from then on consensus says what comes next.
        guard observer != nil else { return }
        let last = held.last?.index ?? core.appliedIndex
        let fresh = entries.filter { $0.index > last }
        guard let first = fresh.first else { return }
        // What was asked for before the state was replaced.
        guard first.index == last + 1 else { return }
        if fresh.contains(where: { $0.kind == .configuration }) { looksAtMembers = true }
        try apply(fresh, sinks)
    }

    private func replace(_ meta: SnapshotMeta, isForced: Bool, _ sinks: Sinks) throws {
        guard observer != nil, isForced || meta.position.index > core.appliedIndex else { return }
        looksAtMembers = true
        try install(Install(meta: meta, keepsLog: true), isOtherHistory: isForced, sinks)
    }

    /// A member has a log. One that was an observer begins it where its state stands, as after a snapshot, before anybody
    /// hears of it.
    private func lookAtMembers(_ own: MemberID, _ sinks: Sinks) throws {
        let meta = try state.read { try $0.meta() }
        sinks.members(meta.configuration)
        guard meta.configuration.membership.contains(own) else {
            looksAtMembers = false
            return
        }
        // The log must not begin after what a power cut leaves of the state. Tried again with the next turn.
        guard try state.checkpoint() else { return }
        let position = LogPosition(index: meta.appliedIndex, term: meta.appliedTerm)
        try resetLog(to: position)
        try sinks.begin(position, meta.configuration)
        observer = nil
        log.notice("this node is a member of the log from now on", metadata: ["index": "\(position.index)"])
    }

    /// Waits for the log's thread.
    private func resetLog(to position: LogPosition) throws {
        let answer = Mutex<Result<Void, LogError>?>(nil)
        let done = Signal()
        writer.reset(to: position) { result in
            answer.withLock { $0 = result }
            done.raise()
        }
        while answer.withLock({ $0 == nil }) { done.wait(seconds: 1) }
        try answer.withLock { try $0?.get() }
    }

    /// First the state, then the log, each durable; the marker in the store lets the next start finish the rest.
    private func install(_ install: Install, isOtherHistory: Bool = false, _ sinks: Sinks) throws {
        guard let snapshot = snapshots.snapshots.last(where: { $0.meta == install.meta }) else {
            throw SnapshotError(.notFound, "the snapshot of entry \(install.meta.position.index) is gone")
        }
        try snapshots.beginInstall(snapshot)
        try state.install(snapshot, from: snapshots)
        if !install.keepsLog { try resetLog(to: install.meta.position) }
        try snapshots.endInstall()
        held = []
        proposals.replaced(through: install.meta.position.index, isOtherHistory: isOtherHistory)
        log.info("the state is a snapshot's now", metadata: ["index": "\(install.meta.position.index)"])
        try step(.stateReplaced, sinks)
        sinks.installed(install)
    }

    private func publish() {
        let (applied, isAdopted) = (core.appliedIndex, core.isAdopted)
        shared.withLock { status in
            status.appliedIndex = applied
            status.isAdopted = isAdopted
        }
    }
}
