// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
internal import Model

/// What makes a VXLAN device the one it is; none of it can be changed once it exists.
struct Tunnel: Hashable, Sendable {
    /// VNI, 24 bits.
    var identifier: UInt32
    /// UDP, of both ends.
    var port: UInt16
    /// Source of what it sends; nil when the kernel chooses.
    var local: IPv4Address?
    /// Index of the link it sends through; 0 when the kernel chooses.
    var underlay: Int32
    /// Takes forwarding entries from whatever frames arrive.
    var isLearning = false
    /// Has a default destination, or one of the modes in which the kernel asks somebody else where a frame goes, or
    /// sends without checksums.
    var isSpecial = false
}

extension NetlinkSocket {
    /// Nil for a link of another kind.
    static func tunnel(_ raw: OpaquePointer) -> Tunnel? {
        guard rtnl_link_is_vxlan(raw) != 0 else { return nil }
        var (identifier, port, underlay) = (UInt32(0), UInt32(0), UInt32(0))
        var (local, group): (OpaquePointer?, OpaquePointer?) = (nil, nil)
        // Each returns an error, and leaves its argument, where the kernel gave no such attribute.
        _ = rtnl_link_vxlan_get_id(raw, &identifier)
        _ = rtnl_link_vxlan_get_port(raw, &port)
        _ = rtnl_link_vxlan_get_link(raw, &underlay)
        if rtnl_link_vxlan_get_local(raw, &local) != 0 { local = nil }
        if rtnl_link_vxlan_get_group(raw, &group) != 0 { group = nil }
        defer {
            if let local { nl_addr_put(local) }
            if let group { nl_addr_put(group) }
        }
        let modes = [
            rtnl_link_vxlan_get_proxy(raw), rtnl_link_vxlan_get_rsc(raw), rtnl_link_vxlan_get_l2miss(raw),
            rtnl_link_vxlan_get_l3miss(raw), rtnl_link_vxlan_get_collect_metadata(raw),
        ]
        return Tunnel(
            identifier: identifier,
            port: UInt16(truncatingIfNeeded: port),
            local: NetlinkAddress.subnet(local)?.network,
            underlay: Int32(truncatingIfNeeded: underlay),
            isLearning: rtnl_link_vxlan_get_learning(raw) > 0,
            isSpecial: group != nil || modes.contains { $0 > 0 } || rtnl_link_vxlan_get_udp_csum(raw) == 0
        )
    }

    /// Comes up with the request; nothing is left of it when that is refused.
    func addTunnel(_ device: OverlayDevice) throws(NetworkError) {
        guard let link = rtnl_link_vxlan_alloc() else { throw NetworkError(.exhausted, "no memory for a link") }
        defer { rtnl_link_put(link) }
        let hardware = try NetlinkAddress(device.hardware)
        rtnl_link_set_name(link, OverlayDevice.name)
        rtnl_link_set_addr(link, hardware.raw)
        rtnl_link_set_mtu(link, UInt32(device.mtu))
        rtnl_link_set_flags(link, UInt32(IFF_UP))
        rtnl_link_vxlan_set_id(link, device.tunnel.identifier)
        rtnl_link_vxlan_set_port(link, UInt32(device.tunnel.port))
        rtnl_link_vxlan_set_link(link, UInt32(device.tunnel.underlay))
        rtnl_link_vxlan_disable_learning(link)
        if let address = device.tunnel.local {
            let local = try NetlinkAddress(address)
            rtnl_link_vxlan_set_local(link, local.raw)
        }
        try request("cannot add the link `\(OverlayDevice.name)`") {
            rtnl_link_add($0, link, NLM_F_CREATE | NLM_F_EXCL)
        }
    }
}
