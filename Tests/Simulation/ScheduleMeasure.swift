// SPDX-License-Identifier: Apache-2.0

internal import Model
internal import Orchestrator
internal import Raft
internal import Store
internal import TestSupport

/// How long it takes to find nodes for tasks: `Benchmarks/run scheduler` prints it beside its aims.
///
/// One line a figure, `name<TAB>milliseconds`, one round after the other.
func measureScheduling(_ arguments: [String]) -> Int32 {
    let nodes = Int(Simulate.number("--nodes", arguments, or: 1_000))
    let tasks = Int(Simulate.number("--tasks", arguments, or: 10_000))
    do {
        for _ in 0..<Simulate.number("--rounds", arguments, or: 10) {
            let bench = try ScheduleMeasure(nodes: nodes, tasks: tasks)
            for (name, duration) in try bench.run() {
                let (seconds, attoseconds) = duration.components
                say("\(name)\t\(Double(seconds) * 1e3 + Double(attoseconds) / 1e15)")
            }
        }
        return 0
    } catch {
        say("error: \(error)")
        return 1
    }
}

private struct ScheduleMeasure {
    let state: StateMachine
    let nodes: Int
    let tasks: Int
    let at = Timestamp(milliseconds: 1_000_000)
    /// So many apps share the tasks.
    static let apps = 100

    init(nodes: Int, tasks: Int) throws {
        state = try StateMachine(path: nil)
        self.nodes = nodes
        self.tasks = tasks
    }

    private func command(_ change: Change) -> Command { Command(at: at, change: change) }

    private func apply(_ changes: [Change], from index: UInt64) throws -> UInt64 {
        var index = index
        let inputs = changes.map { change in
            index += 1
            return StateMachine.Input(index: index, term: 1, command: command(change))
        }
        for result in try state.apply(inputs).results {
            if case .refused(let problem) = result.outcome { throw problem }
        }
        return index
    }

    private func node(_ number: Int) -> NodeRow {
        NodeRow(
            id: NodeID("n\(10_000 + number)"), name: "node-\(10_000 + number)", member: UInt64(number),
            address: "10.0.0.1",
            subnet: IPv4Subnet(IPv4Address(value: 10 << 24 | UInt32(number) << 8), prefix: 24),
            labels: ["zone": "z\(number % 3)", "disk": number.isMultiple(of: 2) ? "ssd" : "hdd"],
            taints: number % 50 == 0 ? ["gpu"] : [], cpuMillis: 16_000, memoryBytes: 64 << 30, version: "1")
    }

    private func app(_ number: Int, replicas: Int) -> PutApp {
        let constraints = number.isMultiple(of: 3) ? ["node.labels.disk == ssd"] : []
        return PutApp(
            spec: AppSpec(
                key: ObjectKey(name: "app-\(number)"),
                services: [
                    ServiceSpec(
                        name: "app-\(number)", image: "web:1", replicas: replicas,
                        resources: Resources(reservedCpuMillis: 50, reservedMemoryBytes: 64 << 20),
                        placement: Placement(constraints: constraints, spread: number % 4 == 0 ? ["disk"] : []))
                ]))
    }

    func run() throws -> [(String, Duration)] {
        let clock = ContinuousClock()
        var index = try apply([.initializeCluster(InitializeCluster(clusterID: "bench", ranges: .standard))], from: 0)
        for number in 1...nodes {
            let row = node(number)
            index = try apply(
                [
                    .putNode(row),
                    .setNode(SetNode(node: row.id, labels: row.labels.mapValues { $0 }, addTaints: row.taints)),
                ], from: index)
        }
        var core = NodeCore(node: "leader", state: state, seed: 1, meta: try state.read { try $0.meta() })
        _ = try core.step(.current(at: index), now: at)
        _ = try core.step(.leadership(NodeCore.Leadership(isReady: true, hasLeader: true)), now: at)
        let share = tasks / Self.apps
        let deploys = try (1...Self.apps).map { number in
            Entry(
                index: index + UInt64(number), term: 1, kind: .command,
                payload: try command(.putApp(app(number, replicas: share))).encoded())
        }
        index += UInt64(deploys.count)
        // The decisions alone: read the state, find nodes and addresses, say so.
        var figures: [(String, Duration)] = []
        let begun = clock.now
        let effects = try core.step(.committed(deploys), now: at)
        figures.append(("all decided", clock.now - begun))
        let placed = try commit(effects, &core, &index)
        guard placed == share * Self.apps else { throw Problem(.internal, "\(placed) tasks were placed") }
        figures.append(("all applied", clock.now - begun))

        // One more on a cluster that is full of them.
        let service = try state.read { try $0.services(of: ObjectKey(name: "app-1")) }
        guard let service = service.first else { throw Problem(.internal, "no service") }
        var scheduler = try state.read { Scheduler(try ClusterPicture($0), now: at) }
        var random = SplitMix64(seed: 2)
        for _ in 0..<20 {
            let one = clock.now
            let found = try scheduler.place(service, count: 1, using: &random) { node in
                try state.read { try $0.addresses(in: node.subnet) }
            }
            figures.append(("one placed", clock.now - one))
            guard found.tasks.count == 1 else { throw Problem(.internal, "no node was found for one more") }
        }
        // The same from the change to the decision, with the state as it is then.
        for extra in 1...5 {
            let change = Change.scaleService(
                ScaleService(app: ObjectKey(name: "app-1"), service: "app-1", replicas: share + extra))
            index += 1
            let entry = Entry(index: index, term: 1, kind: .command, payload: try command(change).encoded())
            let one = clock.now
            let effects = try core.step(.committed([entry]), now: at)
            figures.append(("one decided", clock.now - one))
            guard try commit(effects, &core, &index) == 1 else { throw Problem(.internal, "not one task was placed") }
        }
        return figures
    }

    /// Commits what the core proposes until it proposes nothing more.
    /// - Returns: how many tasks that placed.
    private func commit(_ effects: [NodeCore.Effect], _ core: inout NodeCore, _ index: inout UInt64) throws -> Int {
        var placed = 0
        var effects = effects
        while true {
            var entries: [Entry] = []
            for case .propose(let proposals) in effects {
                for proposal in proposals {
                    index += 1
                    let entry = Entry(index: index, term: 1, kind: .command, payload: proposal.payload)
                    _ = try core.step(.accepted(Accepted(token: proposal.token, position: entry.position)), now: at)
                    if case .assignTasks(let tasks) = try Command(decoding: proposal.payload).change {
                        placed += tasks.tasks.count
                    }
                    entries.append(entry)
                }
            }
            if entries.isEmpty { return placed }
            effects = try core.step(.committed(entries), now: at)
        }
    }
}
