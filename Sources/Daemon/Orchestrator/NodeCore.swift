// SPDX-License-Identifier: Apache-2.0
public import Model
public import Raft
public import Store

/// The whole of one node's thinking: log, state, placement, rollouts, reconciliation, tables.
///
/// Events go in with the time, effects come out; nothing in here waits, sleeps or asks. One owner feeds it, so that a
/// cluster of these can be run from one seed.
public struct NodeCore {
    public enum Event: Sendable {
        case tick
        case propose(Proposition)
        case persisted(Receipt)
        /// Entries asked for by `Effect.load`, in order.
        case loaded([Entry])
        case observed(Observation)
        /// Names and rules follow the state at this index.
        case programmed(UInt64)
    }

    /// A change somebody waits for.
    public struct Proposition: Sendable {
        /// Comes back with the reply; not zero.
        public var token: UInt64
        public var request: String?
        public var change: Change

        public init(token: UInt64, request: String? = nil, change: Change) {
            self.token = token
            self.request = request
            self.change = change
        }
    }

    public enum Effect: Sendable {
        case write(Write)
        case load(Range<UInt64>)
        case reply(token: UInt64, Result<Applied, Problem>)
        case perform(Action)
        case publish(NameTable, BalancingTable)
        /// Why tasks of an app cannot be placed now; nil when they can again.
        case placement(ObjectKey, Reason?)
        case roleChanged(RoleChange)
        /// The state has followed everything the log held at start: the node may act.
        case caughtUp(index: UInt64)
        /// Enough was applied that the log may be cut.
        case checkpoint(applied: UInt64)
        /// The node must stop: it can no longer follow the log.
        case halt(String)
    }

    private let node: NodeID
    private let state: StateMachine
    private var raft: RaftNode
    private var random: SplitMix64
    private var reconciler = NodeReconciler()

    private var lastStamp: Timestamp
    /// Proposals of the core itself, by token. The owner's tokens are below 2^63.
    private var own: [UInt64: OwnProposal] = [:]
    private var nextOwnToken: UInt64 = 1 << 63
    /// Tokens of entries not yet applied, by index.
    private var waiting: [UInt64: UInt64] = [:]

    private enum OwnProposal: Hashable {
        /// The last change of a step for this app.
        case plan(ObjectKey)
        case partOfPlan
        case reports
        case volume(ObjectKey)
    }

    private var backlog: [Committed] = []
    private var isLoading = false
    private var isCaughtUp = false
    private var isHalted = false

    private var dirtyApps: Set<ObjectKey> = []
    private var plannedApps: Set<ObjectKey> = []
    private var appWakes: [ObjectKey: Timestamp] = [:]
    private var refusals: [ObjectKey: Reason] = [:]
    private var reported: [TaskID: TaskStatus] = [:]
    private var published: (names: NameTable, balancing: BalancingTable)?
    private var reconcilerWake: Timestamp?
    /// When to say again what the log did not take.
    private var retryWake: Timestamp?
    private var sinceCheckpoint: UInt64 = 0

    /// After a proposal of its own was refused, for instance because too many wait.
    public static let retryMilliseconds: Int64 = 100
    /// After a step that changed nothing.
    public static let fruitlessMilliseconds: Int64 = 500
    /// So many fit an entry even with the longest reasons.
    public static let reportsPerEntry = 100

    /// Applied entries between two requests to cut the log.
    public static let checkpointEntries: UInt64 = 10_000

    public init(node: NodeID, state: StateMachine, raft: RaftNode, seed: UInt64, logTime: Timestamp) {
        self.node = node
        self.state = state
        self.raft = raft
        random = SplitMix64(seed: seed)
        lastStamp = logTime
    }

    public var appliedIndex: UInt64 { raft.appliedIndex }
    public var term: UInt64 { raft.term }
    public var commitIndex: UInt64 { raft.commitIndex }
    public var isLeader: Bool { raft.leader != nil }
    /// What runs on this node is known: its reconciler acts.
    public var isAdopted: Bool { reconciler.isAdopted }

    /// When to call again with `.tick` if nothing happens before.
    public var wakeAt: Timestamp? {
        ([reconcilerWake, retryWake] + appWakes.values.map { $0 }).compactMap { $0 }.min()
    }

