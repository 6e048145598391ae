// SPDX-License-Identifier: Apache-2.0
import Glibc
import Model
import Testing

@testable import ContainerNetwork

/// Nodes in network namespaces of their own, joined by a switch in another one.
final class JoinedNodes {
    let nodes: [TestNode]
    /// Path of the switch's namespace; the node at `index` is plugged in as `p<index>`.
    let underlay: String
    private let descriptor: Int32

    private init(_ count: Int) throws {
        descriptor = try TestNode.makeNamespace()
        underlay = "/proc/\(getpid())/fd/\(descriptor)"
        nodes = try (0..<count).map {
            try TestNode(number: $0 + 1, overlay: OverlayEnd(address: Self.address($0)))
        }
    }

    /// Of the node at `index` in the underlay.
    static func address(_ index: Int) -> IPv4Address { IPv4Address(value: 192 << 24 | 2 << 8 | UInt32(index + 1)) }

    /// Prepared and connected nodes, removed when `body` is done or failed.
    static func with(
        _ count: Int,
        mtu: Int = 1500,
        _ body: (JoinedNodes) async throws -> Void
    ) async throws {
        let cluster = try JoinedNodes(count)
        var failure: (any Error)?
        do {
            try cluster.plugIn(mtu: mtu)
            for node in cluster.nodes { try await node.networking.prepare(node.network) }
            try await cluster.connect()
            try await body(cluster)
        } catch { failure = error }
        for node in cluster.nodes {
            do { try await node.remove() } catch { failure = failure ?? error }
        }
        close(cluster.descriptor)
        if let failure { throw failure }
    }

    private func plugIn(mtu: Int) throws {
        let first = nodes[0]
        try first.ip("link add br0 mtu \(mtu) type bridge", in: underlay)
        try first.ip("link set br0 up", in: underlay)
        for (index, node) in nodes.enumerated() {
            try node.ip("link set lo up")
            try node.ip("link add up0 mtu \(mtu) type veth peer name p\(index) mtu \(mtu) netns \(underlay)")
            try node.ip("link set p\(index) master br0 up", in: underlay)
            try node.ip("addr add \(Self.address(index))/24 dev up0")
            try node.ip("link set up0 up")
        }
        for node in nodes.dropFirst() { try waitForWay(from: node.inside, to: Self.address(0)) }
    }

    /// Every other node, as the one at `index` is told.
    func others(_ index: Int) -> [RemoteNode] {
        nodes.indices.filter { $0 != index }.map {
            RemoteNode(id: NodeID("n\($0 + 1)"), address: Self.address($0), subnet: nodes[$0].network.subnet)
        }
    }

    func connect() async throws {
        for index in nodes.indices {
            #expect(try await nodes[index].networking.connect(others(index)) == [])
        }
    }

    func attach(_ index: Int, _ task: TaskID, _ host: Int) async throws -> Container {
        try await nodes[index].attach(nodes[index].networking, task, host)
    }
}

/// What a node's end of the overlay looks like in the kernel.
struct OverlayInKernel: Equatable {
    var device: Link?
    var forwardings: Set<NeighbourEntry> = []
    var neighbours: Set<NeighbourEntry> = []
    var routes: Set<Route> = []

    static func look(_ node: TestNode) throws -> Self {
        try NetworkNamespace.run(in: node.inside) { () throws(NetworkError) in
            let socket = try NetlinkSocket()
            guard let device = try socket.link(named: OverlayDevice.name) else { return OverlayInKernel() }
            return OverlayInKernel(
                device: device,
                forwardings: Set(try socket.neighbours(AF_BRIDGE, link: device.index)),
                neighbours: Set(try socket.neighbours(AF_INET, link: device.index).filter(\.isPermanent)),
                routes: Set(try socket.routes().filter { $0.link == device.index })
            )
        }
    }

    /// The same on another device: indices differ after it was made anew.
    var withoutIndex: [String] {
        guard var device else { return [] }
        device.index = 0
        let entries = (forwardings.map { ("fdb", $0) } + neighbours.map { ("neighbour", $0) }).map { kind, entry in
            "\(kind) \(entry.hardware?.description ?? "-") \(entry.address?.description ?? "-") \(entry.isDiverted)"
        }
        let targets = routes.map { route in
            if case .onLink(let gateway, _) = route.target { return "\(route.destination) onlink \(gateway)" }
            return "\(route)"
        }
        return ["\(device)"] + (entries + targets).sorted()
    }
}
