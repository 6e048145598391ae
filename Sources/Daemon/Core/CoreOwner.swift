// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Logging
internal import Model
internal import Orchestrator
internal import Raft
internal import Store
internal import Synchronization

/// One node's core and its threads: consensus, log, state. Everybody else proposes, reads and observes through it.
final class CoreOwner: Sendable {
    /// What others may know of the core without asking it.
    struct Status: Sendable {
        var consensus = ConsensusOwner.Status()
        var state = StateOwner.Status()
        /// Why changes are not taken now.
        var condition: String?

        var term: UInt64 { consensus.term }
        var commitIndex: UInt64 { consensus.commitIndex }
        var appliedIndex: UInt64 { state.appliedIndex }
        var isLeader: Bool { consensus.isLeader }
        var isCaughtUp: Bool { state.isCaughtUp }
        var isAdopted: Bool { state.isAdopted }
    }

    struct Sinks: Sendable {
        var perform: @Sendable (Action) -> Void
        var publish: @Sendable (NameTable, BalancingTable) -> Void
        /// Nothing to publish: what is in force follows the state at this index.
        var inForce: @Sendable (UInt64) -> Void
        /// Wanted: `released`, once the rules of all nodes follow this index.
        var release: @Sendable (UInt64) -> Void
        /// Nodes, or who of them votes, changed.
        var nodes: @Sendable () -> Void
        var fail: @Sendable (DaemonError) -> Void
    }

    /// Without a leader for this long, a write or a current read is given up.
    static let noLeaderMilliseconds: Int64 = 5_000
    static let retryMilliseconds = 10
    /// A member that cannot say in this time what is current is asked again: another one may lead by then.
    static let currentMilliseconds: Int64 = 1_500
    /// With less free on the disk only changes that remove something are taken.
    static let freeBytesMin = 256 << 20
    /// Given up when the disk is full all the same, so that removals can still be written.
    static let ballastBytes = 32 << 20

    /// Of one change. With what is around it, it fits a message between members and a record of the log: a larger one could
    /// be taken and never be agreed.
    static let entryBytesMax = MessageCodec.messageBytesMax - 4_096

    let member: MemberID
    let proposals = Proposals()
    let consensus: ConsensusOwner
    let snapshots: SnapshotWorker
    let keeper: SnapshotKeeper
    /// From this node to others and the other way.
    let transfers: SnapshotTransfers
    /// Of the log's disk.
    let fsync: LatencyWindow
    let logDirectory: String
    private let stateOwner: StateOwner
    private let state: StateMachine
    private let writer: LogWriter
    private let feed: EntryFeed
    /// What an observer has in the place of consensus.
    private let follower: LogFollower
    private let seed: UInt64
    /// Records, durably, that this node has a log from now on.
    private let logBegun: @Sendable () throws -> Void
    private let log: Logger
    private let condition = Mutex<String?>(nil)
    private let isShortOfSpace = Mutex(false)
    private let peers = Mutex<(any PeerLink)?>(nil)
    private let sinks = Mutex<Sinks?>(nil)
    /// Proposals of this node's own core that another member has to take.
    private let forwards: AsyncStream<[Proposal]>
    private let forwardsInput: AsyncStream<[Proposal]>.Continuation
    private let comparer: StateComparer

    /// Reports of the log's thread, which exists before its owner does.
    private final class Relay: Sendable {
        /// A bare closure in a Mutex is wrapped once more on every access, without end.
        private struct Sink { var report: @Sendable (LogWriter.Report) -> Void }
        private let sink = Mutex<Sink?>(nil)
        func connect(_ body: @escaping @Sendable (LogWriter.Report) -> Void) {
            sink.withLock { $0 = Sink(report: body) }
        }
        func report(_ report: LogWriter.Report) { sink.withLock { $0 }?.report(report) }
    }