    // MARK: - One step

    /// - Throws: what SQLite throws when the state cannot be written; the node must stop then.
    public mutating func step(_ event: Event, now: Timestamp) throws -> [Effect] {
        guard !isHalted else {
            if case .propose(let proposition) = event {
                return [
                    .reply(
                        token: proposition.token,
                        .failure(Problem(.internal, "this node has stopped applying changes", hint: "see its log")))
                ]
            }
            return []
        }
        var effects: [Effect] = []
        if let at = retryWake, at <= now { retryWake = nil }
        switch event {
        case .tick: try feed(.tick, now: now, &effects)
        case .propose(let proposition): try propose([proposition], now: now, &effects)
        case .persisted(let receipt): try feed(.persisted(receipt), now: now, &effects)
        case .loaded(let entries): try loaded(entries, now: now, &effects)
        case .observed(let observation):
            perform(reconciler.observe(observation, now: now), &effects)
        case .programmed(let index): reconciler.programmed(index)
        }
        if isCaughtUp {
            try plan(now: now, &effects)
            try reconcile(now: now, &effects)
        }
        return effects
    }

    private func perform(_ actions: [Action], _ effects: inout [Effect]) {
        effects += actions.map(Effect.perform)
    }

    // MARK: - Log

    private mutating func propose(_ propositions: [Proposition], now: Timestamp, _ effects: inout [Effect]) throws {
        var proposals: [Proposal] = []
        for proposition in propositions {
            lastStamp = max(lastStamp, now)
            let command = Command(request: proposition.request, at: lastStamp, change: proposition.change)
            proposals.append(Proposal(token: proposition.token, payload: try command.encoded()))
        }
        try feed(.propose(proposals), now: now, &effects)
    }

    private mutating func feed(_ input: Input, now: Timestamp, _ effects: inout [Effect]) throws {
        let output = raft.step(input)
        if let change = output.roleChange { effects.append(.roleChanged(change)) }
        if let write = output.write { effects.append(.write(write)) }
        for accepted in output.accepted { waiting[accepted.position.index] = accepted.token }
        for refused in output.refused {
            answer(refused.token, .failure(Self.problem(refused.reason)), now: now, &effects)
        }
        if let committed = output.committed {
            backlog.append(committed)
            try applyBacklog(loaded: nil, now: now, &effects)
        }
    }

    private mutating func loaded(_ entries: [Entry], now: Timestamp, _ effects: inout [Effect]) throws {
        isLoading = false
        try applyBacklog(loaded: entries, now: now, &effects)
    }

    private mutating func applyBacklog(loaded: [Entry]?, now: Timestamp, _ effects: inout [Effect]) throws {
        var loaded = loaded
        while let committed = backlog.first, !isLoading {
            if !committed.fromLog.isEmpty, loaded == nil {
                isLoading = true
                effects.append(.load(committed.fromLog))
                return
            }
            let entries = (committed.fromLog.isEmpty ? [] : loaded ?? []) + committed.entries
            loaded = nil
            backlog.removeFirst()
            try apply(entries, now: now, &effects)
            if isHalted { return }
        }
    }

    private mutating func apply(_ entries: [Entry], now: Timestamp, _ effects: inout [Effect]) throws {
        var inputs: [StateMachine.Input] = []
        for entry in entries {
            switch entry.kind {
            case .command:
                do {
                    let command = try Command(decoding: entry.payload)
                    lastStamp = max(lastStamp, command.at)
                    inputs.append(.init(index: entry.index, term: entry.term, command: command))
                } catch {
                    isHalted = true
                    effects.append(.halt("entry \(entry.index): \(error)"))
                }
            case .noop, .configuration:
                inputs.append(.init(index: entry.index, term: entry.term, command: nil))
            }
            if isHalted { break }
        }
        guard let last = inputs.last else { return }
        let (results, touched) = try state.apply(inputs)
        sinceCheckpoint += UInt64(inputs.count)
        _ = raft.step(.applied(last.index))
        for result in results {
            if let token = waiting.removeValue(forKey: result.index) {
                answer(token, .success(result), now: now, &effects)
            }
        }
        dirtyApps.formUnion(touched.apps)
        if touched.nodes { dirtyApps.formUnion(try state.read { try $0.apps() }.map(\.key)) }

        if raft.isReady, !isCaughtUp, backlog.isEmpty {
            try catchUp(now: now, &effects)
        } else if isCaughtUp {
            try follow(touched, now: now, &effects)
        }
        if sinceCheckpoint >= Self.checkpointEntries {
            sinceCheckpoint = 0
            effects.append(.checkpoint(applied: last.index))
        }
    }

