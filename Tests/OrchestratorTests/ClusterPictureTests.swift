// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// A picture that follows what commands touch is the one that is made anew.
@Suite struct ClusterPictureTests {
    /// One cluster with things happening to it, drawn from a seed.
    private struct Ground {
        let state: StateMachine
        var random: SplitMix64
        var now = Timestamp(milliseconds: 1_000_000)
        var index: UInt64 = 0
        var nodesMade = 0

        /// - Returns: what the command touched; refusals are part of the run.
        mutating func apply(_ changes: [Change]) throws -> Touched {
            let inputs = changes.map { change in
                index += 1
                return StateMachine.Input(index: index, term: 1, command: Command(at: now, change: change))
            }
            now = now + 500
            return try state.apply(inputs).touched
        }

        mutating func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &random) }

        mutating func app() -> ObjectKey { ObjectKey(name: "app-\(number(1...6))") }

        mutating func node() throws -> NodeID? {
            try state.read { try $0.nodes() }.map(\.id).randomElement(using: &random)
        }

        mutating func some(_ fits: (TaskRow) -> Bool) throws -> [TaskRow] {
            let all = try state.read { try $0.tasks() }.filter(fits)
            return Array(all.shuffled(using: &random).prefix(number(1...5)))
        }

        mutating func addNode() -> Change {
            nodesMade += 1
            // Not in the order of their ids, so that a new one changes the places of others.
            let number = nodesMade * 7 % 31
            return .putNode(
                NodeRow(
                    id: NodeID("n\(number)-\(nodesMade)"), name: "node-\(nodesMade)", member: UInt64(nodesMade),
                    address: "10.0.0.1",
                    subnet: IPv4Subnet(IPv4Address(value: 10 << 24 | 210 << 16 | UInt32(nodesMade) << 8), prefix: 24),
                    cpuMillis: 4000, memoryBytes: 4 << 30, version: "1"))
        }

        mutating func spec(_ key: ObjectKey) -> AppSpec {
            let services = (1...number(1...3)).map { service in
                ServiceSpec(
                    name: "service-\(service)", image: "web:\(number(1...3))", replicas: number(1...4),
                    mounts: number(0...3) == 0
                        ? [MountSpec(source: .volume("data-\(number(1...4))"), target: "/data")] : [],
                    ports: number(0...3) == 0
                        ? [PortSpec(hostPort: UInt16(number(8001...8003)), containerPort: 80, mode: .host)] : [],
                    resources: Resources(
                        reservedCpuMillis: Bool.random(using: &random) ? 50 * number(1...3) : nil,
                        reservedMemoryBytes: Bool.random(using: &random) ? 1 << 20 : nil))
            }
            return AppSpec(key: key, services: services)
        }

        mutating func assign() throws -> Change? {
            guard let service = try state.read({ try $0.services() }).randomElement(using: &random) else { return nil }
            let key = service.app
            let tasks = try (1...number(1...4)).compactMap { _ -> NewTask? in
                guard let id = try node(), let row = try state.read({ try $0.node(id) }) else { return nil }
                let address = IPv4Address(value: row.subnet.network.value + UInt32(number(10...250)))
                return NewTask(
                    id: TaskID(IdentifierMaker.make(using: &random)), app: key, service: service.name,
                    generation: service.generation, node: id, address: address)
            }
            return tasks.isEmpty ? nil : .assignTasks(AssignTasks(tasks: tasks))
        }

        mutating func record() throws -> Change? {
            let rows = try some { !$0.status.state.isTerminal }
            guard !rows.isEmpty else { return nil }
            return .recordTasks(
                RecordTasks(
                    reports: rows.map { row in
                        var status = row.status
                        status.state = [.running, .running, .stopped, .failed][number(0...3)]
                        status.ready = status.state == .running
                        return TaskReport(task: row.id, status: status)
                    }))
        }

        mutating func change() throws -> Change? {
            let volume = ObjectKey(name: "data-\(number(1...4))")
            switch number(-1...20) {
            case -1...0: return addNode()
            case 1...2:
                guard let id = try node() else { return nil }
                let availability: NodeRow.Availability = [.active, .active, .cordoned, .drained][number(0...3)]
                return .setNode(
                    SetNode(node: id, availability: availability, labels: ["zone": "z\(number(1...3))"]))
            case 3:
                guard let id = try node() else { return nil }
                return .setLiveness(SetLiveness(items: [.init(node: id, liveness: [.ready, .down][number(0...1)])]))
            case 4: return try node().map { .removeNode(NodeChange(node: $0)) }
            case 5...7: return .putApp(PutApp(spec: spec(app())))
            case 8:
                let key = app()
                return .scaleService(
                    ScaleService(app: key, service: "service-\(number(1...3))", replicas: number(0...5)))
            case 9: return .deleteApp(AppChange(app: app()))
            case 10: return .removeApp(AppChange(app: app()))
            case 11...14: return try assign()
            case 15:
                let rows = try some { $0.goal == .run }
                return .stopTasks(StopTasks(tasks: rows.map(\.id), reason: Reason(.stopped, "no more")))
            case 16...18: return try record()
            case 19: return .removeTasks(RemoveTasks(tasks: try some { $0.status.state.isTerminal }.map(\.id)))
            default:
                return Bool.random(using: &random)
                    ? .deleteVolume(VolumeChange(volume: volume)) : .removeVolume(VolumeChange(volume: volume))
            }
        }
    }

    @Test(arguments: UInt64(1)...8)
    func `after any commands the picture that is kept is the one made anew`(seed: UInt64) throws {
        var ground = Ground(state: try StateMachine(path: nil), random: SplitMix64(seed: seed))
        _ = try ground.apply([.initializeCluster(InitializeCluster(clusterID: "test", ranges: .standard))])
        for _ in 1...5 { _ = try ground.apply([ground.addNode()]) }
        var kept = try ground.state.read { try ClusterPicture($0) }
        var seen = (tasks: 0, volumes: 0)
        for step in 1...250 {
            var changes: [Change] = []
            for _ in 1...ground.number(1...3) { if let change = try ground.change() { changes.append(change) } }
            kept.note(try ground.apply(changes))
            // Now and then much has to be read again at once.
            guard ground.number(0...3) > 0 else { continue }
            try ground.state.read { state in
                try kept.refresh(state)
                #expect(kept == (try ClusterPicture(state)), "seed \(seed), step \(step), after \(changes)")
                seen.tasks += try state.taskCounts().map(\.living).reduce(0, +)
                seen.volumes += try state.volumeHomes().count
            }
        }
        #expect(seen.tasks > 100 && seen.volumes > 20, "too little happened: \(seen)")
    }
}