    /// Opens log and snapshots and puts the core on what it finds; finishes what a crash interrupted.
    ///
    /// A state that is behind the log, because its file was lost or damaged, begins from the newest snapshot.
    /// A node that came by a token and never was a member observes: it has promised nothing to anybody, and what there may
    /// be of a log is empty.
    /// - Parameters:
    ///   - hasLog: there was a log in an earlier run, so that another one must not be begun.
    ///   - mayObserve: without a log the node follows that of others until it is made a member.
    ///   - logBegun: records `hasLog`, durably, when such a node becomes a member.
    /// - Throws: `LogError` when the log is damaged, missing or belongs to another state, `SnapshotError`; nothing is
    ///   changed then.
    init(
        node: NodeID, member: MemberID, state: StateMachine, dataDirectory: String, hasLog: Bool,
        mayObserve: Bool = false, seed: UInt64, logBegun: @escaping @Sendable () throws -> Void = {}, log: Logger
    ) throws {
        let fsync = LatencyWindow()
        let logDirectory = dataDirectory + "/log"
        let store = try SnapshotStore(path: dataDirectory + "/snapshots")
        var meta = try state.read { try $0.meta() }
        let pending = try store.pendingInstall()
        if let snapshot = pending ?? (meta.appliedIndex == 0 ? store.newest : nil) {
            log.notice("the state begins from a snapshot", metadata: ["index": "\(snapshot.position.index)"])
            try state.install(snapshot, from: store)
            meta = try state.read { try $0.meta() }
        }
        let isNew = meta.appliedIndex == 0 && meta.configuration.membership.contains(member)
        let observes = mayObserve && !hasLog && !isNew
        var options = LogFile.Options()
        options.ballastBytes = Self.ballastBytes
        options.mustExist = hasLog
        if observes, FileManager.default.fileExists(atPath: logDirectory) {
            try FileManager.default.removeItem(atPath: logDirectory)
        }
        let file = try LogFile(
            directory: TimedDisk(try POSIXLogDirectory(path: logDirectory), into: fsync),
            minimumIndex: observes ? 0 : meta.appliedIndex,
            installing: observes ? nil : pending?.position, options: options)
        if pending != nil { try store.endInstall() }
        let recovered = file.recovered
        let raft =
            observes
            ? nil
            : RaftNode(
                configuration: Self.configuration(of: member, seed: seed), hardState: recovered.hardState,
                log: recovered.extent, termStarts: recovered.termStarts, appliedIndex: meta.appliedIndex,
                configurations: [meta.configuration]
                    + recovered.configurations.filter { $0.index > meta.configuration.index })
        let relay = Relay()
        self.member = member
        self.fsync = fsync
        self.logDirectory = logDirectory
        self.state = state
        self.seed = seed
        self.logBegun = logBegun
        self.log = log
        snapshots = try SnapshotWorker(store: store, dataDirectory: dataDirectory, state: state, log: log)
        keeper = SnapshotKeeper(snapshots, log: log)
        (forwards, forwardsInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(4_096))
        writer = try LogWriter(log: file, freeBytesMin: Self.freeBytesMin) { relay.report($0) }
        feed = EntryFeed(writer: writer, proposals: proposals)
        consensus = ConsensusOwner(raft: raft, meta: meta, writer: writer, proposals: proposals, log: log)
        stateOwner = StateOwner(
            core: NodeCore(node: node, state: state, seed: seed, meta: meta), observer: observes ? member : nil,
            state: state, writer: writer, snapshots: store, proposals: proposals, log: log)
        comparer = StateComparer(own: member, consensus: consensus, snapshots: snapshots, log: log)
        follower = LogFollower(
            node: node, state: state, stateOwner: stateOwner, consensus: consensus, proposals: proposals, log: log)
        transfers = SnapshotTransfers(
            snapshots: snapshots, state: state, stateOwner: stateOwner, consensus: consensus, proposals: proposals,
            comparer: comparer, follower: follower, log: log)
        if recovered.cutTornTail { log.info("cut a record the last crash left unfinished") }
        relay.connect { [weak self] report in self?.logReported(report) }
    }

    private static func configuration(of member: MemberID, seed: UInt64) -> RaftNode.Configuration {
        var configuration = RaftNode.Configuration(id: member)
        configuration.seed = seed
        configuration.entryBytesMax = entryBytesMax
        return configuration
    }

