// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Which entries the overlay needs for the nodes of the cluster. Pure: every order of the nodes gives the same.
struct OverlayPlan: Equatable, Sendable {
    var entries: OverlayEntries
    /// Sorted by node.
    var refused: [RefusedNode]

    /// Subnets never overlap, so there are never more entries than the container range has subnets.
    /// - Parameter device: index of the node's end.
    init(_ node: NodeNetwork, device: Int32, _ nodes: [RemoteNode]) {
        entries = OverlayEntries()
        refused = []
        var taken: [RemoteNode] = []
        let sorted = nodes.sorted {
            ($0.subnet.network, $0.subnet.prefix, $0.id, $0.address)
                < ($1.subnet.network, $1.subnet.prefix, $1.id, $1.address)
        }
        for remote in sorted {
            // The one before it begins lower or at the same place: no other can reach into this subnet.
            if let reason = Self.refusal(of: remote, node, before: taken.last) {
                refused.append(RefusedNode(node: remote.id, reason: reason))
                continue
            }
            if taken.last == remote { continue }
            taken.append(remote)
            let gateway = remote.subnet.network
            let hardware = HardwareAddress.overlay(remote.subnet)
            entries.forwardings[hardware] = .to(remote.address)
            entries.neighbours[gateway] = hardware
            entries.routes.insert(
                Route(destination: remote.subnet, target: .onLink(gateway, link: device), source: node.subnet[1]))
        }
        refused.sort { ($0.node, $0.reason.message) < ($1.node, $1.reason.message) }
    }

    private static func refusal(of remote: RemoteNode, _ node: NodeNetwork, before: RemoteNode?) -> Reason? {
        let ranges = node.ranges
        if remote.subnet.prefix < ranges.containers.prefix || remote.subnet.prefix > 30
            || !ranges.containers.contains(remote.subnet.network)
        {
            return Reason(
                .networkFailed, "subnet \(remote.subnet) of node \(remote.id) is not a part of \(ranges.containers)",
                hint: "remove the node from the cluster and let it join again")
        }
        if remote.subnet.overlaps(node.subnet) {
            return Reason(
                .networkFailed, "subnet \(remote.subnet) of node \(remote.id) overlaps this node's \(node.subnet)",
                hint: "remove one of the two nodes from the cluster and let it join again")
        }
        if let before, before != remote, before.subnet.overlaps(remote.subnet) {
            return Reason(
                .networkFailed,
                "subnet \(remote.subnet) of node \(remote.id) overlaps \(before.subnet) of node \(before.id)",
                hint: "remove one of the two nodes from the cluster and let it join again")
        }
        if remote.address == node.overlay?.address || !isOfOneHost(remote.address) || ranges.covers(remote.address) {
            return Reason(
                .networkFailed, "node \(remote.id) cannot be reached at \(remote.address)",
                hint: "start it with --advertise and an address of its own that other nodes reach")
        }
        return nil
    }

    /// Not loopback, not "any", not multicast or broadcast.
    private static func isOfOneHost(_ address: IPv4Address) -> Bool {
        let first = address.value >> 24
        return first != 0 && first != 127 && first < 224
    }
}

extension AddressRanges {
    /// True for addresses that only exist inside the cluster.
    fileprivate func covers(_ address: IPv4Address) -> Bool {
        containers.contains(address) || virtual.contains(address)
    }
}

/// The entries of a node's end of the overlay, wanted or found.
struct OverlayEntries: Equatable, Sendable {
    enum Forwarding: Hashable, Sendable {
        case to(IPv4Address)
        /// Not one this module makes.
        case other
    }

    /// Where frames for a node's end are sent.
    var forwardings: [HardwareAddress: Forwarding] = [:]
    /// Permanent ones; what the kernel learned by itself is its own.
    var neighbours: [IPv4Address: HardwareAddress] = [:]
    /// Of ours, except those of containers and of the node itself.
    var routes: Set<Route> = []

    enum Step: Hashable, Sendable {
        case deleteRoute(Route)
        case setForwarding(HardwareAddress, IPv4Address)
        case setNeighbour(IPv4Address, HardwareAddress)
        case setRoute(Route)
        case deleteNeighbour(IPv4Address)
        case deleteForwarding(HardwareAddress)
    }

    /// What the kernel holds one of: it puts a new route in the place of an old one where these are equal.
    private struct Slot: Hashable {
        var destination: IPv4Subnet
        var table: UInt32
        var metric: UInt32

        init(_ route: Route) { (destination, table, metric) = (route.destination, route.table, route.metric) }
    }

    /// What leads from here to `wanted`, in this order: a route is there only while what it needs is, and a route that
    /// changes is replaced, so that no packet takes the default route meanwhile.
    func steps(to wanted: OverlayEntries) -> [Step] {
        let missing = wanted.routes.subtracting(routes)
        let surplus = routes.subtracting(wanted.routes)
        let replacing = Set(missing.map(Slot.init))
        let crowded = Dictionary(grouping: routes, by: Slot.init).filter { $0.value.count > 1 }
        let deleted = surplus.filter { !replacing.contains(Slot($0)) || crowded[Slot($0)] != nil }

        var steps = deleted.sorted(by: Self.precedes).map { Step.deleteRoute($0) }
        for (hardware, forwarding) in wanted.forwardings.sorted(by: { $0.key < $1.key }) {
            guard case .to(let address) = forwarding, forwardings[hardware] != forwarding else { continue }
            steps.append(.setForwarding(hardware, address))
        }
        for (address, hardware) in wanted.neighbours.sorted(by: { $0.key < $1.key })
        where neighbours[address] != hardware { steps.append(.setNeighbour(address, hardware)) }
        steps += missing.sorted(by: Self.precedes).map { .setRoute($0) }
        steps += neighbours.keys.filter { wanted.neighbours[$0] == nil }.sorted().map { .deleteNeighbour($0) }
        steps += forwardings.keys.filter { wanted.forwardings[$0] == nil }.sorted().map { .deleteForwarding($0) }
        return steps
    }

    private static func precedes(_ left: Route, _ right: Route) -> Bool {
        let (a, b) = (left.destination, right.destination)
        return (a.network, a.prefix, left.table, left.metric) < (b.network, b.prefix, right.table, right.metric)
    }
}
