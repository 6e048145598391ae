// SPDX-License-Identifier: Apache-2.0

internal import Model
internal import Orchestrator
internal import Raft
internal import Store
internal import TestSupport

/// A hundred nodes and ten thousand tasks from one seed.
///
/// Real are the leader's core with its rollouts and scheduler, the state machine, the failure detector, and the reconciler of
/// every node. Simulated are consensus (one log that commits after two milliseconds; a change of leader loses what was not
/// committed), the way to the nodes, containers and time. Members that differ are the business of `Cluster`.
///
/// Times in milliseconds.
final class Fleet {
    enum Step {
        case commit
        case core
        case turn(NodeID, life: Int)
        case observed(NodeID, life: Int, Observation)
        case reports(NodeID, life: Int, [TaskReport])
        case watch
        case churn
    }

    struct Size {
        var nodes = 100
        var tasks = 10_000
        /// Of churn.
        var seconds: UInt64 = 60
    }

    struct Entrant {
        var entry: Entry
        var token: UInt64?
    }

    static let begin: Int64 = 1_700_000_000_000
    static let commitDelay: UInt64 = 2
    /// After so many commits the leader's picture is compared with one made anew.
    static let commitsPerPicture: UInt64 = 50

    let seed: UInt64
    let size: Size
    var random: SeededRandom
    private(set) var now: UInt64 = 0
    private(set) var steps: UInt64 = 0
    /// Of every committed byte and when it was committed.
    private(set) var trace: UInt64 = 0xcbf2_9ce4_8422_2325
    let state: StateMachine
    private(set) var core: NodeCore
    private var queue = EventQueue<Step>()
    private var pending: [Entrant] = []
    private var commits: UInt64 = 0
    private var lastIndex: UInt64 = 0
    private var term: UInt64 = 1
    private var coreWake: UInt64?
    private var detector: FailureDetector
    var machines: [NodeID: Machine] = [:]
    var nodesMade = 0
    var appsMade = 0
    /// What the leader says of apps whose tasks find no node.
    private(set) var refusals: [ObjectKey: Reason] = [:]
    var check: FleetCheck
    var isChurning = false

    init(seed: UInt64, size: Size) throws {
        self.seed = seed
        self.size = size
        random = SeededRandom(seed: seed)
        state = try StateMachine(path: nil)
        core = NodeCore(node: "leader", state: state, seed: random.next(), meta: try state.read { try $0.meta() })
        detector = FailureDetector(since: 0)
        check = FleetCheck()
        try lead()
        propose(.initializeCluster(InitializeCluster(clusterID: "fleet", ranges: .standard)))
        put(.watch, after: 250)
    }

    var time: Timestamp { Timestamp(milliseconds: Self.begin + Int64(now)) }

    // MARK: - Running

    func put(_ step: Step, after delay: UInt64) { queue.put(step, at: now + delay) }

    /// Until `done`, looked at every second, or for so long.
    /// - Returns: whether it was done.
    func run(milliseconds: UInt64, until done: () throws -> Bool) throws -> Bool {
        let end = now + milliseconds
        var look = now
        while true {
            if now >= look {
                if try done() { return true }
                look = now + 1_000
            }
            guard let at = queue.nextTime, at <= end, let (_, step) = queue.take() else {
                now = end
                return try done()
            }
            now = max(now, at)
            steps += 1
            try carryOut(step)
        }
    }

    private func carryOut(_ step: Step) throws {
        switch step {
        case .commit: try commit()
        case .core:
            guard coreWake == now else { return }
            coreWake = nil
            try feed(.tick)
        case .turn(let id, let life):
            guard let machine = machines[id], machine.life == life, machine.turnAt == now else { return }
            machine.turnAt = nil
            turn(machine)
        case .observed(let id, let life, let observation):
            guard let machine = machines[id], machine.isUp, machine.life == life else { return }
            perform(machine.reconciler.observe(observation, now: time), on: machine)
            wake(machine, after: 10)
        case .reports(let id, let life, let reports):
            guard let machine = machines[id], machine.life == life else { return }
            if machine.isHeard, !machine.isRemoved {
                propose(.recordTasks(RecordTasks(reports: reports)))
            } else {
                for report in reports { machine.reported[report.task] = nil }
            }
        case .watch:
            try watch()
            put(.watch, after: 250)
        case .churn:
            guard isChurning else { return }
            // Troubles seldom come singly.
            let count = Int.random(in: 0..<4, using: &random) == 0 ? 6 : 1
            for _ in 0..<count { try churn() }
            put(.churn, after: UInt64.random(in: 50...400, using: &random))
        }
    }

