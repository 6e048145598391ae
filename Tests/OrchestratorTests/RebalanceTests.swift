// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// Moves that make things more even, planned on the product's own state and carried out by its rollout.
@Suite struct RebalanceTests {
    private func ground(nodes: Int, zones: [Int: String] = [:]) throws -> Ground {
        var ground = try Ground(nodes: nodes)
        for (number, zone) in zones { try name(number, zone, in: &ground) }
        return ground
    }

    private func add(_ number: Int, _ zone: String?, _ ground: inout Ground) throws {
        try ground.apply(.putNode(Ground.node(number)))
        if let zone { try name(number, zone, in: &ground) }
    }

    private func name(_ number: Int, _ zone: String, in ground: inout Ground) throws {
        try ground.apply(.setNode(SetNode(node: Ground.node(number).id, labels: ["zone": zone])))
    }

    private func plan(_ ground: Ground) throws -> [Rebalance.Move] {
        try ground.state.read { state in
            let apps = try state.apps().compactMap { try AppPicture(state, $0.key) }
            return Rebalance.plan(apps, Scheduler(try ClusterPicture(state), now: ground.now))
        }
    }

    private func deploy(
        _ name: String, _ replicas: Int, mounts: [MountSpec] = [], mode: ServiceMode? = nil, _ ground: inout Ground
    ) throws {
        let spec = ServiceSpec(name: name, image: "web:1", replicas: replicas, mounts: mounts, mode: mode)
        try ground.apply(.putApp(PutApp(spec: AppSpec(key: ObjectKey(name: name), services: [spec]))))
        _ = try ground.settle(ObjectKey(name: name))
    }

    @Test func `a new node gets its share, replacements run first, and then nothing is left to move`() throws {
        let key = ObjectKey(name: "web")
        var ground = try ground(nodes: 2)
        try deploy("web", 9, &ground)
        #expect(try plan(ground).isEmpty)
        try add(3, nil, &ground)
        let moves = try plan(ground)
        #expect(moves.count == 3)
        #expect(moves.allSatisfy { $0.to == "n3" })
        #expect(moves.first?.why == "`node-1` has 5 of it, `node-3` has 0")
        try ground.apply(.moveTasks(MoveTasks(tasks: moves.map(\.task), moving: true)))
        let seen = try ground.settle(key)
        #expect(seen.fewest == 9)
        #expect(seen.most <= 10)
        #expect(try ground.perNode(key) == ["n1": 3, "n2": 3, "n3": 3])
        #expect(try plan(ground).isEmpty)
        #expect(try ground.state.read { try $0.movingTasks(limit: 10) }.isEmpty)
    }

    @Test func `zones come before nodes, and a difference of one moves nothing`() throws {
        var ground = try ground(nodes: 2, zones: [1: "a", 2: "a"])
        try deploy("web", 5, &ground)
        try add(3, "b", &ground)
        let moves = try plan(ground)
        #expect(moves.count == 2)
        #expect(moves.first?.why == "zone=a has 5 of it, zone=b has 0")
        try ground.apply(.moveTasks(MoveTasks(tasks: moves.map(\.task), moving: true)))
        _ = try ground.settle(ObjectKey(name: "web"))
        #expect(try ground.perNode(ObjectKey(name: "web"))["n3"] == 2)
        #expect(try plan(ground).isEmpty)
    }

    @Test func `apps of one task each spread over the nodes, too`() throws {
        var ground = try ground(nodes: 1)
        for name in ["a", "b", "c", "d"] { try deploy(name, 1, &ground) }
        try add(2, nil, &ground)
        let moves = try plan(ground)
        #expect(moves.count == 2)
        #expect(moves.first?.why == "`node-1` has 4 tasks, `node-2` has 0")
    }

    @Test func `what writes a volume, is global or goes nowhere better stays`() throws {
        var ground = try ground(nodes: 1)
        try deploy("db", 3, mounts: [MountSpec(source: .volume("data"), target: "/data")], &ground)
        try deploy("agent", 1, mode: .global, &ground)
        try deploy("web", 6, &ground)
        try add(2, nil, &ground)
        try ground.apply(.setNode(SetNode(node: "n2", availability: .cordoned)))
        #expect(try plan(ground).isEmpty)
        try ground.apply(.setNode(SetNode(node: "n2", availability: .active)))
        #expect(Set(try plan(ground).map(\.app.name)) == ["web"])
    }
}
