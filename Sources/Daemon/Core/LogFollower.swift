// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Model
internal import Orchestrator
internal import Raft
internal import Store
internal import Synchronization

/// An observer's place of consensus: asks one member after the other what follows the position applied last, hands that to
/// the thread that owns the state, and ends when this node becomes a member itself.
final class LogFollower: Sendable {
    /// How long a member may keep the question while nothing happens.
    static let waitMilliseconds: UInt32 = 1_000
    /// Beyond the wait, until a member counts as silent; more, step by step, where no member is as fast.
    static let silenceMilliseconds: Int64 = 800
    static let retryMilliseconds = 50
    /// Without an answer of anybody for this long nobody is known to lead.
    static let lonelyMilliseconds: Int64 = 2_000
    /// Until a snapshot that was promised begins to arrive.
    static let snapshotMilliseconds: Int64 = 5_000
    /// Until entries that have arrived are asked for again.
    static let applyMilliseconds: Int64 = 5_000

    private let node: NodeID
    private let state: StateMachine
    private let stateOwner: StateOwner
    private let consensus: ConsensusOwner
    private let proposals: Proposals
    private let log: Logger
    private let shared = Mutex(Shared())

    private struct Shared {
        /// Whom this node follows.
        var member: MemberID?
        /// What is here is no part of the members' history.
        var isDiverged = false
        /// Snapshots arriving, and those that are in force.
        var arriving = 0
        var installed = 0
    }

    init(
        node: NodeID, state: StateMachine, stateOwner: StateOwner, consensus: ConsensusOwner, proposals: Proposals,
        log: Logger
    ) {
        self.node = node
        self.state = state
        self.stateOwner = stateOwner
        self.consensus = consensus
        self.proposals = proposals
        self.log = log
    }

    /// Whom this node follows; nil while it looks for somebody.
    var member: MemberID? { shared.withLock { $0.member } }
    /// The state here gives way to any snapshot of a member.
    var isDiverged: Bool { shared.withLock { $0.isDiverged } }

    // MARK: - Following

    /// Returns when this node is a member, or the task is cancelled.
    func run(over link: any PeerLink) async {
        var choice = FollowChoice(node: node)
        var position: LogPosition?
        var heardAt = Clock.monotonic()
        /// Questions in a row that nobody answered in time.
        var timeouts: Int64 = 0
        var installs = 0
        while !Task.isCancelled, consensus.isObserver {
            let installed = shared.withLock { $0.installed }
            if installed != installs { (position, installs) = (nil, installed) }
            guard let at = await known(position), stateOwner.status.halted == nil,
                let member = await next(&choice, link)
            else {
                lonely(since: heardAt)
                await pause()
                continue
            }
            position = at
            do throws(PeerError) {
                let answer = try await ask(
                    member, at, link, patience: Self.silenceMilliseconds * (1 + min(timeouts, 9)))
                heardAt = Clock.monotonic()
                timeouts = 0
                follows(member)
                position = await take(answer, of: member, at, &choice, link)
            } catch {
                if error.code == .timeout { timeouts += 1 }
                log.info(
                    "a member cannot be followed", metadata: ["member": "\(member)", "error": "\(error.message)"])
                choice.failed(member, at: Clock.monotonic())
                lonely(since: heardAt)
            }
        }
    }

    private func pause() async { try? await Task.sleep(for: .milliseconds(Self.retryMilliseconds)) }

    /// Where the state stands, for who does not know.
    private func known(_ position: LogPosition?) async -> LogPosition? {
        if let position { return position }
        do {
            let meta = try await state.read { try $0.meta() }
            return LogPosition(index: meta.appliedIndex, term: meta.appliedTerm)
        } catch {
            log.warning("the state cannot be read now", metadata: ["error": "\(error)"])
            return nil
        }
    }

    private func next(_ choice: inout FollowChoice, _ link: any PeerLink) async -> MemberID? {
        let members = consensus.status.configuration?.membership.members ?? []
        var isTold = members.isEmpty
        var down: Set<MemberID> = []
        do {
            let (nodes, meta) = try await state.read { (try $0.nodes(), try $0.meta()) }
            isTold = isTold || meta.isSucceeding
            down = Set(nodes.filter { $0.liveness == .down }.map(\.member))
        } catch {
            log.warning("the state cannot be read now", metadata: ["error": "\(error)"])
        }
        // A state that names nobody is a new node's, one of another cluster names others: it was told who is there.
        return choice.next(
            link.known.filter { isTold || members.contains($0) }, down: isTold ? [] : down, at: Clock.monotonic())
    }

