// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
internal import Model

/// Finds out what of encryption the kernel has by trying: modules and configuration files tell less than the truth.
enum EncryptionProbe {
    /// No task can be named so.
    private static let linkName = "hm.wg"
    /// Addresses for documentation (RFC 5737): nothing is sent between them.
    private static let ends = (IPv4Address(value: 0xC000_0201), IPv4Address(value: 0xC000_0202))

    static func run() throws(NetworkError) -> EncryptionSupport {
        EncryptionSupport(wireGuard: try wireGuard(), esp: try esp())
    }

    /// A link that is made and removed. Nil when that worked.
    private static func wireGuard() throws(NetworkError) -> String? {
        let socket = try NetlinkSocket()
        guard let link = rtnl_link_alloc() else { throw NetworkError(.exhausted, "no memory for a link") }
        defer { rtnl_link_put(link) }
        rtnl_link_set_name(link, linkName)
        rtnl_link_set_type(link, "wireguard")
        do throws(NetworkError) {
            try socket.request("cannot add a WireGuard link", tolerating: [EEXIST]) {
                rtnl_link_add($0, link, NLM_F_CREATE | NLM_F_EXCL)
            }
        } catch { return error.message }
        if let made = try socket.link(named: linkName) { try socket.deleteLink(made) }
        return nil
    }

    /// A security association as nodes would use it, made and removed. Nil when that worked.
    private static func esp() throws(NetworkError) -> String? {
        let socket: NetlinkSocket
        do throws(NetworkError) { socket = try NetlinkSocket(family: NETLINK_XFRM) } catch { return error.message }
        var state = xfrm_usersa_info()
        state.id.daddr.a4 = ends.1.value.bigEndian
        state.saddr.a4 = ends.0.value.bigEndian
        state.id.spi = UInt32(0x686d_0001).bigEndian
        state.id.proto = UInt8(IPPROTO_ESP)
        state.family = UInt16(AF_INET)
        state.mode = UInt8(XFRM_MODE_TRANSPORT)
        state.lft.soft_byte_limit = .max
        state.lft.hard_byte_limit = .max
        state.lft.soft_packet_limit = .max
        state.lft.hard_packet_limit = .max
        // 16 bytes of key and 4 of salt; of no use to anybody.
        let name = Array("rfc4106(gcm(aes))".utf8)
        var algorithm = name + [UInt8](repeating: 0, count: 64 - name.count)
        for number in [UInt32(160), 128] { withUnsafeBytes(of: number) { algorithm += Array($0) } }
        algorithm += (0..<20).map { _ in UInt8.random(in: 0...255) }
        do throws(NetworkError) {
            try send(
                "cannot add a security association", XFRM_MSG_NEWSA, withUnsafeBytes(of: state) { Array($0) }, socket
            ) {
                nla_put($0, Int32(XFRMA_ALG_AEAD.rawValue), Int32(algorithm.count), algorithm)
            }
        } catch { return error.message }
        var id = xfrm_usersa_id()
        (id.daddr, id.spi, id.family, id.proto) = (state.id.daddr, state.id.spi, state.family, state.id.proto)
        try send("cannot remove a security association", XFRM_MSG_DELSA, withUnsafeBytes(of: id) { Array($0) }, socket)
        { _ in 0 }
        return nil
    }

    private static func send(
        _ what: String, _ kind: Int, _ header: [UInt8], _ socket: borrowing NetlinkSocket,
        _ attributes: (OpaquePointer) -> Int32
    ) throws(NetworkError) {
        guard let message = nlmsg_alloc_simple(Int32(kind), NLM_F_CREATE | NLM_F_EXCL) else {
            throw NetworkError(.exhausted, "no memory for a netlink message")
        }
        var header = header
        let isWhole =
            nlmsg_append(message, &header, header.count, Int32(NLMSG_ALIGNTO)) == 0 && attributes(message) == 0
        guard isWhole else {
            nlmsg_free(message)
            throw NetworkError(.exhausted, "no memory for a netlink message")
        }
        // Frees the message.
        try socket.request(what) { nl_send_sync($0, message) }
    }
}
