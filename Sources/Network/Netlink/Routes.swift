// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
internal import Model

struct Route: Hashable, Sendable {
    /// Marks what is ours in every routing table (`proto 111`).
    static let protocolNumber: UInt8 = 111

    enum Target: Hashable, Sendable {
        case blackhole
        /// Straight out of a link.
        case link(Int32)
        case gateway(IPv4Address, link: Int32)
        /// Through a gateway taken for a neighbour on the link, whatever the addresses there say.
        case onLink(IPv4Address, link: Int32)
        /// Of a kind this module does not make.
        case other
    }

    var destination: IPv4Subnet
    var target: Target
    /// Address the kernel takes as source when a program names none.
    var source: IPv4Address?
    var table: UInt32 = UInt32(RT_TABLE_MAIN.rawValue)
    var protocolNumber: UInt8 = Route.protocolNumber
    /// Of several routes to one destination the kernel takes the lowest.
    var metric: UInt32 = 0

    var isOurs: Bool { protocolNumber == Self.protocolNumber }

    var link: Int32? {
        switch target {
        case .link(let link), .gateway(_, let link), .onLink(_, let link): link
        case .blackhole, .other: nil
        }
    }
}

extension NetlinkSocket {
    /// IPv4 routes of every table.
    func routes() throws(NetworkError) -> [Route] {
        try dump("routes", { rtnl_route_alloc_cache($0, AF_INET, 0, $1) }) { raw in
            guard let destination = NetlinkAddress.subnet(rtnl_route_get_dst(raw)) else { return nil }
            let hop = rtnl_route_get_nnexthops(raw) == 1 ? rtnl_route_nexthop_n(raw, 0) : nil
            let target: Route.Target
            if rtnl_route_get_type(raw) == RTN_BLACKHOLE {
                target = .blackhole
            } else if let hop {
                let link = rtnl_route_nh_get_ifindex(hop)
                if let gateway = NetlinkAddress.subnet(rtnl_route_nh_get_gateway(hop)) {
                    let isOnLink = rtnl_route_nh_get_flags(hop) & UInt32(RTNH_F_ONLINK) != 0
                    target = isOnLink ? .onLink(gateway.network, link: link) : .gateway(gateway.network, link: link)
                } else {
                    target = .link(link)
                }
            } else {
                target = .other
            }
            return Route(
                destination: destination,
                target: target,
                source: NetlinkAddress.subnet(rtnl_route_get_pref_src(raw))?.network,
                table: rtnl_route_get_table(raw),
                protocolNumber: rtnl_route_get_protocol(raw),
                metric: rtnl_route_get_priority(raw)
            )
        }
    }

    /// Adds, or puts in the place of what is there for the same destination.
    func setRoute(_ route: Route) throws(NetworkError) {
        try withRoute(route) { (raw) throws(NetworkError) in
            try request("cannot add the route to \(route.destination)") {
                rtnl_route_add($0, raw, NLM_F_CREATE | NLM_F_REPLACE)
            }
        }
    }

    func deleteRoute(_ route: Route) throws(NetworkError) {
        try withRoute(route) { (raw) throws(NetworkError) in
            try request("cannot delete the route to \(route.destination)", tolerating: [ESRCH, ENOENT]) {
                rtnl_route_delete($0, raw, 0)
            }
        }
    }

    private func withRoute(
        _ route: Route,
        _ body: (OpaquePointer) throws(NetworkError) -> Void
    ) throws(NetworkError) {
        guard let raw = rtnl_route_alloc() else { throw NetworkError(.exhausted, "no memory for a route") }
        defer { rtnl_route_put(raw) }
        let destination = try NetlinkAddress(route.destination)
        rtnl_route_set_dst(raw, destination.raw)
        rtnl_route_set_protocol(raw, route.protocolNumber)
        rtnl_route_set_table(raw, route.table)
        rtnl_route_set_scope(raw, UInt8(RT_SCOPE_UNIVERSE.rawValue))
        if route.metric != 0 { rtnl_route_set_priority(raw, route.metric) }
        if let source = route.source {
            let address = try NetlinkAddress(source)
            rtnl_route_set_pref_src(raw, address.raw)
        }
        switch route.target {
        case .blackhole: rtnl_route_set_type(raw, UInt8(RTN_BLACKHOLE))
        case .other:
            // Only ever deleted: by destination, whatever it is.
            rtnl_route_set_type(raw, UInt8(RTN_UNSPEC))
            rtnl_route_set_scope(raw, UInt8(RT_SCOPE_NOWHERE.rawValue))
        case .link(let link):
            rtnl_route_set_scope(raw, UInt8(RT_SCOPE_LINK.rawValue))
            try addHop(raw, link: link, gateway: nil)
        case .gateway(let gateway, let link): try addHop(raw, link: link, gateway: gateway)
        case .onLink(let gateway, let link): try addHop(raw, link: link, gateway: gateway, flags: UInt32(RTNH_F_ONLINK))
        }
        try body(raw)
    }

    private func addHop(
        _ route: OpaquePointer,
        link: Int32,
        gateway: IPv4Address?,
        flags: UInt32 = 0
    ) throws(NetworkError) {
        guard let hop = rtnl_route_nh_alloc() else { throw NetworkError(.exhausted, "no memory for a route") }
        rtnl_route_nh_set_ifindex(hop, link)
        if flags != 0 { rtnl_route_nh_set_flags(hop, flags) }
        rtnl_route_add_nexthop(route, hop)
        if let gateway {
            let address = try NetlinkAddress(gateway)
            rtnl_route_nh_set_gateway(hop, address.raw)
        }
    }
}