    private func ask(
        _ member: MemberID, _ position: LogPosition, _ link: any PeerLink, patience: Int64
    ) async throws(PeerError) -> EntryAnswer {
        let request = PeerRequest.entries(after: position, waitMilliseconds: Self.waitMilliseconds)
        let bytes = try await link.forward(
            request.encoded(), to: member, deadline: .milliseconds(Int64(Self.waitMilliseconds) + patience))
        guard let answer = EntryAnswer(decoding: bytes, after: position) else {
            throw PeerError(.protocolFault, "it answers with what cannot be read")
        }
        return answer
    }

    /// - Returns: where to go on; nil when the state must say.
    private func take(
        _ answer: EntryAnswer, of member: MemberID, _ position: LogPosition, _ choice: inout FollowChoice,
        _ link: any PeerLink
    ) async -> LogPosition? {
        // One that is behind may speak of a leader that was.
        if answer.outcome != .behind {
            consensus.heard(term: answer.term, leader: answer.leader, commitIndex: answer.appliedIndex)
        }
        switch answer.outcome {
        case .entries where position == .origin:
            // Who founded the cluster stands in no entry: a state that is new begins from another's.
            await fetchSnapshot(from: member, isDiverged: false, &choice, link)
            return nil
        case .entries(let entries):
            choice.answered(member)
            guard let last = entries.last else { return position }
            stateOwner.put(.followed(entries))
            // On a full disk it takes longer: then the same is asked again, and what is there already is skipped.
            let end = Clock.monotonic() + Self.applyMilliseconds
            while !(await proposals.applied(through: last.index, deadline: min(end, Clock.monotonic() + 100))) {
                // What a node that has become a member was told here is applied when its own log says so, or never.
                guard !Task.isCancelled, consensus.isObserver, Clock.monotonic() < end else { return nil }
            }
            return last.position
        case .behind:
            choice.failed(member, at: Clock.monotonic())
            return position
        case .compacted, .diverged:
            await fetchSnapshot(from: member, isDiverged: answer.outcome == .diverged, &choice, link)
            return nil
        }
    }

    private func follows(_ member: MemberID) {
        let isNews = shared.withLock { shared in
            defer { shared.member = member }
            return shared.member != member
        }
        if isNews { log.info("follows the log", metadata: ["member": "\(member)"]) }
    }

    private func lonely(since heardAt: Int64) {
        guard Clock.monotonic() - heardAt >= Self.lonelyMilliseconds else { return }
        shared.withLock { $0.member = nil }
        consensus.heard(term: 0, leader: nil, commitIndex: 0)
    }

    // MARK: - Snapshots

    private func fetchSnapshot(
        from member: MemberID, isDiverged: Bool, _ choice: inout FollowChoice, _ link: any PeerLink
    ) async {
        let before = shared.withLock { shared in
            shared.isDiverged = isDiverged
            return shared.installed
        }
        log.notice(
            isDiverged ? "the state here is of another history, it is replaced" : "needs a snapshot",
            metadata: ["member": "\(member)"])
        do throws(PeerError) {
            let reply = try await link.forward(PeerRequest.snapshot.encoded(), to: member, deadline: .seconds(5))
            guard reply == [1] else { throw PeerError(.busy, "it sends no snapshot now") }
        } catch {
            log.info("no snapshot comes", metadata: ["member": "\(member)", "error": "\(error.message)"])
            return choice.failed(member, at: Clock.monotonic())
        }
        var end = Clock.monotonic() + Self.snapshotMilliseconds
        while !Task.isCancelled, shared.withLock({ $0.installed }) == before {
            if shared.withLock({ $0.arriving }) > 0 { end = Clock.monotonic() + Self.snapshotMilliseconds }
            guard Clock.monotonic() < end else { return choice.failed(member, at: Clock.monotonic()) }
            await pause()
        }
    }

    /// A snapshot begins to arrive.
    /// - Returns: false when one does already.
    func begin() -> Bool {
        shared.withLock { shared in
            guard shared.arriving == 0 else { return false }
            shared.arriving += 1
            return true
        }
    }

    /// The same snapshot ended, in force or not.
    func end() { shared.withLock { $0.arriving = 0 } }

    func installed() {
        shared.withLock { shared in
            shared.installed += 1
            shared.isDiverged = false
        }
    }
}

/// Tells when what it stands for has ended, however it did.
final class ObserverReception: SnapshotReception {
    private let inner: any SnapshotReception
    private let ended: @Sendable () -> Void

    init(_ inner: any SnapshotReception, ended: @escaping @Sendable () -> Void) {
        self.inner = inner
        self.ended = ended
    }

    var resumeOffset: UInt64 { inner.resumeOffset }
    func write(_ chunk: SnapshotChunk) async throws { try await inner.write(chunk) }

    func finish() async throws -> SnapshotVerdict {
        defer { ended() }
        return try await inner.finish()
    }

    func abort() async {
        await inner.abort()
        ended()
    }
}
