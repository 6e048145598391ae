// SPDX-License-Identifier: Apache-2.0
internal import Model

/// The VXLAN device of a node as it should be: its end of the overlay. Pure.
struct OverlayDevice: Hashable, Sendable {
    /// Like every link of ours; no task can be named so.
    static let name = "hm.vx"
    /// VNI: one network for all containers of a cluster.
    static let identifier: UInt32 = 4096
    /// What encapsulation adds: IPv4 20, UDP 8, VXLAN 8, the inner frame's header 14.
    static let overheadBytes = 50
    /// Every host takes datagrams of this size (RFC 791), so containers may expect to be able to send them.
    static let mtuMin = 576

    var tunnel: Tunnel
    var hardware: HardwareAddress
    /// Bytes, of the device and of every container's interface.
    var mtu: Int

    /// - Parameter underlay: the link that has the node's address.
    /// - Throws: `.invalid` when what remains of the link's MTU is too small.
    init(_ end: OverlayEnd, subnet: IPv4Subnet, underlay: Link) throws(NetworkError) {
        tunnel = Tunnel(
            identifier: Self.identifier, port: end.port, local: end.address, underlay: underlay.index)
        hardware = .overlay(subnet)
        mtu = underlay.mtu - Self.overheadBytes
        guard mtu >= Self.mtuMin else {
            throw NetworkError(
                .invalid,
                "MTU \(underlay.mtu) of the link `\(underlay.name)` leaves \(mtu) bytes to containers",
                hint: "raise it to \(Self.mtuMin + Self.overheadBytes) or more: ip link set \(underlay.name) mtu 1500"
            )
        }
    }

    /// The link other nodes are reached through.
    /// - Throws: `.notFound` when no link has the address, `.invalid` when only `lo` has it.
    static func underlay(
        _ address: IPv4Address,
        links: [Link],
        addresses: [LinkAddress]
    ) throws(NetworkError) -> Link {
        let holders = Set(addresses.filter { $0.address == address }.map(\.link))
        let candidates = links.filter { holders.contains($0.index) }.sorted { $0.index < $1.index }
        if let link = candidates.first(where: { $0.index != NetlinkSocket.loopback }) { return link }
        throw candidates.isEmpty
            ? NetworkError(
                .notFound,
                "no link of this node has the address \(address), which other nodes know it by",
                hint: "see `ip -4 addr`; give one of those with --advertise"
            )
            : NetworkError(
                .invalid,
                "\(address) is an address of `lo` only, which no other node reaches",
                hint: "give the address of another link with --advertise"
            )
    }

    /// A device of somebody else that the kernel would not let ours exist beside.
    static func conflict(_ tunnel: Tunnel, links: [Link]) -> NetworkError? {
        guard
            let other = links.first(where: { link in
                link.name != name && link.tunnel?.identifier == tunnel.identifier && link.tunnel?.port == tunnel.port
            })
        else { return nil }
        return NetworkError(
            .alreadyExists,
            "the VXLAN device `\(other.name)` already uses network \(tunnel.identifier) on UDP port \(tunnel.port)",
            hint: "remove it (ip link delete \(other.name)), or give the cluster another overlay port"
        )
    }

    enum Step: Hashable, Sendable {
        case keep, add
        /// Bring it up and set its MTU, in place.
        case correct
        /// Another device than this one, or none at all: a VXLAN device cannot become another.
        case replace
    }

    /// What leads from the link of this name, if there is one, to this device.
    func step(from link: Link?) -> Step {
        guard let link else { return .add }
        guard link.tunnel == tunnel, link.hardware == hardware else { return .replace }
        return link.mtu == mtu && link.isUp ? .keep : .correct
    }
}

extension HardwareAddress {
    /// Of a node's end of the overlay: made of its subnet's first address, which no container has, so that every node
    /// knows it without asking.
    static func overlay(_ subnet: IPv4Subnet) -> Self { container(subnet.network) }
}