    /// The state has reached what the log held: from here on the node acts on it.
    private mutating func catchUp(now: Timestamp, _ effects: inout [Effect]) throws {
        isCaughtUp = true
        let (rows, ended, volumes, apps) = try state.read { state in
            (
                try state.livingTasks(node: node), try state.taskIDs(node: node), try state.volumes(),
                try state.apps().map(\.key)
            )
        }
        var desired: [TaskID: TaskRow?] = [:]
        for row in rows { desired[row.id] = .some(row) }
        for id in ended where desired[id] == nil {
            if let row = try state.read({ try $0.task(id) }) { desired[id] = .some(row) }
        }
        perform(reconciler.update(desired, now: now), &effects)
        reconciler.updateVolumes(
            deleting: volumes.filter { $0.deleting && ($0.node ?? node) == node }.map(\.key), gone: [])
        dirtyApps = Set(apps)
        try publish(&effects)
        effects.append(.caughtUp(index: raft.appliedIndex))
    }

    private mutating func follow(_ touched: Touched, now: Timestamp, _ effects: inout [Effect]) throws {
        guard !touched.isEmpty else { return }
        if !touched.tasks.isEmpty {
            let rows = try state.read { state in
                try touched.tasks.sorted().map { ($0, try state.task($0)) }
            }
            var desired: [TaskID: TaskRow?] = [:]
            for (id, row) in rows where row == nil || row?.node == node { desired[id] = .some(row) }
            for (id, row) in rows where row == nil || row?.status.state.isTerminal == true { reported[id] = nil }
            perform(reconciler.update(desired, now: now), &effects)
        }
        if !touched.volumes.isEmpty {
            let rows = try state.read { state in try touched.volumes.sorted().map { ($0, try state.volume($0)) } }
            reconciler.updateVolumes(
                deleting: rows.filter { $0.1?.deleting == true && ($0.1?.node ?? node) == node }.map(\.0),
                gone: rows.filter { $0.1 == nil }.map(\.0))
        }
        try publish(&effects)
    }

    /// Hands out new tables only when something in them changed.
    private mutating func publish(_ effects: inout [Effect]) throws {
        let index = raft.appliedIndex
        let made = try state.read { try Tables.make($0, index: index) }
        if let published, published.names.services == made.names.services,
            published.names.clients == made.names.clients, published.balancing.services == made.balancing.services,
            reconciler.hasProgrammed(published.balancing.index)
        {
            // The rules in force say already what this index asks for.
            reconciler.programmed(index)
            return
        }
        published = made
        effects.append(.publish(made.names, made.balancing))
    }

    // MARK: - Replies

    private mutating func answer(
        _ token: UInt64, _ result: Result<Applied, Problem>, now: Timestamp, _ effects: inout [Effect]
    ) {
        guard let proposal = own.removeValue(forKey: token) else {
            effects.append(.reply(token: token, result))
            return
        }
        if case .failure = result { retryWake = now + Self.retryMilliseconds }
        switch proposal {
        case .plan(let app):
            plannedApps.remove(app)
            switch result {
            case .success(let applied) where applied.outcome == .done(.changed): dirtyApps.insert(app)
            // Nothing came of the step: the same picture would ask for the same again at once, for ever.
            default: appWakes[app] = min(appWakes[app] ?? .distantFuture, now + Self.fruitlessMilliseconds)
            }
        case .reports:
            // Not taken: everything is said again.
            if case .failure = result { reported = [:] }
        case .partOfPlan, .volume: break
        }
    }

