// SPDX-License-Identifier: Apache-2.0
public import Model
public import Raft
public import Store

/// What one node makes of what was agreed: state, placement, rollouts, reconciliation, tables.
///
/// Consensus (`RaftNode`) decides what happens in which order; this decides what follows from it. Events go in with the
/// time, effects come out; nothing in here waits, sleeps or asks. One owner feeds it, so that a cluster of these can be
/// run from one seed.
public struct NodeCore {
    public enum Event: Sendable {
        case tick
        case leadership(Leadership)
        /// Committed entries, in order, each once; the first follows the applied index.
        case committed([Entry])
        /// The state was replaced by a snapshot's; committed entries go on after it.
        case stateReplaced
        /// The state is current at this index: once it is applied, the node may act on what it says.
        case current(at: UInt64)
        /// One of `Effect.propose` has a place in the log.
        case accepted(Accepted)
        /// One of `Effect.propose` has none, or lost it.
        case refused(Refused)
        case observed(Observation)
        /// Names and rules follow the state at this index.
        case programmed(UInt64)
        /// So do those of every other node that answers: the answer to `Effect.release`.
        case released(UInt64)
    }

    /// Who decides now, as far as this node knows.
    public struct Leadership: Hashable, Sendable {
        /// This node leads and knows everything that was acknowledged: it places and rolls out.
        public var isReady: Bool
        /// Somebody leads: proposals have a chance.
        public var hasLeader: Bool

        public init(isReady: Bool, hasLeader: Bool) {
            self.isReady = isReady
            self.hasLeader = hasLeader
        }
    }

    public enum Effect: Sendable {
        case propose([Proposal])
        /// Entries the state now holds, in order.
        case applied([AppliedEntry])
        case perform(Action)
        case publish(NameTable, BalancingTable)
        /// The names and rules in force say what the state at this index asks for: nothing has to be published.
        case inForce(UInt64)
        /// Tasks are stopped once no node sends anything to them: say when the rules of all nodes follow this index.
        case release(UInt64)
        /// All members compare their state as it was at this index.
        case compare(StatePicture)
        /// Why tasks of an app cannot be placed now; nil when they can again.
        case placement(ObjectKey, Reason?)
        /// Nodes, or who of them votes, changed.
        case nodes
        /// The state is current: the node acts from here on.
        case caughtUp(index: UInt64)
        /// Enough was applied that the log may be cut.
        case checkpoint(applied: UInt64)
        /// The node must stop applying: it can no longer follow the log.
        case halt(String)
    }

    /// What became of one entry. Whoever waits for an index compares the term: another's entry may stand there.
    public struct AppliedEntry: Sendable {
        public var position: LogPosition
        /// Nil for entries without a command.
        public var result: Applied?

        public init(position: LogPosition, result: Applied?) {
            self.position = position
            self.result = result
        }
    }

    private let node: NodeID
    private let state: StateMachine
    private var random: SplitMix64
    private var leadership = Leadership(isReady: false, hasLeader: false)
    private var currentAt: UInt64?
    public private(set) var appliedIndex: UInt64
    public private(set) var appliedTerm: UInt64
    private var reconciler = NodeReconciler()

    private var lastStamp: Timestamp
    /// Proposals of the core itself, by token. The owner's tokens are below 2^63.
    private var own: [UInt64: OwnProposal] = [:]
    private var nextOwnToken = NodeCore.ownTokens
    /// Own proposals in the log and not yet applied, by index.
    private var waiting: [UInt64: Accepted] = [:]

    private enum OwnProposal: Hashable {
        /// The last change of a step for this app.
        case plan(ObjectKey)
        case partOfPlan
        case reports
        case volume(ObjectKey)
    }

    private var isCaughtUp = false
    public private(set) var isHalted = false

    private var dirtyApps: Set<ObjectKey> = []
    private var plannedApps: Set<ObjectKey> = []
    /// Of those, the ones that get tasks. The state does not show yet what these take: nothing else is placed meanwhile.
    private var placingApps: Set<ObjectKey> = []
    private var appWakes: [ObjectKey: Timestamp] = [:]
    private var refusals: [ObjectKey: Reason] = [:]
    private var reported: [TaskID: TaskStatus] = [:]
    private var tables: TableParts
    private var published: (names: NameTable, balancing: BalancingTable)?
    /// Of the state, read again when one of them changed.
    private var nodes: [NodeRow]?
    /// While this node leads; made when a task is first placed.
    public private(set) var cluster: ClusterPicture?
    private var reconcilerWake: Timestamp?
    /// The newest index whose release was asked for.
    private var awaited: UInt64 = 0
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

