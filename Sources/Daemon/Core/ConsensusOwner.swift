// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Model
internal import Orchestrator
internal import Raft
internal import Store
internal import Synchronization

/// The one owner of the consensus core: feeds inputs in and hands outputs on, one turn after the other, and never waits
/// for a disk.
///
/// Turns are made by a thread of its own, for ticks and whatever waits, or by an event loop or the log's thread that brings an
/// input while nobody is at the core: one client alone does not wait until a thread wakes. Writes go to the log's thread, committed
/// entries to the state's, messages to the peers. Messages a write unlocks leave from the log's thread, so that an
/// acknowledgement does not wait for a turn.
///
/// An observer has no part in consensus: until `begin` there is no core, every question is answered as by a member that
/// does not lead, and messages are dropped.
final class ConsensusOwner: Sendable {
    /// What others may know of consensus without asking it.
    struct Status: Sendable {
        var term: UInt64 = 0
        var commitIndex: UInt64 = 0
        var leader: MemberID?
        var isLeader = false
        var isReady = false
        var lastIndex: UInt64 = 0
        var baseIndex: UInt64 = 0
        var configuration: ConfigurationPoint?
        var progress: [MemberProgress] = []
        /// This node is no member of the log: term, leader and commit are what a member told it.
        var isObserver = false
    }

    /// Where outputs go. Called on the thread, in order.
    struct Sinks: Sendable {
        var committed: @Sendable (Committed) -> Void
        var install: @Sendable (Install) -> Void
        var leadership: @Sendable (NodeCore.Leadership) -> Void
        /// Of the state owner's own proposals.
        var accepted: @Sendable (Accepted) -> Void
        var refused: @Sendable (Raft.Refused) -> Void
        var snapshot: @Sendable (MemberID) -> Void
        var membership: @Sendable (ConfigurationPoint) -> Void
        var fail: @Sendable (DaemonError) -> Void
    }

    static let tickMilliseconds: Int64 = 50
    /// How long proposals wait at most for the batch before them to be committed, so that many share one write, one message
    /// to each member and one transaction. One client alone never waits: nothing is before it.
    static let gatherMilliseconds: Int64 = 4
    /// Inputs waiting for the core. Beyond it messages are dropped and proposals refused.
    static let inboxMax = 20_000

    /// What a turn works on.
    private struct Core {
        /// Nil for an observer.
        var raft: RaftNode?
        var sinks: Sinks?
        var nextTick: Int64 = 0
        /// Proposals for the next batch.
        var gathered: [Proposal] = []
        /// Until then they wait for the batch before them.
        var gatherUntil: Int64 = 0
        /// Nothing is taken any more.
        var isOver = false

        /// A batch of this leader is on its way and not for long.
        func gathers(now: Int64) -> Bool {
            guard let raft else { return false }
            return now < gatherUntil && raft.isLeader && raft.commitIndex < raft.lastPosition.index
        }
    }

    private let core: Mutex<Core>
    /// What no turn has taken yet. Taken by a turn only, so that inputs stay in order.
    private let mailbox = Mailbox<Input>()
    private let shared: Mutex<Status>
    private let ended = Signal()
    private let writer: LogWriter
    private let proposals: Proposals
    private let log: Logger
    private let peers: Mutex<(any PeerLink)?> = Mutex(nil)

    /// - Parameters:
    ///   - raft: nil for an observer.
    ///   - meta: of the state.
    init(raft: RaftNode?, meta: MetaRow, writer: LogWriter, proposals: Proposals, log: Logger) {
        core = Mutex(Core(raft: raft))
        self.writer = writer
        self.proposals = proposals
        self.log = log
        shared = Mutex(
            Status(
                term: raft?.term ?? meta.appliedTerm, commitIndex: raft?.commitIndex ?? meta.appliedIndex,
                configuration: raft?.membership ?? meta.configuration, isObserver: raft == nil))
    }

    var status: Status { shared.withLock { $0 } }
    /// For how long no leader has been known; nil while one is.
    var leaderlessMilliseconds: Int64? { leaderlessSince.withLock { $0 }.map { Clock.monotonic() - $0 } }
    private let leaderlessSince = Mutex<Int64?>(Clock.monotonic())

    private func knows(_ hasLeader: Bool) {
        leaderlessSince.withLock { since in since = hasLeader ? nil : since ?? Clock.monotonic() }
    }

    var isObserver: Bool { shared.withLock { $0.isObserver } }

