// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
internal import Model

/// One task's interface: a veth pair routed by the node, no bridge.
///
/// The container has its address alone (/32) and sends everything to a gateway that is the same on every node and that
/// it never has to look up. The node has a route to the address and the hardware address of the other end.
struct Attachment {
    static let interface = "eth0"

    let name: LinkName
    let address: IPv4Address
    /// Handle of the namespace.
    let path: String
    /// Of both ends, in bytes: what fits the overlay. Nil leaves what is there.
    let mtu: Int?

    /// Makes what is missing; builds the pair anew unless what is there are the two ends of one pair with the right
    /// addresses.
    /// - Parameter source: the node's own address among the containers'.
    /// - Returns: the node's end.
    func ensure(_ socket: borrowing NetlinkSocket, source: IPv4Address) throws(NetworkError) {
        try NetworkNamespace.ensure(path)
        let inside = try NetworkNamespace.run(in: path) { () throws(NetworkError) in try Inside.look() }
        let outside = try socket.link(named: name.description)
        let link: Link
        if let outside, inside.isPeer(of: outside), outside.hardware == .gateway,
            inside.interface?.hardware == .container(address), inside.addresses.allSatisfy({ $0 == address })
        {
            link = outside
        } else {
            link = try rebuild(socket, outside: outside, inside: inside)
        }
        try NetworkNamespace.run(in: path) { [address, mtu] () throws(NetworkError) in
            try Inside.configure(address, mtu: mtu)
        }
        try settings()
        if let mtu, link.mtu != mtu { try socket.setMTU(link.index, mtu) }
        try socket.setUp(link.index)
        try socket.setNeighbour(address, .container(address), link: link.index)
        try socket.setRoute(
            Route(destination: IPv4Subnet(address, prefix: 32), target: .link(link.index), source: source)
        )
    }

    private func rebuild(
        _ socket: borrowing NetlinkSocket,
        outside: Link?,
        inside: Inside
    ) throws(NetworkError) -> Link {
        if let outside { try socket.deleteLink(outside) }
        if inside.interface != nil {
            try NetworkNamespace.run(in: path) { () throws(NetworkError) in try Inside.clear() }
        }
        let namespace = try Descriptor(opening: path, O_RDONLY)
        try socket.addPair(name, namespace: namespace, peerAddress: .container(address), mtu: mtu)
        guard let link = try socket.link(named: name.description) else {
            throw NetworkError(.notFound, "the link `\(name)` vanished", hint: "it is made again with the next try")
        }
        return link
    }

    /// Of the node's end. The kernel uses the stricter of the link's and the general value for most of these.
    private func settings() throws(NetworkError) {
        try Sysctl.set("ipv4/conf/\(name)/rp_filter", "1")
        try Sysctl.set("ipv4/conf/\(name)/send_redirects", "0")
        try Sysctl.setIfPresent("ipv6/conf/\(name)/disable_ipv6", "1")
    }

    /// What is in the container's namespace, seen from a thread that is in it.
    struct Inside: Sendable {
        var interface: Link?
        var addresses: [IPv4Address]

        func isPeer(of link: Link) -> Bool {
            guard let interface else { return false }
            return interface.peer == link.index && link.peer == interface.index
        }

        static func look() throws(NetworkError) -> Inside {
            let socket = try NetlinkSocket()
            guard let interface = try socket.link(named: Attachment.interface) else {
                return Inside(interface: nil, addresses: [])
            }
            let addresses = try socket.addresses().filter { $0.link == interface.index }.map(\.address)
            return Inside(interface: interface, addresses: addresses)
        }

        static func clear() throws(NetworkError) {
            let socket = try NetlinkSocket()
            if let interface = try socket.link(named: Attachment.interface) { try socket.deleteLink(interface) }
        }

        static func setMTU(_ mtu: Int) throws(NetworkError) {
            let socket = try NetlinkSocket()
            if let interface = try socket.link(named: Attachment.interface), interface.mtu != mtu {
                try socket.setMTU(interface.index, mtu)
            }
        }

        static func configure(_ address: IPv4Address, mtu: Int?) throws(NetworkError) {
            let socket = try NetlinkSocket()
            guard let interface = try socket.link(named: Attachment.interface) else {
                throw NetworkError(.notFound, "the container's end of \(address) vanished")
            }
            // As every container runtime sets them: a namespace of its own may open its low ports and ping.
            try Sysctl.setIfPresent("ipv4/ip_unprivileged_port_start", "0")
            try Sysctl.setIfPresent("ipv4/ping_group_range", "0\t2147483647")
            try Sysctl.setIfPresent("ipv6/conf/\(Attachment.interface)/disable_ipv6", "1")
            try socket.setUp(NetlinkSocket.loopback)
            try socket.addAddress(address, link: interface.index, scope: Int32(RT_SCOPE_UNIVERSE.rawValue))
            if let mtu, interface.mtu != mtu { try socket.setMTU(interface.index, mtu) }
            try socket.setUp(interface.index)
            let gateway = AddressRanges.gateway
            try socket.setNeighbour(gateway, .gateway, link: interface.index)
            try socket.setRoute(
                Route(destination: IPv4Subnet(gateway, prefix: 32), target: .link(interface.index))
            )
            try socket.setRoute(
                Route(
                    destination: IPv4Subnet(IPv4Address(value: 0), prefix: 0),
                    target: .gateway(gateway, link: interface.index)
                )
            )
        }
    }
}