    // MARK: - The log

    func propose(_ change: Change) { propose(change, token: nil) }

    private func propose(_ change: Change, token: UInt64?) {
        do { append(try Command(at: time, change: change).encoded(), token: token) } catch {
            preconditionFailure("a change of the simulation cannot be encoded: \(error)")
        }
    }

    private func append(_ payload: [UInt8], token: UInt64?) {
        if pending.isEmpty { put(.commit, after: Self.commitDelay) }
        let index = lastIndex + UInt64(pending.count) + 1
        pending.append(
            Entrant(entry: Entry(index: index, term: term, kind: .command, payload: payload), token: token))
    }

    private func commit() throws {
        guard !pending.isEmpty else { return }
        // Now and then only the first of them: what follows is decided while the rest is under way.
        let isWhole = pending.count == 1 || Int.random(in: 0..<4, using: &random) > 0
        let count = isWhole ? pending.count : Int.random(in: 1..<pending.count, using: &random)
        let entries = pending.prefix(count).map(\.entry)
        pending.removeFirst(count)
        if !pending.isEmpty { put(.commit, after: Self.commitDelay) }
        let before = lastIndex
        lastIndex += UInt64(entries.count)
        note(now)
        for entry in entries { entry.payload.withUnsafeBytes { for byte in $0 { note(UInt64(byte)) } } }
        try feed(.committed(entries))
        try follow(after: before)
        commits += 1
        if commits.isMultiple(of: Self.commitsPerPicture) { try comparePictures() }
    }

    private func comparePictures() throws {
        guard var kept = core.cluster else { return }
        let made = try state.read { state in
            try kept.refresh(state)
            return try ClusterPicture(state)
        }
        if kept != made { throw Violation(.pictureKept, "after \(commits) commits, at index \(lastIndex)") }
    }

    private func note(_ value: UInt64) { trace = (trace ^ value) &* 0x0000_0100_0000_01b3 }

    private func feed(_ event: NodeCore.Event) throws {
        for effect in try core.step(event, now: time) {
            switch effect {
            case .propose(let proposals):
                for proposal in proposals {
                    append(proposal.payload, token: proposal.token)
                    guard let last = pending.last else { continue }
                    try feed(.accepted(Accepted(token: proposal.token, position: last.entry.position)))
                }
            case .placement(let app, let reason): refusals[app] = reason
            case .publish(_, let balancing): try feed(.programmed(balancing.index))
            case .halt(let message): throw Violation(.noTrap, message)
            // Its own machine is none of the fleet's.
            case .perform, .applied, .compare, .nodes, .caughtUp, .checkpoint, .release, .inForce: break
            }
        }
        guard let at = core.wakeAt else { return }
        let wake = max(now + 1, UInt64(max(0, at.milliseconds - Self.begin)))
        if coreWake.map({ wake < $0 || $0 <= now }) ?? true {
            coreWake = wake
            queue.put(.core, at: wake)
        }
    }

    /// Another member leads. What was not committed is lost from some place on.
    func changeLeader() throws {
        term += 1
        let kept = pending.isEmpty ? 0 : Int.random(in: 0...pending.count, using: &random)
        for entrant in pending[kept...] {
            let command = try Command(decoding: entrant.entry.payload)
            // The node says it again.
            if case .recordTasks(let records) = command.change {
                for machine in machines.values { for report in records.reports { machine.reported[report.task] = nil } }
            }
        }
        pending.removeSubrange(kept...)
        while !pending.isEmpty { try commit() }
        core = NodeCore(node: "leader", state: state, seed: random.next(), meta: try state.read { try $0.meta() })
        refusals = [:]
        coreWake = nil
        detector = FailureDetector(since: Int64(now))
        for machine in machines.values { machine.reported = [:] }
        try lead()
    }

    private func lead() throws {
        try feed(.leadership(NodeCore.Leadership(isReady: true, hasLeader: true)))
        try feed(.current(at: lastIndex))
    }