    private func logReported(_ report: LogWriter.Report) {
        switch report {
        case .persisted(let receipt, let unlocked):
            consensus.send(unlocked)
            // On this thread, if nobody is at the core: another one would have to wake first.
            consensus.take([.persisted(receipt)])
            let wasFull = condition.withLock { condition in
                defer { condition = nil }
                return condition != nil
            }
            if wasFull { log.info("the log's disk has room again, changes are taken") }
        case .noSpace(let error):
            log.error("the log's disk is full, changes wait", metadata: ["error": "\(error.message)"])
            condition.withLock { $0 = "the disk of the log is full: changes are refused until there is room" }
        case .space(let isShort):
            isShortOfSpace.withLock { $0 = isShort }
            if isShort {
                log.error("the log's disk is nearly full, only removals are taken")
            } else {
                log.info("the log's disk has room again, changes are taken")
            }
        case .failed(let error):
            fail(DaemonError("the log cannot be written: \(error.message)", hint: error.hint))
        }
    }

    var status: Status {
        let state = stateOwner.status
        let condition =
            condition.withLock { $0 }
            ?? (isShortOfSpace.withLock { $0 }
                ? "less than \(Self.freeBytesMin >> 20) MiB are free on the disk: only removals are taken" : nil)
            ?? (comparer.isWrong ? "the state of this node differs from a majority's and is replaced" : nil)
            ?? (state.isOutOfSpace ? "the disk of the state is full: changes are refused until there is room" : nil)
        return Status(consensus: consensus.status, state: state, condition: condition)
    }

    var placements: [ObjectKey: Reason] { stateOwner.placements }

    // MARK: - Life

    func connect(_ link: any PeerLink) {
        peers.withLock { $0 = link }
        consensus.connect(link)
        comparer.connect(link)
    }

    func start(_ sinks: Sinks) {
        self.sinks.withLock { $0 = sinks }
        stateOwner.connect(
            StateOwner.Sinks(
                perform: sinks.perform, publish: sinks.publish, inForce: sinks.inForce, release: sinks.release,
                propose: { [self] in propose($0) },
                applied: { [consensus] in consensus.put(.applied($0)) },
                installed: { [self] install in
                    comparer.trust()
                    consensus.put(.installed(install))
                    follower.installed()
                },
                compare: { [comparer] in comparer.compare($0) }, checkpoint: { [self] in checkpoint($0) },
                nodes: sinks.nodes, members: { [consensus] in consensus.follow($0) },
                begin: { [self] in try beginLog(at: $0, $1) },
                fail: { [self] in fail($0) }))
        consensus.connect(
            ConsensusOwner.Sinks(
                committed: { [stateOwner] in stateOwner.put(.committed($0)) },
                install: { [stateOwner] in stateOwner.put(.install($0)) },
                leadership: { [stateOwner] in stateOwner.put(.event(.leadership($0))) },
                accepted: { [stateOwner] in stateOwner.put(.event(.accepted($0))) },
                refused: { [stateOwner] in stateOwner.put(.event(.refused($0))) },
                snapshot: { [transfers] in transfers.want($0) }, membership: { _ in },
                fail: { [self] in fail($0) }))
        snapshots.start()
        stateOwner.start()
        consensus.start()
    }

    /// Ends the threads after what they have at hand, and lets go of everybody: a node that begins another life in this
    /// process keeps nothing of the one before.
    func stop() {
        consensus.stop()
        stateOwner.stop()
        snapshots.stop()
        writer.shutdown()
        proposals.close()
        forwardsInput.finish()
        transfers.stop()
        comparer.stop()
        consensus.disconnect()
        stateOwner.disconnect()
        sinks.withLock { $0 = nil }
        peers.withLock { $0 = nil }
    }

    func observed(_ observation: Observation) { stateOwner.put(.event(.observed(observation))) }
    func programmed(_ index: UInt64) { stateOwner.put(.event(.programmed(index))) }
    func released(_ index: UInt64) { stateOwner.put(.event(.released(index))) }

    private func fail(_ error: DaemonError) {
        log.error("the core has stopped", metadata: ["error": "\(error.message)"])
        proposals.close()
        sinks.withLock { $0 }?.fail(error)
    }

    // MARK: - Observing

    /// This node is no member of the log: it follows that of the members.
    var isObserver: Bool { consensus.isObserver }
    /// Of an observer: the member it follows now.
    var followed: MemberID? { consensus.isObserver ? follower.member : nil }

    /// Follows the members' log as long as this node observes.
    func followLog(over link: any PeerLink) async { await follower.run(over: link) }

