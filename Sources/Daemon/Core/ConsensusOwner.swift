// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Model
internal import Orchestrator
internal import Raft
internal import Store
internal import Synchronization

/// The one owner of the consensus core: a thread that feeds inputs in and hands outputs on, and never waits for a disk.
///
/// Writes go to the log's thread, committed entries to the state's, messages to the peers. Messages a write unlocks leave
/// from the log's thread, so that an acknowledgement does not wait for this one.
///
/// `@unchecked Sendable`: `raft` and the variables beside it are touched by the thread alone, after `start`; the rest is
/// immutable or behind a Mutex.
final class ConsensusOwner: @unchecked Sendable {
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

    private var raft: RaftNode
    private var nextTick: Int64 = 0
    /// Proposals for the next batch.
    private var gathered: [Proposal] = []
    /// Until then they wait for the batch before them.
    private var gatherUntil: Int64 = 0
    private let mailbox = Mailbox<Input>()
    private let shared: Mutex<Status>
    private let ended = Signal()
    private let writer: LogWriter
    private let proposals: Proposals
    private let log: Logger
    private let peers: Mutex<(any PeerLink)?> = Mutex(nil)
    private let sinks: Mutex<Sinks?> = Mutex(nil)

    init(raft: RaftNode, writer: LogWriter, proposals: Proposals, log: Logger) {
        self.raft = raft
        self.writer = writer
        self.proposals = proposals
        self.log = log
        shared = Mutex(Status(term: raft.term, commitIndex: raft.commitIndex, configuration: raft.membership))
    }

    var status: Status { shared.withLock { $0 } }

    func connect(_ sinks: Sinks) { self.sinks.withLock { $0 = sinks } }
    func connect(_ peers: any PeerLink) { self.peers.withLock { $0 = peers } }

    func start() { Thread.spawn { self.loop() } }

    /// Ends the thread after what is in its mailbox.
    func stop() {
        mailbox.close()
        ended.wait(seconds: 5)
    }

    func put(_ input: Input) {
        if case .propose = input { return mailbox.put(input, canWait: true) }
        mailbox.put(input)
    }

    /// From another member; dropped when this one cannot keep up.
    func receive(_ messages: [Message]) {
        guard mailbox.count < Self.inboxMax else { return }
        for message in messages { mailbox.put(.message(message)) }
    }

    var isFull: Bool { mailbox.count >= Self.inboxMax }

    /// Messages whose write is durable.
    func send(_ messages: [Message]) {
        guard !messages.isEmpty else { return }
        peers.withLock { $0 }?.send(messages)
    }

    // MARK: - The thread

    private func loop() {
        defer { ended.raise() }
        guard let sinks = sinks.withLock({ $0 }) else { return }
        do {
            while true {
                var now = Clock.monotonic()
                let gathers = gathers(now: now)
                var (inputs, isClosed) = mailbox.take(
                    waitMilliseconds: (gathers ? min(nextTick, gatherUntil) : nextTick) - now, isPatient: gathers)
                if isClosed, inputs.isEmpty { return }
                now = Clock.monotonic()
                if now >= nextTick {
                    // A machine that slept or stopped sends one tick for all it missed: silence it did not hear is no
                    // reason for an election.
                    inputs.append(.tick)
                    nextTick = now + Self.tickMilliseconds
                    proposals.expire(now: now)
                }
                gather(&inputs)
                if !inputs.isEmpty { try carryOut(raft.step(inputs), sinks) }
                guard !gathered.isEmpty, !self.gathers(now: now) else { continue }
                gatherUntil = now + Self.gatherMilliseconds
                stamp()
                let batch = gathered
                gathered = []
                try carryOut(raft.step([.propose(batch)]), sinks)
            }
        } catch {
            sinks.fail(DaemonError("the log takes no more: \(error.message)", hint: error.hint))
        }
    }

    /// A batch of this leader is on its way and not for long.
    private func gathers(now: Int64) -> Bool {
        now < gatherUntil && raft.isLeader && raft.commitIndex < raft.lastPosition.index
    }

    private func gather(_ inputs: inout [Input]) {
        inputs.removeAll { input in
            guard case .propose(let proposals) = input else { return false }
            gathered += proposals
            return true
        }
    }

    /// The leader's time counts, whoever proposed.
    private func stamp() {
        let now = Clock.now()
        for place in gathered.indices { Command.stamp(&gathered[place].payload, at: now) }
    }

    private func carryOut(_ output: Output, _ sinks: Sinks) throws(LogError) {
        send(output.sends)
        if let write = output.write { try writer.submit(write) }
        if !output.accepted.isEmpty { accepted(output.accepted, sinks) }
        if !output.refused.isEmpty { refused(output.refused, sinks) }
        if let committed = output.committed { sinks.committed(committed) }
        if let install = output.install { sinks.install(install) }
        for load in output.loads { read(load) }
        for member in output.snapshots { sinks.snapshot(member) }
        if !output.reads.isEmpty { proposals.read(output.reads) }
        if !output.transfers.isEmpty { proposals.transferred(output.transfers) }
        if let membership = output.membership { sinks.membership(membership) }
        publish()
        if let change = output.roleChange { changed(change, sinks) }
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

    private func publish() {
        let status = Status(
            term: raft.term, commitIndex: raft.commitIndex, leader: raft.leader, isLeader: raft.isLeader,
            isReady: raft.isReady, lastIndex: raft.lastPosition.index, baseIndex: raft.basePosition.index,
            configuration: raft.membership, progress: raft.memberProgress)
        shared.withLock { $0 = status }
    }
}
