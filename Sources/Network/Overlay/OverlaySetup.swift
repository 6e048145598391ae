// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
internal import Model

/// Brings this node's end of the overlay, and what leads to the other nodes, to the wanted state from whatever is there.
struct OverlaySetup {
    let node: NodeNetwork

    /// The device and what it was made of; nil, and none there, for a node that is alone. Entries of a device that was
    /// right stay.
    func ensureDevice(_ socket: borrowing NetlinkSocket) throws(NetworkError) -> (index: Int32, device: OverlayDevice)?
    {
        guard let end = node.overlay else {
            try Self.removeDevice(socket)
            return nil
        }
        let links = try socket.links()
        let underlay = try OverlayDevice.underlay(end.address, links: links, addresses: try socket.addresses())
        let wanted = try OverlayDevice(end, subnet: node.subnet, underlay: underlay)
        let found = links.first { $0.name == OverlayDevice.name }
        var index = found?.index
        switch wanted.step(from: found) {
        case .keep: break
        case .correct:
            if let found {
                if found.mtu != wanted.mtu { try socket.setMTU(found.index, wanted.mtu) }
                // Last: a device that is up has the right MTU.
                if !found.isUp { try socket.setUp(found.index) }
            }
        case .replace, .add:
            if let error = OverlayDevice.conflict(wanted.tunnel, links: links) { throw error }
            if let found { try socket.deleteLink(found) }
            try add(wanted, socket)
            index = try socket.link(named: OverlayDevice.name)?.index
        }
        guard let index else {
            throw NetworkError(
                .notFound, "the link `\(OverlayDevice.name)` vanished", hint: "it is made again with the next try")
        }
        try settings()
        return (index, wanted)
    }

    private func add(_ device: OverlayDevice, _ socket: borrowing NetlinkSocket) throws(NetworkError) {
        do throws(NetworkError) { try socket.addTunnel(device) } catch {
            var error = error
            switch error.errno {
            case EADDRINUSE:
                error.message = "UDP port \(device.tunnel.port) of this node is taken by another program"
                error.hint =
                    "see `ss -ulnp sport = \(device.tunnel.port)`; end it, or give the cluster another overlay port"
            case EEXIST:
                // Moved to another namespace, a device keeps its network taken in the one of its underlay.
                error.message += ", for network \(device.tunnel.identifier) on UDP port \(device.tunnel.port)"
                error.hint =
                    "another VXLAN device has it, maybe from another namespace: see `ip -d link show type vxlan`"
            case EOPNOTSUPP: error.hint = "this kernel lacks VXLAN: load the module `vxlan`"
            default: break
            }
            throw error
        }
    }

    /// The kernel uses the stricter of the link's and the general value for most of these.
    private func settings() throws(NetworkError) {
        // Nobody can speak for containers of a node that are not reached through the overlay.
        try Sysctl.set("ipv4/conf/\(OverlayDevice.name)/rp_filter", "1")
        try Sysctl.set("ipv4/conf/\(OverlayDevice.name)/send_redirects", "0")
        try Sysctl.setIfPresent("ipv6/conf/\(OverlayDevice.name)/disable_ipv6", "1")
    }

    /// Its entries go with it.
    static func removeDevice(_ socket: borrowing NetlinkSocket) throws(NetworkError) {
        if let link = try socket.link(named: OverlayDevice.name) { try socket.deleteLink(link) }
    }

    /// Leads to `nodes` and no others; what is right already is not touched.
    /// - Parameter device: index of the node's end.
    /// - Throws: `.overlap` before anything is changed when a route of the host is in the way.
    func connect(
        _ socket: borrowing NetlinkSocket,
        device: Int32,
        _ nodes: [RemoteNode]
    ) throws(NetworkError) -> [RefusedNode] {
        let plan = OverlayPlan(node, device: device, nodes)
        let names = Dictionary(try socket.links().map { ($0.index, $0.name) }, uniquingKeysWith: { first, _ in first })
        let routes = try socket.routes()
        if let error = NodeSetup.overlap(node.ranges, routes: routes, linkNames: names) { throw error }
        let found = try entries(socket, device, routes: routes, names)
        for step in found.steps(to: plan.entries) { try perform(step, socket, device) }
        return plan.refused
    }

