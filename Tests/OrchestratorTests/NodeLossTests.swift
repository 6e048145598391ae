// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// What becomes of the tasks of an app when its nodes come and go.
@Suite struct NodeLossTests {
    private let key = ObjectKey(name: "web")
    private let begin = Timestamp(milliseconds: 1_000_000)

    /// Two nodes with a replica each that runs and has proved itself.
    private struct Ground {
        let state: StateMachine
        var index: UInt64 = 0
        let at: Timestamp

        mutating func apply(_ change: Change) throws {
            index += 1
            let (results, _) = try state.apply([
                .init(index: index, term: 1, command: Command(at: at, change: change))
            ])
            if case .refused(let problem) = results.first?.outcome { throw problem }
        }
    }

    private func row(_ number: Int) -> NodeRow {
        NodeRow(
            id: NodeID("n\(number)"), name: "node-\(number)", member: UInt64(number), address: "10.0.0.\(number)",
            subnet: IPv4Subnet(IPv4Address(value: 10 << 24 | 210 << 16 | UInt32(number) << 8), prefix: 24),
            cpuMillis: 1000, memoryBytes: 1 << 30, version: "1")
    }

    private func task(_ number: Int, on node: Int) -> NewTask {
        NewTask(
            id: TaskID("t\(number)"), app: key, service: "web", generation: 1, node: NodeID("n\(node)"),
            address: IPv4Address(value: 10 << 24 | 210 << 16 | UInt32(node) << 8 | UInt32(10 + number)))
    }

    private func running(_ ids: [TaskID]) -> Change {
        .recordTasks(
            RecordTasks(
                reports: ids.map {
                    TaskReport(task: $0, status: TaskStatus(state: .running, ready: true, startedAt: begin))
                }))
    }

    private func ground(_ mounts: [MountSpec] = []) throws -> Ground {
        var ground = Ground(state: try StateMachine(path: nil), at: begin)
        for number in 1...2 { try ground.apply(.putNode(row(number))) }
        let spec = ServiceSpec(name: "web", image: "web:1", replicas: 2, mounts: mounts)
        try ground.apply(.putApp(PutApp(spec: AppSpec(key: key, services: [spec]))))
        try ground.apply(.assignTasks(AssignTasks(tasks: [task(1, on: 1), task(2, on: 2)])))
        try ground.apply(running(["t1", "t2"]))
        // The rollout ends, so that only the nodes are left to react to.
        for change in try next(ground).changes { try ground.apply(change) }
        #expect(try next(ground).isEmpty)
        return ground
    }

    private func next(_ ground: Ground) throws -> Rollout.Step {
        let picture = try ground.state.read { try AppPicture($0, key) }
        return Rollout.next(try #require(picture), now: begin + 60_000)
    }

    private func stops(_ step: Rollout.Step) -> [StopTasks] {
        step.changes.compactMap { change in if case .stopTasks(let stop) = change { stop } else { nil } }
    }

    private func liveness(_ liveness: NodeRow.Liveness) -> Change {
        .setLiveness(SetLiveness(items: [SetLiveness.Item(node: "n2", liveness: liveness)]))
    }

    @Test func `the tasks of a node that is down are replaced and told to stop`() throws {
        var ground = try ground()
        try ground.apply(liveness(.suspect))
        #expect(try next(ground).isEmpty)
        try ground.apply(liveness(.down))
        let step = try next(ground)
        #expect(stops(step).map(\.tasks) == [["t2"]])
        #expect(stops(step).map(\.reason.code) == [.nodeDown])
        #expect(step.create.map(\.count) == [1])
        // Told once; its own report does not bring it back.
        for change in step.changes { try ground.apply(change) }
        try ground.apply(.assignTasks(AssignTasks(tasks: [task(3, on: 1)])))
        try ground.apply(running(["t3"]))
        try ground.apply(liveness(.ready))
        #expect(try next(ground).isEmpty)
    }

    @Test(arguments: [NodeRow.Liveness.ready, .suspect, .down])
    func `the tasks of a node that is removed are replaced, whatever was known of it`(known: NodeRow.Liveness) throws {
        var ground = try ground()
        if known != .ready { try ground.apply(liveness(known)) }
        try ground.apply(.removeNode(NodeChange(node: "n2")))
        let lost = try #require(try ground.state.read { try $0.task("t2") })
        #expect(lost.status.state == .failed && lost.status.reason?.code == .nodeLost)
        #expect(try next(ground).create.map(\.count) == [1])
        try ground.apply(.assignTasks(AssignTasks(tasks: [task(3, on: 1)])))
        try ground.apply(running(["t3"]))
        #expect(try next(ground).isEmpty)
    }

    @Test(arguments: [true, false])
    func `a volume of a node that is removed is deleted without it`(isMarkedBefore: Bool) throws {
        var ground = try ground()
        let volume = ObjectKey(name: "data")
        let changes: [Change] = [.deleteVolume(VolumeChange(volume: volume)), .removeNode(NodeChange(node: "n2"))]
        try ground.apply(.putVolume(PutVolume(volume: volume, node: "n2")))
        for change in isMarkedBefore ? changes : changes.reversed() {
            #expect(try ground.state.read { try $0.volume(volume) } != nil)
            try ground.apply(change)
        }
        #expect(try ground.state.read { try $0.volume(volume) } == nil)
    }

    @Test func `what writes a volume waits for its node`() throws {
        var ground = try ground([MountSpec(source: .volume("data"), target: "/data")])
        try ground.apply(liveness(.down))
        #expect(try next(ground).isEmpty)
    }

    @Test func `a drained node is emptied only as replacements prove themselves`() throws {
        var ground = try ground()
        try ground.apply(.setNode(SetNode(node: "n2", availability: .drained)))
        let first = try next(ground)
        #expect(stops(first).isEmpty)
        #expect(first.create.map(\.count) == [1])
        try ground.apply(.assignTasks(AssignTasks(tasks: [task(3, on: 1)])))
        #expect(try next(ground).isEmpty)
        try ground.apply(running(["t3"]))
        let second = try next(ground)
        #expect(stops(second).map(\.tasks) == [["t2"]])
        #expect(stops(second).map(\.reason.code) == [.nodeDrained])
        #expect(second.create.isEmpty)
    }

    @Test func `a cordoned node keeps what it has`() throws {
        var ground = try ground()
        try ground.apply(.setNode(SetNode(node: "n2", availability: .cordoned)))
        #expect(try next(ground).isEmpty)
    }
}
