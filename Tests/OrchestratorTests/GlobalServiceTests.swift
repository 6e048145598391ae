// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// Services with one task on every node that may run it, run to rest by the product's own state, rollout and scheduler.
@Suite struct GlobalServiceTests {
    private let key = ObjectKey(name: "agent")

    private func deploy(image: String = "agent:1", mounts: [MountSpec] = []) -> Change {
        .putApp(
            PutApp(
                spec: AppSpec(
                    key: key, services: [ServiceSpec(name: "agent", image: image, mounts: mounts, mode: .global)])))
    }

    private func ground(mounts: [MountSpec] = []) throws -> Ground {
        var ground = try Ground(nodes: 3)
        try ground.apply(.putNode(Ground.node(4, taints: ["gpu"])))
        try ground.apply(deploy(mounts: mounts))
        _ = try ground.settle(key)
        return ground
    }

    @Test func `every node that may run it has one, a new node gets one, a drained one loses it`() throws {
        var ground = try ground()
        #expect(try ground.places(key) == ["n1", "n2", "n3"])
        try ground.apply(.putNode(Ground.node(5)))
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
        #expect(try ground.settle(key).fewestNodes == 3)
        #expect(try ground.places(key) == ["n1", "n2", "n3"])
        let tasks = try ground.state.read { try $0.tasks(app: key) }.filter { $0.goal == .run }
        #expect(tasks.allSatisfy { $0.spec.image == "agent:2" })
        #expect(try ground.state.read { try $0.rollout(app: key) }?.state == .succeeded)
    }

    @Test func `what writes a path of its node is stopped first, on one node at a time`() throws {
        var ground = try ground(mounts: [MountSpec(source: .bind("/srv"), target: "/srv")])
        try ground.apply(deploy(image: "agent:2", mounts: [MountSpec(source: .bind("/srv"), target: "/srv")]))
        #expect(try ground.settle(key).fewestNodes == 2)
        #expect(try ground.places(key) == ["n1", "n2", "n3"])
    }

    @Test func `it cannot be scaled`() throws {
        var ground = try ground()
        #expect(throws: Problem.self) {
            try ground.apply(.scaleService(ScaleService(app: key, service: "agent", replicas: 5)))
        }
    }

    private func reserving(_ image: String, _ memoryBytes: Int64) -> Change {
        .putApp(
            PutApp(
                spec: AppSpec(
                    key: key,
                    services: [
                        ServiceSpec(
                            name: "agent", image: image, resources: Resources(reservedMemoryBytes: memoryBytes),
                            mode: .global)
                    ])))
    }

    private func rollout(_ ground: Ground) throws -> RolloutView.State? {
        try ground.state.read { try $0.rollout(app: key) }?.state
    }

    @Test func `a node without room fails no rollout, and gets its task when there is room`() throws {
        var ground = try Ground(nodes: 3)
        // Fills one of them.
        let big = ObjectKey(name: "big")
        try ground.apply(
            .putApp(
                PutApp(
                    spec: AppSpec(
                        key: big,
                        services: [
                            ServiceSpec(
                                name: "big", image: "big:1", resources: Resources(reservedMemoryBytes: 900 << 20),
                                placement: Placement(constraints: ["node.id == n2"]))
                        ]))))
        _ = try ground.settle(big)
        try ground.apply(reserving("agent:1", 400 << 20))
        #expect(try ground.settle(key).refusal?.code == .memoryShort)
        #expect(try ground.places(key) == ["n1", "n3"])
        #expect(try rollout(ground) == .succeeded)
        // The next release, which has no room beside the one before on any node: one makes place for the other.
        try ground.apply(reserving("agent:2", 600 << 20))
        _ = try ground.settle(key)
        #expect(try ground.places(key) == ["n1", "n3"])
        #expect(try rollout(ground) == .succeeded)
        try ground.apply(.scaleService(ScaleService(app: big, service: "big", replicas: 0)))
        _ = try ground.settle(big)
        #expect(try ground.settle(key).refusal == nil)
        #expect(try ground.places(key) == ["n1", "n2", "n3"])
    }

    @Test func `a node that is down keeps its task, one that is removed loses it`() throws {
        var ground = try ground()
        func liveness(_ liveness: NodeRow.Liveness) -> Change {
            .setLiveness(SetLiveness(items: [SetLiveness.Item(node: "n2", liveness: liveness)]))
        }
        try ground.apply(liveness(.down))
        _ = try ground.settle(key)
        #expect(try ground.places(key) == ["n1", "n2", "n3"])
        try ground.apply(liveness(.ready))
        let before = try ground.state.read { try $0.tasks(app: key) }.filter { $0.goal == .run }.map(\.id)
        _ = try ground.settle(key)
        #expect(try ground.state.read { try $0.tasks(app: key) }.filter { $0.goal == .run }.map(\.id) == before)
        try ground.apply(.removeNode(NodeChange(node: "n2")))
        #expect(try ground.settle(key).refusal == nil)
        #expect(try ground.places(key) == ["n1", "n3"])
    }

    @Test func `between global and replicated it goes both ways without a gap`() throws {
        var ground = try ground()
        let spec = ServiceSpec(name: "agent", image: "agent:1", replicas: 2)
        try ground.apply(.putApp(PutApp(spec: AppSpec(key: key, services: [spec]))))
        #expect(try ground.settle(key).fewestNodes >= 2)
        #expect(try ground.places(key).count == 2)
        try ground.apply(deploy())
        #expect(try ground.settle(key).fewestNodes >= 1)
        #expect(try ground.places(key) == ["n1", "n2", "n3"])
        #expect(try rollout(ground) == .succeeded)
    }

    @Test func `a release that fails goes back on every node`() throws {
        var ground = try ground()
        let before = Set(try ground.state.read { try $0.tasks(app: key) }.filter { $0.goal == .run }.map(\.id))
        try ground.apply(deploy(image: "agent:2"))
        let id = try #require(try ground.state.read { try $0.rollout(app: key) }?.id)
        try ground.apply(
            .endRollout(EndRollout(id: id, outcome: .failed(Reason(.crashLoop, "keeps ending"), task: nil))))
        _ = try ground.settle(key)
        #expect(try rollout(ground) == .rolledBack)
        let after = Set(try ground.state.read { try $0.tasks(app: key) }.filter { $0.goal == .run }.map(\.id))
        #expect(after == before, "what ran before never left")
    }
}