    /// What is there now.
    private func entries(
        _ socket: borrowing NetlinkSocket,
        _ device: Int32,
        routes: [Route],
        _ names: [Int32: String]
    ) throws(NetworkError) -> OverlayEntries {
        OverlayEntries(
            forwardings: try forwardings(socket, device),
            neighbours: try neighbours(socket, device),
            routes: Set(routes.filter { isOverlay($0, names) })
        )
    }

    /// Nodes that something is missing for, or wrong; changes nothing.
    /// - Returns: with it, what probes are to be sent with.
    func examine(
        _ socket: borrowing NetlinkSocket,
        _ nodes: [RemoteNode]
    ) throws(NetworkError) -> (broken: Set<NodeID>, conditions: OverlayDiagnosis.Conditions) {
        guard let end = node.overlay else {
            throw NetworkError(.invalid, "this node has no end of the overlay, so there is nothing to probe")
        }
        let links = try socket.links()
        let underlay = try OverlayDevice.underlay(end.address, links: links, addresses: try socket.addresses())
        let wanted = try OverlayDevice(end, subnet: node.subnet, underlay: underlay)
        let conditions = OverlayDiagnosis.Conditions(
            overlay: end, link: underlay.name, linkMTU: underlay.mtu, mtu: wanted.mtu)
        let found = links.first { $0.name == OverlayDevice.name }
        guard let found, wanted.step(from: found) == .keep else { return (Set(nodes.map(\.id)), conditions) }
        let names = Dictionary(links.map { ($0.index, $0.name) }, uniquingKeysWith: { first, _ in first })
        let there = try entries(socket, found.index, routes: try socket.routes(), names)
        let broken = nodes.filter { remote in
            // Its own entries alone: what others lack is theirs.
            let needed = OverlayPlan(node, device: found.index, [remote]).entries
            return !there.routes.isSuperset(of: needed.routes)
                || needed.forwardings.contains { there.forwardings[$0.key] != $0.value }
                || needed.neighbours.contains { there.neighbours[$0.key] != $0.value }
        }
        return (Set(broken.map(\.id)), conditions)
    }

    private func forwardings(
        _ socket: borrowing NetlinkSocket,
        _ device: Int32
    ) throws(NetworkError) -> [HardwareAddress: OverlayEntries.Forwarding] {
        var found: [HardwareAddress: OverlayEntries.Forwarding] = [:]
        for entry in try socket.neighbours(AF_BRIDGE, link: device) {
            guard let hardware = entry.hardware else { continue }
            let isPlain = entry.isPermanent && !entry.isDiverted && found[hardware] == nil
            if isPlain, let address = entry.address {
                found[hardware] = .to(address)
            } else {
                found[hardware] = .other
            }
        }
        return found
    }

    private func neighbours(
        _ socket: borrowing NetlinkSocket,
        _ device: Int32
    ) throws(NetworkError) -> [IPv4Address: HardwareAddress] {
        var found: [IPv4Address: HardwareAddress] = [:]
        for entry in try socket.neighbours(AF_INET, link: device) where entry.isPermanent {
            if let address = entry.address { found[address] = entry.hardware }
        }
        return found
    }

    /// Ours, and neither a container's nor the node's own: what an earlier list of nodes left is among them.
    private func isOverlay(_ route: Route, _ names: [Int32: String]) -> Bool {
        guard route.isOurs else { return false }
        if let name = route.link.flatMap({ names[$0] }), LinkName(link: name) != nil { return false }
        return !NodeSetup(node: node).wantedRoutes.contains {
            $0.destination == route.destination && $0.table == route.table && $0.metric == route.metric
        }
    }

    private func perform(
        _ step: OverlayEntries.Step,
        _ socket: borrowing NetlinkSocket,
        _ device: Int32
    ) throws(NetworkError) {
        switch step {
        case .deleteRoute(let route): try socket.deleteRoute(route)
        case .setForwarding(let hardware, let address):
            try socket.setForwarding(hardware, to: address, link: device)
        case .setNeighbour(let address, let hardware): try socket.setNeighbour(address, hardware, link: device)
        case .setRoute(let route): try socket.setRoute(route)
        case .deleteNeighbour(let address): try socket.deleteNeighbour(address, link: device)
        case .deleteForwarding(let hardware): try socket.deleteForwarding(hardware, link: device)
        }
    }
}
