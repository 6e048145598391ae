// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
internal import Model

struct Link: Hashable, Sendable {
    var index: Int32
    var name: String
    /// Index of the other end, in that end's namespace; 0 when there is none.
    var peer: Int32
    var hardware: HardwareAddress?
    var mtu: Int
    var isUp: Bool
    /// Nil for a link of another kind.
    var tunnel: Tunnel?
}

extension NetlinkSocket {
    static let loopback: Int32 = 1

    private static func link(_ raw: OpaquePointer) -> Link? {
        guard let name = rtnl_link_get_name(raw) else { return nil }
        return Link(
            index: rtnl_link_get_ifindex(raw),
            name: String(cString: name),
            peer: rtnl_link_get_link(raw),
            hardware: NetlinkAddress.hardware(rtnl_link_get_addr(raw)),
            mtu: Int(rtnl_link_get_mtu(raw)),
            isUp: rtnl_link_get_flags(raw) & UInt32(IFF_UP) != 0,
            tunnel: tunnel(raw)
        )
    }

    /// Nil when there is none of this name.
    func link(named name: String) throws(NetworkError) -> Link? {
        var raw: OpaquePointer?
        try request("cannot read the link `\(name)`", tolerating: [ENODEV, ENOENT]) {
            rtnl_link_get_kernel($0, 0, name, &raw)
        }
        guard let raw else { return nil }
        defer { rtnl_link_put(raw) }
        return Self.link(raw)
    }

    func links() throws(NetworkError) -> [Link] {
        try dump("links", { rtnl_link_alloc_cache($0, AF_UNSPEC, $1) }, make: Self.link)
    }

    /// One request makes both ends; the node's end comes up, the other is born in `namespace` as `eth0`, down.
    /// - Parameter mtu: of both; nil leaves the kernel's own.
    func addPair(
        _ name: LinkName,
        namespace: borrowing Descriptor,
        peerAddress: HardwareAddress,
        mtu: Int?
    ) throws(NetworkError) {
        guard let link = rtnl_link_veth_alloc() else { throw NetworkError(.exhausted, "no memory for a link") }
        defer { rtnl_link_put(link) }
        guard let peer = rtnl_link_veth_get_peer(link) else { throw NetworkError(.exhausted, "no memory for a link") }
        let ours = try NetlinkAddress(HardwareAddress.gateway)
        let theirs = try NetlinkAddress(peerAddress)
        rtnl_link_set_name(link, name.description)
        rtnl_link_set_addr(link, ours.raw)
        rtnl_link_set_flags(link, UInt32(IFF_UP))
        rtnl_link_set_name(peer, Attachment.interface)
        rtnl_link_set_addr(peer, theirs.raw)
        rtnl_link_set_ns_fd(peer, namespace.raw)
        if let mtu {
            rtnl_link_set_mtu(link, UInt32(mtu))
            rtnl_link_set_mtu(peer, UInt32(mtu))
        }
        rtnl_link_put(peer)
        try request("cannot add the link `\(name)`") { rtnl_link_add($0, link, NLM_F_CREATE | NLM_F_EXCL) }
    }

    func setUp(_ index: Int32) throws(NetworkError) {
        try change(index, "cannot bring up link \(index)") { rtnl_link_set_flags($0, UInt32(IFF_UP)) }
    }

    func setMTU(_ index: Int32, _ mtu: Int) throws(NetworkError) {
        try change(index, "cannot set the MTU of link \(index) to \(mtu)") { rtnl_link_set_mtu($0, UInt32(mtu)) }
    }

    private func change(_ index: Int32, _ what: String, _ set: (OpaquePointer) -> Void) throws(NetworkError) {
        guard let old = rtnl_link_alloc() else { throw NetworkError(.exhausted, "no memory for a link") }
        defer { rtnl_link_put(old) }
        guard let new = rtnl_link_alloc() else { throw NetworkError(.exhausted, "no memory for a link") }
        defer { rtnl_link_put(new) }
        rtnl_link_set_ifindex(old, index)
        set(new)
        try request(what) { rtnl_link_change($0, old, new, 0) }
    }

    /// Both ends of a pair. Waits for the kernel's readers: about 20 ms. No error when there is none.
    func deleteLink(_ link: Link) throws(NetworkError) {
        guard let raw = rtnl_link_alloc() else { throw NetworkError(.exhausted, "no memory for a link") }
        defer { rtnl_link_put(raw) }
        rtnl_link_set_ifindex(raw, link.index)
        try request("cannot delete the link `\(link.name)`", tolerating: [ENODEV]) { rtnl_link_delete($0, raw) }
    }
}

/// An IPv4 address on a link.
struct LinkAddress: Hashable, Sendable {
    var link: Int32
    /// Nothing cut off: the host's own bits count.
    var address: IPv4Address
    var prefix: Int
}

extension NetlinkSocket {
    func addresses() throws(NetworkError) -> [LinkAddress] {
        try dump("addresses", { rtnl_addr_alloc_cache($0, $1) }) { raw in
            guard let local = rtnl_addr_get_local(raw), nl_addr_get_family(local) == AF_INET,
                nl_addr_get_len(local) == 4, let bytes = nl_addr_get_binary_addr(local)
            else { return nil }
            return LinkAddress(
                link: rtnl_addr_get_ifindex(raw),
                address: IPv4Address(value: UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))),
                prefix: Int(rtnl_addr_get_prefixlen(raw))
            )
        }
    }

    /// - Parameter scope: `RT_SCOPE_LINK` keeps the kernel from choosing the address as a source by itself.
    func addAddress(_ address: IPv4Address, link: Int32, scope: Int32) throws(NetworkError) {
        try withAddress(address, link: link) { (raw) throws(NetworkError) in
            rtnl_addr_set_scope(raw, scope)
            try request("cannot add the address \(address)", tolerating: [EEXIST]) {
                rtnl_addr_add($0, raw, NLM_F_CREATE | NLM_F_EXCL)
            }
        }
    }

    func deleteAddress(_ address: IPv4Address, link: Int32) throws(NetworkError) {
        try withAddress(address, link: link) { (raw) throws(NetworkError) in
            try request("cannot delete the address \(address)", tolerating: [EADDRNOTAVAIL, ENODEV]) {
                rtnl_addr_delete($0, raw, 0)
            }
        }
    }

    private func withAddress(
        _ address: IPv4Address,
        link: Int32,
        _ body: (OpaquePointer) throws(NetworkError) -> Void
    ) throws(NetworkError) {
        guard let raw = rtnl_addr_alloc() else { throw NetworkError(.exhausted, "no memory for an address") }
        defer { rtnl_addr_put(raw) }
        let local = try NetlinkAddress(address)
        rtnl_addr_set_ifindex(raw, link)
        rtnl_addr_set_local(raw, local.raw)
        try body(raw)
    }
}
