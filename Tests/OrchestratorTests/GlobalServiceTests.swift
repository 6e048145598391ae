// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// Services with one task on every node that may run it, run to rest by the product's own state, rollout and scheduler.
@Suite struct GlobalServiceTests {
    private let key = ObjectKey(name: "agent")

    private struct Ground {
        let state: StateMachine
        var index: UInt64 = 0
        var now = Timestamp(milliseconds: 1_000_000)
        var random = SplitMix64(seed: 7)

        mutating func apply(_ change: Change) throws {
            index += 1
            let (results, _) = try state.apply([
                .init(index: index, term: 1, command: Command(at: now, change: change))
            ])
            if case .refused(let problem) = results.first?.outcome { throw problem }
        }

        /// Steps until nothing is left to do; tasks start and stop at once.
        /// - Returns: the fewest nodes with a ready task that were seen on the way, and what found no place.
        mutating func settle(_ key: ObjectKey) throws -> (fewest: Int, refusal: Reason?) {
            var fewest = Int.max
            var refusal: Reason?
            for _ in 0..<100 {
                now = now + 5000
                let picture = try #require(try state.read { try AppPicture($0, key) })
                fewest = min(fewest, Set(picture.tasks.filter { $0.goal == .run && $0.status.ready }.map(\.node)).count)
                let step = Rollout.next(picture, now: now)
                var changes = step.changes
                refusal = nil
                for creation in step.create {
                    var scheduler = try state.read { try ClusterPicture.scheduler($0, now: now) }
                    let placed = try scheduler.place(
                        creation.service, count: creation.count, only: creation.nodes, using: &random
                    ) { node in try state.read { try $0.addresses(in: node.subnet) } }
                    refusal = placed.refusal
                    if !placed.tasks.isEmpty { changes.append(.assignTasks(AssignTasks(tasks: placed.tasks))) }
                }
                if changes.isEmpty { return (fewest, refusal) }
                for change in changes { try apply(change) }
                let reports = try state.read { try $0.tasks(app: key) }.map { task in
                    TaskReport(
                        task: task.id,
                        status: task.goal == .run
                            ? TaskStatus(state: .running, ready: true, startedAt: task.status.startedAt ?? now)
                            : TaskStatus(state: .stopped, ready: false))
                }
                try apply(.recordTasks(RecordTasks(reports: reports)))
            }
            Issue.record("did not come to rest")
            return (fewest, refusal)
        }

        func places(_ key: ObjectKey) throws -> [String] {
            try state.read { try $0.tasks(app: key) }.filter { $0.goal == .run }.map(\.node.raw).sorted()
        }
    }

    private func row(_ number: Int, taints: [String] = []) -> NodeRow {
        NodeRow(
            id: NodeID("n\(number)"), name: "node-\(number)", member: UInt64(number), address: "10.0.0.\(number)",
            subnet: IPv4Subnet(IPv4Address(value: 10 << 24 | 210 << 16 | UInt32(number) << 8), prefix: 24),
            taints: taints, cpuMillis: 1000, memoryBytes: 1 << 30, version: "1")
    }

    private func deploy(image: String = "agent:1", mounts: [MountSpec] = []) -> Change {
        .putApp(
            PutApp(
                spec: AppSpec(
                    key: key, services: [ServiceSpec(name: "agent", image: image, mounts: mounts, mode: .global)])))
    }

    private func ground(mounts: [MountSpec] = []) throws -> Ground {
        var ground = Ground(state: try StateMachine(path: nil))
        for number in 1...3 { try ground.apply(.putNode(row(number))) }
        try ground.apply(.putNode(row(4, taints: ["gpu"])))
        try ground.apply(deploy(mounts: mounts))
        _ = try ground.settle(key)
        return ground
    }

    @Test func `every node that may run it has one, a new node gets one, a drained one loses it`() throws {
        var ground = try ground()
        #expect(try ground.places(key) == ["n1", "n2", "n3"])
        try ground.apply(.putNode(row(5)))
        #expect(try ground.settle(key).refusal == nil)
        #expect(try ground.places(key) == ["n1", "n2", "n3", "n5"])
        try ground.apply(.setNode(SetNode(node: "n2", availability: .drained)))
        _ = try ground.settle(key)
        #expect(try ground.places(key) == ["n1", "n3", "n5"])
        try ground.apply(.setNode(SetNode(node: "n3", availability: .cordoned)))
        _ = try ground.settle(key)
        #expect(try ground.places(key) == ["n1", "n3", "n5"])
    }

    @Test func `a new release goes node by node and leaves none without`() throws {
        var ground = try ground()
        try ground.apply(deploy(image: "agent:2"))
        #expect(try ground.settle(key).fewest == 3)
        #expect(try ground.places(key) == ["n1", "n2", "n3"])
        let tasks = try ground.state.read { try $0.tasks(app: key) }.filter { $0.goal == .run }
        #expect(tasks.allSatisfy { $0.spec.image == "agent:2" })
        #expect(try ground.state.read { try $0.rollout(app: key) }?.state == .succeeded)
    }

    @Test func `what writes a path of its node is stopped first, on one node at a time`() throws {
        var ground = try ground(mounts: [MountSpec(source: .bind("/srv"), target: "/srv")])
        try ground.apply(deploy(image: "agent:2", mounts: [MountSpec(source: .bind("/srv"), target: "/srv")]))
        #expect(try ground.settle(key).fewest == 2)
        #expect(try ground.places(key) == ["n1", "n2", "n3"])
    }

    @Test func `it cannot be scaled`() throws {
        var ground = try ground()
        #expect(throws: Problem.self) {
            try ground.apply(.scaleService(ScaleService(app: key, service: "agent", replicas: 5)))
        }
    }
}