    /// Tokens of the core's own proposals are from here on; everybody else's are below.
    public static let ownTokens: UInt64 = 1 << 63

    public init(node: NodeID, state: StateMachine, seed: UInt64, meta: MetaRow) {
        self.node = node
        self.state = state
        random = SplitMix64(seed: seed)
        tables = TableParts(node: node)
        lastStamp = meta.logTime
        appliedIndex = meta.appliedIndex
        appliedTerm = meta.appliedTerm
    }

    /// What runs on this node is known: its reconciler acts.
    public var isAdopted: Bool { reconciler.isAdopted }

    /// When to call again with `.tick` if nothing happens before.
    public var wakeAt: Timestamp? {
        ([reconcilerWake, retryWake] + appWakes.values.map { $0 }).compactMap { $0 }.min()
    }

    // MARK: - One step

    /// - Throws: what SQLite throws when the state cannot be written; the node must stop then.
    public mutating func step(_ event: Event, now: Timestamp) throws -> [Effect] {
        guard !isHalted else { return [] }
        var effects: [Effect] = []
        if let at = retryWake, at <= now { retryWake = nil }
        switch event {
        case .tick: break
        case .leadership(let leadership): try changed(leadership, &effects)
        case .committed(let entries): try apply(entries, now: now, &effects)
        case .stateReplaced: try stateReplaced(now: now, &effects)
        case .current(let index):
            currentAt = max(currentAt ?? 0, index)
            try catchUp(now: now, &effects)
        case .accepted(let accepted): try self.accepted(accepted, now: now)
        case .refused(let refused): ended(refused.token, nil, now: now)
        case .observed(let observation):
            perform(reconciler.observe(observation, now: now), &effects)
        case .programmed(let index): reconciler.programmed(index)
        case .released(let index): reconciler.released(index)
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
        lastStamp = max(lastStamp, now)
        effects.append(
            .propose(
                try propositions.map { proposition in
                    Proposal(
                        token: proposition.token,
                        payload: try Command(at: lastStamp, change: proposition.change).encoded())
                }))
    }

    private mutating func changed(_ new: Leadership, _ effects: inout [Effect]) throws {
        let old = leadership
        leadership = new
        if new.isReady, !old.isReady {
            // Whatever the leader before had begun is looked at afresh.
            dirtyApps = Set(try state.read { try $0.apps() }.map(\.key))
        } else if old.isReady, !new.isReady {
            plannedApps = []
            placingApps = []
            appWakes = [:]
            for key in refusals.keys.sorted() { effects.append(.placement(key, nil)) }
            refusals = [:]
            cluster = nil
        }
    }

    private mutating func accepted(_ accepted: Accepted, now: Timestamp) throws {
        guard own[accepted.token] != nil else { return }
        // The answer of another node may come after the entry itself: then nobody knows any more what became of it, and
        // it is looked at as if it had been refused.
        if accepted.position.index <= appliedIndex {
            ended(accepted.token, nil, now: now)
        } else {
            waiting[accepted.position.index] = accepted
        }
    }

    private mutating func apply(_ entries: [Entry], now: Timestamp, _ effects: inout [Effect]) throws {
        var inputs: [StateMachine.Input] = []
        for entry in entries {
            do {
                let input = try StateMachine.Input(entry)
                if case .command(let command) = input.content { lastStamp = max(lastStamp, command.at) }
                inputs.append(input)
            } catch {
                // Skipping it would make this replica differ from the others for ever.
                isHalted = true
                effects.append(.halt("entry \(entry.index): \(error)"))
                break
            }
        }
        guard let last = inputs.last else { return }
        let (results, touched) = try state.apply(inputs)
        appliedIndex = last.index
        appliedTerm = last.term
        sinceCheckpoint += UInt64(inputs.count)
        var outcomes = results[...]
        var applied: [AppliedEntry] = []
        applied.reserveCapacity(inputs.count)
        for input in inputs {
            let result = outcomes.first?.index == input.index ? outcomes.removeFirst() : nil
            applied.append(AppliedEntry(position: LogPosition(index: input.index, term: input.term), result: result))
            if let accepted = waiting.removeValue(forKey: input.index) {
                ended(accepted.token, accepted.position.term == input.term ? result?.outcome : nil, now: now)
            }
        }
        if touched.nodes { nodes = nil }
        cluster?.note(touched)
        effects.append(.applied(applied))
        effects += touched.pictures.map(Effect.compare)
        if touched.nodes { effects.append(.nodes) }
        if leadership.isReady {
            dirtyApps.formUnion(touched.apps)
            // One that has moved makes room for the next.
            if !touched.tasks.isEmpty {
                let next = try state.read { try $0.movingTasks(limit: Rebalance.movingMax) }
                dirtyApps.formUnion(next.map(\.app))
            }
            if touched.nodes { dirtyApps.formUnion(try state.read { try $0.apps() }.map(\.key)) }
        }
        if isCaughtUp { try follow(touched, now: now, &effects) } else { try catchUp(now: now, &effects) }
        if sinceCheckpoint >= Self.checkpointEntries {
            sinceCheckpoint = 0
            effects.append(.checkpoint(applied: last.index))
        }
    }

    private mutating func stateReplaced(now: Timestamp, _ effects: inout [Effect]) throws {
        let meta = try state.read { try $0.meta() }
        appliedIndex = meta.appliedIndex
        appliedTerm = meta.appliedTerm
        lastStamp = max(lastStamp, meta.logTime)
        // Their entries are in the snapshot or gone; which, nobody can tell.
        for accepted in waiting.values.sorted(by: { $0.token < $1.token }) { ended(accepted.token, nil, now: now) }
        waiting = [:]
        reported = [:]
        nodes = nil
        cluster = nil
        effects.append(.nodes)
        if isCaughtUp {
            isCaughtUp = false
            currentAt = appliedIndex
        }
        try catchUp(now: now, &effects)
    }

    /// Once the state is current, the node acts on it.
    private mutating func catchUp(now: Timestamp, _ effects: inout [Effect]) throws {
        guard !isCaughtUp, let currentAt, appliedIndex >= currentAt else { return }
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
        if leadership.isReady { dirtyApps = Set(apps) }
        try publish(nil, &effects)
        effects.append(.caughtUp(index: appliedIndex))
    }

    private mutating func follow(_ touched: Touched, now: Timestamp, _ effects: inout [Effect]) throws {
        guard !touched.isEmpty else { return }
        if !touched.tasks.isEmpty {
            var desired: [TaskID: TaskRow?] = [:]
            var ended: [TaskID] = []
            try state.read { state in
                for id in touched.tasks.sorted() {
                    let place = try state.place(of: id)
                    if place?.isEnded ?? true { ended.append(id) }
                    // Most are other nodes' and of no interest here.
                    if place == nil || place?.node == node { desired[id] = .some(try state.task(id)) }
                }
            }
            for id in ended { reported[id] = nil }
            perform(reconciler.update(desired, now: now), &effects)
        }
        if !touched.volumes.isEmpty {
            let rows = try state.read { state in try touched.volumes.sorted().map { ($0, try state.volume($0)) } }
            reconciler.updateVolumes(
                deleting: rows.filter { $0.1?.deleting == true && ($0.1?.node ?? node) == node }.map(\.0),
                gone: rows.filter { $0.1 == nil }.map(\.0))
        }
        try publish(touched, &effects)
    }

    /// Hands out new tables only when something in them changed.
    /// - Parameter touched: nil for everything.
    private mutating func publish(_ touched: Touched?, _ effects: inout [Effect]) throws {
        let index = appliedIndex
        // Copied and given back: the parts are part of this value, as are the reads.
        var parts = tables
        let isChanged = try state.read { state in
            if let touched { return try parts.update(state, apps: touched.apps, nodes: touched.nodes) }
            try parts.read(state)
            return true
        }
        tables = parts
        if !isChanged, let published, reconciler.hasProgrammed(published.balancing.index) {
            // The rules in force say already what this index asks for.
            reconciler.programmed(index)
            effects.append(.inForce(index))
            return
        }
        let made = parts.joined(index: index)
        published = made
        effects.append(.publish(made.names, made.balancing))
    }

    // MARK: - Own proposals

    private struct Proposition {
        var token: UInt64
        var change: Change
    }

    /// - Parameter outcome: what the command did; nil when it did nothing or nobody can tell.
    private mutating func ended(_ token: UInt64, _ outcome: Applied.Outcome?, now: Timestamp) {
        guard let proposal = own.removeValue(forKey: token) else { return }
        if outcome == nil { retryWake = now + Self.retryMilliseconds }
        switch proposal {
        case .plan(let app):
            plannedApps.remove(app)
            placingApps.remove(app)
            guard leadership.isReady else { return }
            if outcome == .done(.changed) {
                dirtyApps.insert(app)
            } else {
                // Nothing came of the step: the same picture would ask for the same again at once, for ever.
                appWakes[app] = min(appWakes[app] ?? .distantFuture, now + Self.fruitlessMilliseconds)
            }
        case .reports:
            // Not taken: everything is said again.
            if outcome == nil { reported = [:] }
        case .partOfPlan, .volume: break
        }
    }

    private mutating func proposition(_ proposal: OwnProposal, _ change: Change) -> Proposition {
        nextOwnToken += 1
        own[nextOwnToken] = proposal
        return Proposition(token: nextOwnToken, change: change)
    }

    // MARK: - Leader: rollouts and placement

    private mutating func plan(now: Timestamp, _ effects: inout [Effect]) throws {
        guard leadership.isReady else { return }
        for (app, at) in appWakes where at <= now {
            dirtyApps.insert(app)
            appWakes[app] = nil
        }
        // An app with a step under way is looked at again when that step is applied.
        let due = dirtyApps.subtracting(plannedApps).sorted()
        guard !due.isEmpty else { return }
        let nodes = try self.nodes ?? state.read { try $0.nodes() }
        self.nodes = nodes
        // One for all that is placed now: what one app gets is gone for the next.
        var scheduler: Scheduler?
        // Taken out meanwhile, so that it is changed where it is and not copied.
        var cluster = self.cluster
        self.cluster = nil
        defer { self.cluster = cluster }
        let mayPlace = placingApps.isEmpty
        for key in due {
            dirtyApps.remove(key)
            guard var picture = try state.read({ try AppPicture($0, key, nodes: nodes, cluster: &cluster) }) else {
                appWakes[key] = nil
                note(key, nil, &effects)
                continue
            }
            picture.refusal = refusals[key]
            let step = Rollout.next(picture, now: now)
            appWakes[key] = step.wakeAt
            var changes = step.changes
            var refusal: Reason?
            if !step.create.isEmpty, !mayPlace {
                // Its turn comes with the end of what is under way; until then nothing new is known of it.
                refusal = refusals[key]
                if changes.isEmpty { dirtyApps.insert(key) }
            } else if !step.create.isEmpty {
                let (tasks, reason) = try place(step.create, with: &scheduler, &cluster, nodes, now: now)
                refusal = reason
                for first in stride(from: 0, to: tasks.count, by: AssignTasks.tasksMax) {
                    let some = tasks[first..<min(tasks.count, first + AssignTasks.tasksMax)]
                    changes.append(.assignTasks(AssignTasks(tasks: Array(some), decidedAt: appliedIndex)))
                }
                if !tasks.isEmpty { placingApps.insert(key) }
                // There was a better node, and is none any more: they stay.
                if tasks.isEmpty, !picture.moving.isEmpty {
                    changes.append(.moveTasks(MoveTasks(tasks: picture.moving.sorted(), moving: false)))
                }
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
        _ creations: [Rollout.Creation], with known: inout Scheduler?, _ cluster: inout ClusterPicture?,
        _ nodes: [NodeRow], now: Timestamp
    ) throws -> (tasks: [NewTask], refusal: Reason?) {
        // Copied and given back: the reads and the generator are both part of this value.
        var random = random
        let placed: (tasks: [NewTask], refusal: Reason?) = try state.read { state in
            var scheduler =
                try known ?? Scheduler(ClusterPicture.current(&cluster, state, nodes: nodes), now: now)
            known = nil
            defer { known = scheduler }
            var tasks: [NewTask] = []
            var refusal: Reason?
            for creation in creations {
                let placed = try scheduler.place(
                    creation.service, count: creation.count, only: creation.nodes, using: &random
                ) { node in
                    try state.addresses(in: node.subnet)
                }
                tasks += placed.tasks
                refusal = refusal ?? placed.refusal
            }
            return (tasks, refusal)
        }
        self.random = random
        return placed
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
        if let index = output.awaited, index > awaited {
            awaited = index
            effects.append(.release(index))
        }
        for key in output.removedVolumes where !own.values.contains(.volume(key)) {
            let removal = proposition(.volume(key), .removeVolume(VolumeChange(volume: key)))
            try propose([removal], now: now, &effects)
        }
        // One batch at a time: what changes meanwhile goes with the next.
        guard !own.values.contains(.reports), leadership.hasLeader else { return }
        let news = Array(output.reports.filter { reported[$0.task] != $0.status }.prefix(Self.reportsPerEntry))
        guard !news.isEmpty else { return }
        for report in news { reported[report.task] = report.status }
        try propose(
            [proposition(.reports, .recordTasks(RecordTasks(reports: news)))], now: now, &effects)
    }
}