    /// On the state's thread, between two entries.
    private func beginLog(at position: LogPosition, _ configuration: ConfigurationPoint) throws {
        try logBegun()
        consensus.begin(
            RaftNode(
                configuration: Self.configuration(of: member, seed: seed),
                hardState: HardState(term: position.term, commit: position.index),
                log: LogExtent(base: position, last: position), appliedIndex: position.index,
                configurations: [configuration]))
    }

    // MARK: - Writing

    /// Proposes a change, here or at whoever leads, and waits until it is applied here.
    ///
    /// - Throws: `Problem`: `busy`, `no_space` and `no_leader` are certainly without effect; `timeout` may still take effect.
    func propose(_ change: Change, request: String? = nil, deadline: Duration) async throws -> Applied {
        if proposals.isFull || consensus.isFull {
            throw Problem(.busy, "too many requests wait for this node", hint: "try again in a moment")
        }
        // A removal is taken as long as it can be written at all: it is what makes room again.
        let mayRemove = change.isRemoval && condition.withLock { $0 } == nil
        if let condition = status.condition, !mayRemove {
            throw Problem(
                .noSpace, condition, hint: "free space; writes resume by themselves, running apps are not affected")
        }
        let start = Clock.monotonic()
        let end = start + Int64(deadline / .milliseconds(1))
        var command = Command(request: request, at: Clock.now(), change: change)
        var payload = try command.encoded()
        // Once an answer was lost, no refusal that follows proves that nothing happened.
        var isInDoubt = false
        while true {
            let status = consensus.status
            let outcome: Proposals.Outcome
            if status.isLeader {
                outcome = await proposals.propose(deadline: end) { [payload] token in
                    consensus.take([.propose([Proposal(token: token, payload: payload)])])
                }
            } else if let leader = status.leader, let link = peers.withLock({ $0 }) {
                // With an id it may be sent again when an answer is lost: it is applied once.
                if command.request == nil {
                    command.request = newID()
                    payload = try command.encoded()
                }
                outcome = await forward(payload, to: leader, over: link, end: end)
            } else {
                outcome = .refused(.notLeader(leader: nil))
            }
            switch outcome {
            case .applied(let applied): return applied
            case .inDoubt: throw Self.inDoubt
            case .unanswered: isInDoubt = true
            case .refused(.notLeader), .refused(.transferring), .lost: break
            case .refused(let refusal): throw isInDoubt ? Self.inDoubt : Self.problem(refusal)
            }
            let now = Clock.monotonic()
            guard now < min(end, start + Self.noLeaderMilliseconds) else {
                throw isInDoubt ? Self.inDoubt : Self.noLeader
            }
            try await Task.sleep(for: .milliseconds(Self.retryMilliseconds))
        }
    }

    private static let inDoubt = Problem(
        .timeout, "the change was not agreed in time; it may still take effect",
        hint: "look before you repeat it, or give an Idempotency-Key and repeat it safely")

    static let noLeader = Problem(
        .noLeader, "no leader can take the change now: nothing was changed",
        hint:
            "a majority of the voters must be up and reach one another; `hivemind cluster status` shows who is missing")

    private static func problem(_ refusal: Refusal) -> Problem {
        switch refusal {
        case .notLeader, .transferring: noLeader
        case .membership(.lastVoter):
            Problem(
                .conflict, "this is the last node that votes: the cluster would be without one",
                hint: "let another vote first: hivemind node ls, hivemind node role NAME voter")
        case .membership(.quorumUnreachable(let answering, let quorum)):
            Problem(
                .conflict,
                "only \(answering) of those who would vote then answer, \(quorum) are needed: nothing was changed",
                hint: "bring the others back first: `hivemind cluster status` shows who is not heard")
        case .membership(.changeUnderWay), .membership(.leaderNotReady), .membership(.transferUnderWay):
            Problem(
                .conflict, "another change of the members, or of the leader, is under way: nothing was changed",
                hint: "try again in a moment")
        case .membership(let refusal):
            Problem(
                .conflict, "the members cannot change like this: \(refusal)",
                hint: "`hivemind cluster status` shows what each of them does")
        case .busyBytes(let limit):
            Problem(.busy, "more than \(limit >> 20) MiB of changes wait to be applied", hint: "try again in a moment")
        case .busyEntries(let limit):
            Problem(.busy, "more than \(limit) changes wait to be applied", hint: "try again in a moment")
        case .tooLarge(let bytes, let limit):
            Problem(.payloadTooLarge, "a change of \(bytes) bytes is above the limit of \(limit)")
        }
    }