    /// Hands what was committed to whom it concerns, and looks at it.
    private func follow(after before: UInt64) throws {
        guard case .events(let events, _) = try state.events(after: before, limit: 1_000_000) else {
            throw Violation(.noTrap, "events of the last commit are gone")
        }
        var tasks: Set<TaskID> = []
        var nodes = false
        for event in events {
            if event.kind == .task { tasks.insert(TaskID(event.name)) }
            if event.kind == .node { nodes = true }
        }
        if nodes { check.update(nodes: try state.read { try $0.nodes() }) }
        for id in tasks.sorted() {
            let row = try state.read { try $0.task(id) }
            if let fault = check.follow(id, row) { throw fault }
            guard let machine = machines[check.node(of: id) ?? row?.node ?? ""] else { continue }
            machine.known.insert(id)
            if machine.hears, machine.isUp {
                machine.inbox[id] = .some(row)
                wake(machine, after: 5)
            }
            if row == nil { check.forget(id) }
        }
        if nodes { try dismissRemoved() }
    }

    private func dismissRemoved() throws {
        for machine in machines.values.sorted(by: { $0.id < $1.id })
        where !machine.isRemoved && machine.hears && check.nodes[machine.id] == nil && nodesMade > 0 {
            guard check.hasJoined.contains(machine.id) else { continue }
            machine.isRemoved = true
            machine.losePower()
        }
    }

    // MARK: - Machines

    func wake(_ machine: Machine, after delay: UInt64) {
        guard machine.isUp, !machine.isRemoved else { return }
        let at = now + max(1, delay)
        if let planned = machine.turnAt, planned <= at, planned > now { return }
        machine.turnAt = at
        queue.put(.turn(machine.id, life: machine.life), at: at)
    }

    private func turn(_ machine: Machine) {
        guard machine.isUp, !machine.isRemoved else { return }
        if !machine.inbox.isEmpty {
            let rows = machine.inbox
            machine.inbox = [:]
            for (id, row) in rows {
                if row?.status.state.isTerminal ?? true { machine.reported[id] = nil }
                if row == nil { machine.known.remove(id) }
            }
            perform(machine.reconciler.update(rows, now: time), on: machine)
        }
        // Rules follow at once; who is cut off keeps those it had.
        if machine.hears {
            machine.reconciler.programmed(lastIndex)
            machine.reconciler.released(lastIndex)
        }
        let output = machine.reconciler.next(now: time)
        perform(output.actions, on: machine)
        if machine.isHeard {
            let news = output.reports.filter { machine.reported[$0.task] != $0.status }
                .prefix(NodeCore.reportsPerEntry)
            if !news.isEmpty {
                for report in news { machine.reported[report.task] = report.status }
                put(
                    .reports(machine.id, life: machine.life, Array(news)),
                    after: UInt64.random(in: 1...5, using: &random))
                if news.count == NodeCore.reportsPerEntry { wake(machine, after: 5) }
            }
        }
        if let at = output.wakeAt {
            wake(machine, after: UInt64(max(1, at.milliseconds - time.milliseconds)))
        }
    }

    private func perform(_ actions: [Action], on machine: Machine) {
        for action in actions {
            for (after, observation) in machine.perform(action, at: time, using: &random) {
                put(.observed(machine.id, life: machine.life, observation), after: after)
            }
        }
    }

    /// It can be reached again, or its daemon starts: it reads what it missed.
    func catchUp(_ machine: Machine) throws {
        guard machine.isUp, machine.hears, !machine.isRemoved else { return }
        if check.hasJoined.contains(machine.id), check.nodes[machine.id] == nil { return try dismissRemoved() }
        machine.reported = [:]
        try state.read { state in
            let living = try state.livingTasks(node: machine.id)
            machine.known.formUnion(living.map(\.id))
            for row in living { machine.inbox[row.id] = .some(row) }
            for id in machine.known where machine.inbox[id] == nil { machine.inbox[id] = .some(try state.task(id)) }
        }
        wake(machine, after: 5)
    }

    // MARK: - Who answers

    private func watch() throws {
        for machine in machines.values where machine.isUp && machine.isHeard && !machine.isRemoved {
            detector.heard(of: machine.id, at: Int64(now))
        }
        let rows = check.nodes.values.sorted { $0.name < $1.name }
        let items = detector.judge(rows, at: Int64(now))
        if !items.isEmpty { propose(.setLiveness(SetLiveness(items: items))) }
        if let fault = try check.look(at: self) { throw fault }
    }
}
