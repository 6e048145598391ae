// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
internal import Model

/// What a node needs once, besides the table: settings, addresses on `lo`, two routes.
struct NodeSetup {
    let node: NodeNetwork
    var source: IPv4Address { node.subnet[1] }

    /// - Throws: `.invalid` when the ranges do not fit each other.
    func validate() throws(NetworkError) {
        let ranges = node.ranges
        guard !ranges.containers.overlaps(ranges.virtual) else {
            throw NetworkError(
                .invalid,
                "container range \(ranges.containers) overlaps service range \(ranges.virtual)",
                hint: "choose others with --container-subnet and --virtual-subnet"
            )
        }
        guard node.subnet.prefix <= 30, node.subnet.prefix >= ranges.containers.prefix,
            ranges.containers.contains(node.subnet.network)
        else {
            throw NetworkError(.invalid, "node subnet \(node.subnet) is not a part of \(ranges.containers)")
        }
    }

    /// First route of the host one of the ranges overlaps, as text for a person; pure.
    /// - Parameter ours: addresses on `lo` that an earlier run may have put there.
    static func overlap(_ ranges: AddressRanges, routes: [Route], linkNames: [Int32: String]) -> NetworkError? {
        for route in routes where !route.isOurs && route.destination.prefix > 0 {
            // Addresses on lo come with routes of the kernel in the table `local`: those in our ranges are ours.
            if route.link == NetlinkSocket.loopback && route.destination.prefix == 32 { continue }
            for range in [ranges.containers, ranges.virtual] where range.overlaps(route.destination) {
                let link = route.link.flatMap { linkNames[$0] }.map { " dev \($0)" } ?? ""
                return NetworkError(
                    .overlap,
                    "range \(range) overlaps the route \(route.destination)\(link) of this host",
                    hint: "choose a free range with "
                        + (range == ranges.containers ? "--container-subnet" : "--virtual-subnet")
                )
            }
        }
        return nil
    }

    var wantedRoutes: [Route] {
        [
            // Locally made packets are only translated after they found a route.
            Route(destination: node.ranges.virtual, target: .link(NetlinkSocket.loopback), source: source),
            // A container that is not there must not be looked for behind the default route.
            Route(destination: node.subnet, target: .blackhole),
        ]
    }

    func ensure(_ socket: borrowing NetlinkSocket) throws(NetworkError) {
        try validate()
        let routes = try socket.routes()
        let names = Dictionary(try socket.links().map { ($0.index, $0.name) }, uniquingKeysWith: { first, _ in first })
        if let error = Self.overlap(node.ranges, routes: routes, linkNames: names) { throw error }

        try Sysctl.set("ipv4/ip_forward", "1")
        try Sysctl.set("ipv4/conf/all/send_redirects", "0")
        // Published ports on 127.0.0.1; the table drops what comes from outside for that range.
        try Sysctl.set("ipv4/conf/all/route_localnet", "1")

        try socket.setUp(NetlinkSocket.loopback)
        try removeAddresses(socket, keeping: [source])
        try socket.addAddress(source, link: NetlinkSocket.loopback, scope: Int32(RT_SCOPE_UNIVERSE.rawValue))
        try socket.addAddress(
            AddressRanges.nameServer,
            link: NetlinkSocket.loopback,
            scope: Int32(RT_SCOPE_LINK.rawValue)
        )
        let wanted = wantedRoutes
        let stale = routes.filter { route in
            // What leads to other nodes stays until they are known again.
            route.isOurs && names[route.link ?? 0] != OverlayDevice.name
                && names[route.link ?? 0].flatMap(LinkName.init(link:)) == nil
                && !wanted.contains { $0.destination == route.destination }
        }
        for route in stale { try socket.deleteRoute(route) }
        for route in wanted { try socket.setRoute(route) }
    }

    /// Addresses of ours on `lo`, those of an earlier subnet included.
    private func removeAddresses(
        _ socket: borrowing NetlinkSocket,
        keeping: [IPv4Address]
    ) throws(NetworkError) {
        for address in try socket.addresses()
        where address.link == NetlinkSocket.loopback && address.prefix == 32
            && node.ranges.containers.contains(address.address) && !keeping.contains(address.address)
        {
            try socket.deleteAddress(address.address, link: NetlinkSocket.loopback)
        }
    }

    /// All addresses on `lo` and every route of ours. Settings stay: others may rely on them by now.
    func remove(_ socket: borrowing NetlinkSocket) throws(NetworkError) {
        for route in try socket.routes() where route.isOurs { try socket.deleteRoute(route) }
        try removeAddresses(socket, keeping: [])
        try socket.deleteAddress(AddressRanges.nameServer, link: NetlinkSocket.loopback)
    }
}