    private func forward(
        _ payload: [UInt8], to leader: MemberID, over link: any PeerLink, end: Int64
    ) async -> Proposals.Outcome {
        switch await placeElsewhere(payload, to: leader, over: link, end: end) {
        case .placed(let position): await proposals.result(at: position, deadline: end)
        case .refused(let reason): .refused(reason)
        case .unanswered: .unanswered
        }
    }

    private func placeElsewhere(
        _ payload: [UInt8], to leader: MemberID, over link: any PeerLink, end: Int64
    ) async -> Proposals.Placement {
        do {
            let wait = min(Self.noLeaderMilliseconds, max(1, end - Clock.monotonic()))
            let reply = try await link.forward(
                PeerRequest.propose(payload).encoded(), to: leader, deadline: .milliseconds(wait))
            guard let result = PeerReply.placement(reply) else {
                log.warning("a forwarded change got an answer that cannot be read", metadata: ["member": "\(leader)"])
                return .unanswered
            }
            return result
        } catch {
            log.debug("a change could not be forwarded", metadata: ["member": "\(leader)", "error": "\(error)"])
            return error.isWithoutEffect ? .refused(.notLeader(leader: nil)) : .unanswered
        }
    }

    /// What another member asks of this one.
    /// - Returns: nil for a request this build does not know.
    func answer(
        _ request: [UInt8], from member: MemberID, call: @Sendable ([UInt8]) async -> [UInt8],
        node: @Sendable ([UInt8]) async -> [UInt8]
    ) async -> [UInt8]? {
        switch PeerRequest(decoding: request) {
        case .propose(let payload):
            guard !consensus.isFull else {
                return PeerReply.encode(.refused(.busyEntries(limit: ConsensusOwner.inboxMax)))
            }
            return PeerReply.encode(
                await proposals.place { token in consensus.take([.propose([Proposal(token: token, payload: payload)])])
                })
        case .progress:
            let status = consensus.status
            return status.isLeader ? PeerReply.encode(status.progress) : []
        case .transfer(let target): return PeerReply.encode(await handOver(to: target))
        case .digest(let index, let digest):
            comparer.heard(digest, of: member, at: index)
            return []
        case .digestOf(let index): return comparer.digest(at: index) ?? []
        case .snapshot:
            let status = consensus.status
            let isObserver = status.configuration?.membership.contains(member) == false
            guard !status.isObserver, status.isLeader || isObserver else { return [0] }
            transfers.want(member)
            return [1]
        case .call(let body): return await call(body)
        case .node(let body): return await node(body)
        case .entries(let position, let milliseconds):
            // An observer's log is empty, whatever it has applied.
            let outcome =
                isObserver ? .behind : await feed.outcome(after: position, waitMilliseconds: milliseconds)
            let status = consensus.status
            return EntryAnswer(
                outcome, term: status.term, leader: status.leader, appliedIndex: proposals.appliedIndex
            ).encoded()
        case .current:
            let end = Clock.monotonic() + Self.currentMilliseconds
            return PeerReply.encode(
                current: await proposals.read(deadline: end, submit: { consensus.take([.read(token: $0)]) }))
        case nil: return nil
        }
    }

    /// This node's own core: at once when it leads, else through `forwardOwn`.
    private func propose(_ own: [Proposal]) {
        if consensus.status.isLeader || peers.withLock({ $0 == nil }) {
            consensus.put(.propose(own))
        } else if case .dropped = forwardsInput.yield(own) {
            for proposal in own { refuse(proposal) }
        }
    }

    private func refuse(_ proposal: Proposal) {
        stateOwner.put(.event(.refused(Raft.Refused(token: proposal.token, reason: .notLeader(leader: nil)))))
    }