    private static func problem(_ refusal: Refusal) -> Problem {
        switch refusal {
        case .notLeader, .transferring, .membership:
            Problem(.noLeader, "no leader can take the change now", hint: "try again in a moment")
        case .busyBytes(let limit):
            Problem(.busy, "more than \(limit >> 20) MiB of changes wait to be applied", hint: "try again in a moment")
        case .busyEntries(let limit):
            Problem(.busy, "more than \(limit) changes wait to be applied", hint: "try again in a moment")
        case .tooLarge(let bytes, let limit):
            Problem(.payloadTooLarge, "a change of \(bytes) bytes is above the limit of \(limit)")
        }
    }

    private mutating func proposition(_ proposal: OwnProposal, _ change: Change) -> Proposition {
        nextOwnToken += 1
        own[nextOwnToken] = proposal
        return Proposition(token: nextOwnToken, change: change)
    }

    // MARK: - Leader: rollouts and placement

    private mutating func plan(now: Timestamp, _ effects: inout [Effect]) throws {
        guard raft.isReady else { return }
        for (app, at) in appWakes where at <= now {
            dirtyApps.insert(app)
            appWakes[app] = nil
        }
        // An app with a step under way is looked at again when that step is applied.
        for key in dirtyApps.subtracting(plannedApps).sorted() {
            dirtyApps.remove(key)
            guard let picture = try state.read({ try AppPicture($0, key) }) else {
                appWakes[key] = nil
                note(key, nil, &effects)
                continue
            }
            let step = Rollout.next(picture, now: now)
            appWakes[key] = step.wakeAt
            var changes = step.changes
            var refusal: Reason?
            if !step.create.isEmpty {
                let (tasks, reason) = try place(step.create, now: now)
                refusal = reason
                if !tasks.isEmpty { changes.append(.assignTasks(AssignTasks(tasks: tasks))) }
                if reason != nil {
                    appWakes[key] = min(appWakes[key] ?? .distantFuture, now + 1000)
                }
            }
            note(key, refusal, &effects)
            guard !changes.isEmpty else { continue }
            plannedApps.insert(key)
            // They are applied in order, so the last one ends the step.
            let propositions = changes.enumerated().map { offset, change in
                proposition(offset == changes.count - 1 ? .plan(key) : .partOfPlan, change)
            }
            try propose(propositions, now: now, &effects)
        }
    }

    private mutating func place(
        _ creations: [Rollout.Creation], now: Timestamp
    ) throws -> (tasks: [NewTask], refusal: Reason?) {
        var scheduler = try state.read { state in
            let nodes = try state.nodes()
            var addresses: [NodeID: (used: Set<IPv4Address>, released: [IPv4Address: Timestamp])] = [:]
            for node in nodes { addresses[node.id] = try state.addresses(in: node.subnet) }
            return Scheduler(nodes: nodes, addresses: addresses, now: now)
        }
        var tasks: [NewTask] = []
        var refusal: Reason?
        for creation in creations {
            let placed = scheduler.place(creation.service, count: creation.count, using: &random)
            tasks += placed.tasks
            refusal = refusal ?? placed.refusal
        }
        return (tasks, refusal)
    }

    private mutating func note(_ key: ObjectKey, _ refusal: Reason?, _ effects: inout [Effect]) {
        guard refusals[key] != refusal else { return }
        refusals[key] = refusal
        effects.append(.placement(key, refusal))
    }

    // MARK: - This node

    private mutating func reconcile(now: Timestamp, _ effects: inout [Effect]) throws {
        let output = reconciler.next(now: now)
        perform(output.actions, &effects)
        reconcilerWake = output.wakeAt
        for key in output.removedVolumes where !own.values.contains(.volume(key)) {
            let removal = proposition(.volume(key), .removeVolume(VolumeChange(volume: key)))
            try propose([removal], now: now, &effects)
        }
        // One batch at a time: what changes meanwhile goes with the next.
        guard !own.values.contains(.reports), raft.isReady else { return }
        let news = Array(output.reports.filter { reported[$0.task] != $0.status }.prefix(Self.reportsPerEntry))
        guard !news.isEmpty else { return }
        for report in news { reported[report.task] = report.status }
        try propose(
            [proposition(.reports, .recordTasks(RecordTasks(reports: news)))], now: now, &effects)
    }
}