    func connect(_ sinks: Sinks) { core.withLock { $0.sinks = sinks } }
    func connect(_ peers: any PeerLink) { self.peers.withLock { $0 = peers } }

    func start() { Thread.spawn { self.loop() } }

    /// Ends the thread after what is in its mailbox.
    func stop() {
        mailbox.close()
        ended.wait(seconds: 5)
    }

    /// Lets go of whom it handed outputs to, after `stop`: they hold it in turn.
    func disconnect() {
        core.withLock { core in
            core.isOver = true
            core.sinks = nil
        }
        peers.withLock { $0 = nil }
    }

    func put(_ input: Input) {
        if case .propose = input { return mailbox.put(input, canWait: true) }
        mailbox.put(input)
    }

    /// From another member; dropped when this one cannot keep up.
    func receive(_ messages: [Message]) {
        guard mailbox.count < Self.inboxMax else { return }
        take(messages.map { .message($0) })
    }

    /// Makes a turn of them at once when nobody is at the core, else leaves them to the thread.
    ///
    /// For whoever must not wait but may work: a turn takes some microseconds, a copy of what it appends included.
    func take(_ inputs: [Input]) {
        let gathers = core.withLockIfAvailable { core -> Bool? in
            guard !core.isOver, core.sinks != nil, core.nextTick > 0 else { return nil }
            let gathered = core.gathered.isEmpty
            turn(&core, inputs)
            return gathered && !core.gathered.isEmpty
        }
        switch gathers {
        case .some(.some(true)): mailbox.nudge()
        case .some(.some(false)): break
        case .some(.none), .none: for input in inputs { put(input) }
        }
    }

    var isFull: Bool { mailbox.count >= Self.inboxMax }

    /// Messages whose write is durable.
    func send(_ messages: [Message]) {
        guard !messages.isEmpty else { return }
        peers.withLock { $0 }?.send(messages)
    }

    // MARK: - Outside of the log

    /// What a member told this observer. Nothing happens once it is a member itself.
    /// - Parameter leader: nil when nobody leads, or no member answers.
    func heard(term: UInt64, leader: MemberID?, commitIndex: UInt64) {
        let (isNews, hasLeader) = shared.withLock { status in
            guard status.isObserver else { return (false, false) }
            let had = status.leader
            status.leader = leader
            status.term = max(status.term, term)
            status.commitIndex = max(status.commitIndex, commitIndex)
            return (had != leader, leader != nil)
        }
        guard isNews else { return }
        knows(hasLeader)
        guard let sinks = core.withLock({ $0.sinks }) else { return }
        log.info("leader", metadata: ["term": "\(term)", "leader": "\(leader.map { "\($0)" } ?? "none")"])
        sinks.leadership(NodeCore.Leadership(isReady: false, hasLeader: hasLeader))
    }

    /// The members, as this observer's state names them.
    func follow(_ configuration: ConfigurationPoint) {
        shared.withLock { if $0.isObserver { $0.configuration = configuration } }
    }

    /// An observer becomes a member: from here on it answers for what is in its log.
    func begin(_ raft: RaftNode) {
        core.withLock { core in
            guard core.raft == nil, !core.isOver else { return }
            core.raft = raft
            publish(raft)
        }
        mailbox.nudge()
    }

    /// What a member that does not lead would say.
    private func refuse(_ inputs: [Input], _ sinks: Sinks) {
        let leader = status.leader
        for input in inputs {
            switch input {
            case .propose(let proposals):
                refused(
                    proposals.map { Raft.Refused(token: $0.token, reason: .notLeader(leader: leader)) }, sinks)
            case .changeMembership(let token, _):
                refused([Raft.Refused(token: token, reason: .notLeader(leader: leader))], sinks)
            case .read(let token): proposals.read([ReadResult(token: token, index: nil)])
            case .transfer(let token, _):
                proposals.transferred([TransferResult(token: token, outcome: .notLeader(leader: leader))])
            default: break
            }
        }
    }

    // MARK: - Turns

    private func loop() {
        defer { ended.raise() }
        while true {
            let (wakeAt, isPatient, isOver) = core.withLock { core in
                turn(&core, [])
                let gathers = !core.gathered.isEmpty && core.gathers(now: Clock.monotonic())
                return (gathers ? min(core.nextTick, core.gatherUntil) : core.nextTick, gathers, core.isOver)
            }
            if isOver { return }
            mailbox.wait(milliseconds: wakeAt - Clock.monotonic(), isPatient: isPatient)
        }
    }