    /// Carries this node's own proposals to whoever leads, until the node stops.
    func forwardOwn() async {
        for await proposals in forwards {
            for proposal in proposals {
                let status = consensus.status
                guard let leader = status.leader, let link = peers.withLock({ $0 }), leader != member else {
                    if status.isLeader { consensus.put(.propose([proposal])) } else { refuse(proposal) }
                    continue
                }
                let end = Clock.monotonic() + Self.noLeaderMilliseconds
                switch await placeElsewhere(proposal.payload, to: leader, over: link, end: end) {
                case .placed(let position):
                    stateOwner.put(.event(.accepted(Accepted(token: proposal.token, position: position))))
                case .refused, .unanswered: refuse(proposal)
                }
            }
        }
    }

    // MARK: - Reading

    /// Returns when the state here shows every change acknowledged anywhere before the call.
    /// - Throws: `Problem` `no_leader` when nobody can tell, in bounded time.
    @discardableResult
    func readBarrier(deadline: Duration = .seconds(5)) async throws -> UInt64 {
        let end = Clock.monotonic() + Int64(deadline / .milliseconds(1))
        while true {
            if let index = await currentIndex(before: end) {
                guard await proposals.applied(through: index, deadline: end) else {
                    throw Problem(
                        .timeout, "this node has not applied entry \(index) yet", hint: "ask another node, or try again"
                    )
                }
                return index
            }
            guard Clock.monotonic() < end else {
                throw Problem(
                    .noLeader, "no leader can confirm what is current",
                    hint: "read what this node knows with ?consistency=local (--consistency local)")
            }
            try await Task.sleep(for: .milliseconds(Self.retryMilliseconds))
        }
    }

    /// At which a read is current now; nil when nobody could tell.
    private func currentIndex(before end: Int64) async -> UInt64? {
        let status = consensus.status
        guard status.isObserver else {
            return await proposals.read(deadline: end, submit: { consensus.take([.read(token: $0)]) })
        }
        // Whoever leads knows it, whoever is followed asks.
        guard let link = peers.withLock({ $0 }), let member = status.leader ?? follower.member else { return nil }
        let wait = min(Self.currentMilliseconds, max(1, end - Clock.monotonic()))
        do {
            return PeerReply.current(
                try await link.forward(PeerRequest.current.encoded(), to: member, deadline: .milliseconds(wait)))
        } catch {
            log.debug("a member cannot say what is current", metadata: ["member": "\(member)", "error": "\(error)"])
            return nil
        }
    }

    /// Lets the node act once its state is current; without a leader, after a while, on what it knows.
    func becomeCurrent() async {
        var index = try? await readBarrier(deadline: .milliseconds(Self.noLeaderMilliseconds))
        // With nothing it would take all that runs here for something nobody wants.
        while index == nil, proposals.appliedIndex == 0, !Task.isCancelled {
            index = try? await readBarrier(deadline: .milliseconds(Self.noLeaderMilliseconds))
        }
        if index == nil { log.warning("no leader yet: this node acts on the state it has") }
        stateOwner.put(.event(.current(at: index ?? proposals.appliedIndex)))
    }

    // MARK: - Leadership

    /// Hands leadership on, when there is somebody to take it; nil when the node stops.
    func handOver(to target: MemberID? = nil) async -> TransferResult.Outcome? {
        await proposals.transfer { consensus.put(.transfer(token: $0, to: target)) }
    }

    /// Hands leadership on, wherever it is.
    /// - Throws: `Problem` `no_leader` when there is none or it cannot be asked.
    func transferLeadership(to target: MemberID?) async throws -> TransferResult.Outcome {
        let end = Clock.monotonic() + Self.noLeaderMilliseconds
        while true {
            let status = consensus.status
            var outcome: TransferResult.Outcome? = .notLeader(leader: nil)
            if status.isLeader {
                outcome = await handOver(to: target)
            } else if let leader = status.leader, let link = peers.withLock({ $0 }),
                let reply = try? await link.forward(
                    PeerRequest.transfer(to: target).encoded(), to: leader, deadline: .seconds(5))
            {
                outcome = PeerReply.transfer(reply)
            }
            if let outcome, case .notLeader = outcome {} else if let outcome { return outcome }
            guard Clock.monotonic() < end else { throw Self.noLeader }
            try await Task.sleep(for: .milliseconds(Self.retryMilliseconds))
        }
    }

