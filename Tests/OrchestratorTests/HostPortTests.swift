// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// Ports in mode `host`: a node gives each to one task, and says so to the next.
@Suite struct HostPortTests {
    private let edge = ObjectKey(name: "edge")

    private func service(
        _ name: String = "edge", image: String = "edge:1", replicas: Int = 1, port: UInt16 = 443,
        mode: ServiceMode? = nil, mounts: [MountSpec] = []
    ) -> ServiceSpec {
        ServiceSpec(
            name: name, image: image, replicas: replicas, mounts: mounts,
            ports: [PortSpec(hostPort: port, containerPort: 80, mode: .host)], mode: mode)
    }

    /// Two living tasks of a node never have the same port of it.
    private func onePerNode(_ tasks: [TaskRow]) {
        let taken = tasks.filter { !$0.status.state.isTerminal }.flatMap { task in
            task.spec.hostPorts.map { "\(task.node) \(HostPort($0))" }
        }
        #expect(Set(taken).count == taken.count, "\(taken)")
    }

    @Test func `a node takes one task, and the refusal names port and owner`() throws {
        var ground = try Ground(nodes: 2)
        try ground.deploy(edge, [service(replicas: 3)])
        let seen = try ground.settle(edge, check: onePerNode)
        #expect(try ground.places(edge) == ["n1", "n2"])
        #expect(seen.refusal?.code == .portInUse)
        #expect(seen.refusal?.message.contains("port 443/tcp is taken by another task of it") == true)
        let other = ObjectKey(name: "other")
        try ground.deploy(other, [service("other")])
        let refused = try ground.settle(other, check: onePerNode)
        #expect(refused.refusal?.message.contains("port 443/tcp is taken by service `edge` of `edge`") == true)
        #expect(refused.refusal?.hint == "choose another port, or: hivemind app info edge")
        // Another port, and the same one of the other protocol, are free.
        var udp = service("udp")
        udp.ports[0].protocol = .udp
        for spec in [service("next", port: 444), udp] {
            let key = ObjectKey(name: spec.name)
            try ground.deploy(key, [spec])
            #expect(try ground.settle(key, check: onePerNode).refusal == nil)
        }
    }

    @Test(arguments: [(UInt16(4484), PortProtocol.tcp), (4483, .tcp), (4789, .udp)])
    func `what the daemon itself listens on is nobody else's`(port: UInt16, transport: PortProtocol) throws {
        var ground = try Ground(nodes: 1)
        var node = Ground.node(2)
        (node.peerAddress, node.apiAddress) = ("10.0.0.2:4484", "10.0.0.2:4483")
        try ground.apply(.putNode(node))
        var spec = service(replicas: 2, port: port)
        spec.ports[0].protocol = transport
        try ground.deploy(edge, [spec])
        let seen = try ground.settle(edge, check: onePerNode)
        #expect(try ground.places(edge) == ["n1"])
        #expect(seen.refusal?.message.contains("port \(port)/\(transport) is the daemon's own") == true)
    }

    @Test func `a release follows the one before on the same nodes, one at a time`() throws {
        var ground = try Ground(nodes: 3)
        try ground.deploy(edge, [service(replicas: 3)])
        _ = try ground.settle(edge)
        try ground.deploy(edge, [service(image: "edge:2", replicas: 3)])
        let seen = try ground.settle(edge, check: onePerNode)
        #expect((seen.fewest, seen.most) == (2, 3))
        #expect(try ground.places(edge) == ["n1", "n2", "n3"])
        #expect(try ground.state.read { try $0.rollout(app: edge) }?.state == .succeeded)
    }

    @Test func `the port of a task is part of what it is`() throws {
        var ground = try Ground(nodes: 1)
        try ground.deploy(edge, [service()])
        _ = try ground.settle(edge)
        try ground.deploy(edge, [service(port: 8443)])
        let seen = try ground.settle(edge, check: onePerNode)
        #expect(seen.refusal == nil)
        let tasks = try ground.state.read { try $0.tasks(app: edge) }.filter { $0.goal == .run }
        #expect(tasks.map { $0.spec.hostPorts.map(\.hostPort) } == [[8443]])
    }

    @Test func `a drained node's task serves until another node has its port`() throws {
        var ground = try Ground(nodes: 3)
        try ground.deploy(edge, [service(replicas: 2)])
        _ = try ground.settle(edge)
        let first = try ground.places(edge)[0]
        try ground.apply(.setNode(SetNode(node: NodeID(first), availability: .drained)))
        let seen = try ground.settle(edge, check: onePerNode)
        #expect((seen.fewest, seen.most) == (2, 3))
        #expect(try !ground.places(edge).contains(first))
        // No third node is left: it stays where it is, with the reason.
        let second = try ground.places(edge)[0]
        try ground.apply(.setNode(SetNode(node: NodeID(second), availability: .drained)))
        let stuck = try ground.settle(edge, check: onePerNode)
        #expect(stuck.refusal != nil && stuck.fewest == 2)
        #expect(try ground.places(edge).contains(second))
    }

    @Test func `a global service with a port is replaced node by node`() throws {
        var ground = try Ground(nodes: 3)
        try ground.deploy(edge, [service(mode: .global)])
        _ = try ground.settle(edge, check: onePerNode)
        try ground.deploy(edge, [service(image: "edge:2", mode: .global)])
        let seen = try ground.settle(edge, check: onePerNode)
        #expect(seen.fewest == 2)
        #expect(try ground.places(edge) == ["n1", "n2", "n3"])
    }

    @Test func `of the tables only that of its node has the port, and only while the task is ready`() throws {
        var ground = try Ground(nodes: 2)
        try ground.deploy(edge, [service()])
        _ = try ground.settle(edge)
        let task = try #require(try ground.state.read { try $0.tasks(app: edge) }.first)
        func pinned(_ node: NodeID) throws -> [PinnedPort] {
            try ground.state.read { try Tables.make($0, index: 1, node: node).balancing.pinned }
        }
        let port = PublishedPort(hostPort: 443, containerPort: 80, protocol: .tcp)
        #expect(try pinned(task.node) == [PinnedPort(port: port, endpoint: task.address)])
        let other: NodeID = task.node == "n1" ? "n2" : "n1"
        #expect(try pinned(other).isEmpty)
        try ground.apply(.stopTasks(StopTasks(tasks: [task.id], reason: Reason(.stopped, "test"))))
        #expect(try pinned(task.node).isEmpty)
    }
}