    /// Everything that waits, and then `more`.
    private func turn(_ core: inout Core, _ more: [Input]) {
        guard !core.isOver, let sinks = core.sinks else { return }
        var (inputs, isClosed) = mailbox.takeAll()
        inputs += more
        if isClosed, inputs.isEmpty {
            core.isOver = true
            return
        }
        let now = Clock.monotonic()
        if now >= core.nextTick {
            // A machine that slept or stopped sends one tick for all it missed: silence it did not hear is no
            // reason for an election.
            inputs.append(.tick)
            core.nextTick = now + Self.tickMilliseconds
            proposals.expire(now: now)
        }
        guard core.raft != nil else { return refuse(inputs, sinks) }
        inputs.removeAll { input in
            guard case .propose(let proposals) = input else { return false }
            core.gathered += proposals
            return true
        }
        do {
            if !inputs.isEmpty { try step(&core, inputs, sinks) }
            guard !core.gathered.isEmpty, !core.gathers(now: now) else { return }
            core.gatherUntil = now + Self.gatherMilliseconds
            // The leader's time counts, whoever proposed.
            let time = Clock.now()
            var batch = core.gathered
            core.gathered = []
            for place in batch.indices { Command.stamp(&batch[place].payload, at: time) }
            try step(&core, [.propose(batch)], sinks)
        } catch {
            core.isOver = true
            sinks.fail(DaemonError("the log takes no more: \(error.message)", hint: error.hint))
        }
    }

    private func step(_ core: inout Core, _ inputs: [Input], _ sinks: Sinks) throws(LogError) {
        guard let output = core.raft?.step(inputs) else { return }
        try carryOut(output, sinks)
        if let raft = core.raft { publish(raft) }
        if let change = output.roleChange { changed(change, sinks) }
    }

    private func carryOut(_ output: Output, _ sinks: Sinks) throws(LogError) {
        send(output.sends)
        if let write = output.write { try writer.submit(write) }
        if !output.accepted.isEmpty { accepted(output.accepted, sinks) }
        if !output.refused.isEmpty { refused(output.refused, sinks) }
        if let committed = output.committed { sinks.committed(committed) }
        if let install = output.install { sinks.install(install) }
        if let index = output.compact { cutLog(through: index) }
        for load in output.loads { read(load) }
        for member in output.snapshots { sinks.snapshot(member) }
        if !output.reads.isEmpty { proposals.read(output.reads) }
        if !output.transfers.isEmpty { proposals.transferred(output.transfers) }
        if let membership = output.membership { sinks.membership(membership) }
    }

    private func cutLog(through index: UInt64) {
        do {
            try writer.compact(through: index)
        } catch {
            log.warning("the log is not cut now, it will be with the next snapshot", metadata: ["error": "\(error)"])
        }
    }

    private func accepted(_ accepted: [Accepted], _ sinks: Sinks) {
        proposals.accepted(accepted)
        for accepted in accepted where accepted.token >= NodeCore.ownTokens { sinks.accepted(accepted) }
    }

    private func refused(_ refused: [Raft.Refused], _ sinks: Sinks) {
        proposals.refused(refused)
        for refused in refused where refused.token >= NodeCore.ownTokens { sinks.refused(refused) }
    }

    private func changed(_ change: RoleChange, _ sinks: Sinks) {
        log.info(
            "role",
            metadata: [
                "role": "\(Self.name(change.role))", "term": "\(change.term)",
                "leader": "\(change.leader.map { "\($0)" } ?? "none")", "ready": "\(change.isReady)",
            ])
        knows(change.leader != nil)
        sinks.leadership(NodeCore.Leadership(isReady: change.isReady, hasLeader: change.leader != nil))
    }

    static func name(_ role: RaftNode.Role) -> String {
        switch role {
        case .follower: "follower"
        case .preCandidate, .candidate: "candidate"
        case .leader: "leader"
        }
    }

    private func read(_ load: Load) {
        writer.read(load.range, bytesMax: load.bytesMax) { [weak self] result in
            switch result {
            case .success(let entries): self?.put(.loaded(for: load.member, entries: entries))
            case .failure: self?.put(.loaded(for: load.member, entries: nil))
            }
        }
    }

    private func publish(_ raft: RaftNode) {
        let status = Status(
            term: raft.term, commitIndex: raft.commitIndex, leader: raft.leader, isLeader: raft.isLeader,
            isReady: raft.isReady, lastIndex: raft.lastPosition.index, baseIndex: raft.basePosition.index,
            configuration: raft.membership, progress: raft.memberProgress)
        shared.withLock { $0 = status }
    }
}