    /// Where every member stands, as the leader sees it; nil when it cannot be asked.
    func memberProgress() async -> [MemberProgress]? {
        let status = consensus.status
        if status.isLeader { return status.progress }
        guard let leader = status.leader, let link = peers.withLock({ $0 }),
            let reply = try? await link.forward(
                PeerRequest.progress.encoded(), to: leader, deadline: .seconds(1)),
            !reply.isEmpty
        else { return nil }
        return PeerReply.progress(reply)
    }

    // MARK: - Membership

    /// Takes one step, if this member leads, and waits until it is agreed.
    /// - Parameter isPatient: tries again while what is in the way passes by itself, such as the step before.
    /// - Throws: `Problem` `no_leader`, `conflict` when the step cannot be taken now.
    func changeMembership(_ change: MembershipChange, isPatient: Bool = false) async throws {
        let end = Clock.monotonic() + Self.noLeaderMilliseconds
        while true {
            let outcome = await proposals.propose(deadline: end) { token in
                consensus.take([.changeMembership(token: token, change)])
            }
            switch outcome {
            // An entry without a command has no result: its place in the log is all there is to know.
            case .applied, .lost: return
            case .refused(let refusal):
                guard isPatient, refusal.passes, Clock.monotonic() < end else {
                    throw Self.problem(refusal)
                }
                try await Task.sleep(for: .milliseconds(Self.retryMilliseconds))
            case .inDoubt, .unanswered: throw Self.inDoubt
            }
        }
    }

    /// Asks whoever leads.
    /// - Parameter own: answers when this member leads.
    /// - Throws: `Problem` `no_leader` when nobody does or the answer is lost.
    func askLeader(_ request: [UInt8], deadline: Duration, own: @Sendable () async -> [UInt8]) async throws -> [UInt8] {
        let end = Clock.monotonic() + Int64(deadline / .milliseconds(1))
        while true {
            let status = consensus.status
            if status.isLeader { return await own() }
            if let leader = status.leader, let link = peers.withLock({ $0 }) {
                let rest = max(1, end - Clock.monotonic())
                if let answer = try? await link.forward(request, to: leader, deadline: .milliseconds(rest)) {
                    return answer
                }
            }
            guard Clock.monotonic() < end else { throw Self.noLeader }
            try await Task.sleep(for: .milliseconds(Self.retryMilliseconds))
        }
    }

    // MARK: - Comparing

    /// Has every node compare its state at one index, from time to time, as long as this one leads and something changed.
    func compareStates(every interval: Duration) async {
        var compared: UInt64 = 0
        while !Task.isCancelled {
            do { try await Task.sleep(for: interval) } catch { return }
            let applied = proposals.appliedIndex
            guard consensus.status.isReady, peers.withLock({ $0 != nil }), applied != compared else { continue }
            do {
                compared = try await propose(.compareState, deadline: .seconds(5)).index
            } catch {
                log.debug("states are not compared now", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Tells the others what this state was, and has it replaced when it is wrong, until the node stops.
    func exchangeDigests() async { await comparer.exchange { [self] in _ = await handOver() } }

    // MARK: - Snapshots and cutting the log

    /// Enough was applied: a snapshot makes what came before it unnecessary.
    private func checkpoint(_ applied: UInt64) {
        // An observer has nothing to cut.
        guard !isObserver else { return }
        snapshots.takeByTheWay { [self] manifest in
            do {
                // The state's own file must reach as far, or a power cut would leave a gap between it and the log.
                guard try state.checkpoint() else { return }
                let index = manifest.position.index
                consensus.put(.compact(through: index - min(index, SnapshotWorker.entriesKept)))
            } catch {
                log.warning("the log could not be cut", metadata: ["error": "\(error)"])
            }
        }
    }
}

extension Change {
    /// Asked for to have less: taken while space is short.
    fileprivate var isRemoval: Bool {
        switch self {
        case .deleteApp, .deleteVolume, .deleteConfig, .removeAPIToken: true
        default: false
        }
    }
}

extension Refusal {
    /// What is in the way is gone in a moment, whoever asks.
    fileprivate var passes: Bool {
        switch self {
        case .transferring, .membership(.changeUnderWay), .membership(.leaderNotReady), .membership(.transferUnderWay):
            true
        default: false
        }
    }
}
