// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
internal import Model

/// An entry of a link's neighbour table, or of its forwarding table.
struct NeighbourEntry: Hashable, Sendable {
    /// Asked for: a dump of a forwarding table may hold those of other links.
    var link: Int32
    var hardware: HardwareAddress?
    /// Of a neighbour its own address; of a forwarding entry where its frames are sent.
    var address: IPv4Address?
    var isPermanent: Bool
    /// Sends to another port, network or link than the device itself would.
    var isDiverted: Bool
}

/// libnl knows neither forwarding entries with all their attributes nor how to delete one by its hardware address:
/// these messages are made and read here.
extension NetlinkSocket {
    /// A permanent entry, so that nobody ever has to ask (or wait) for the other end's hardware address.
    func setNeighbour(_ address: IPv4Address, _ hardware: HardwareAddress, link: Int32) throws(NetworkError) {
        try sendNeighbour(
            "cannot add the neighbour \(address)", RTM_NEWNEIGH, flags: NLM_F_CREATE | NLM_F_REPLACE,
            family: AF_INET, link: link, hardware: hardware, address: address)
    }

    func deleteNeighbour(_ address: IPv4Address, link: Int32) throws(NetworkError) {
        try sendNeighbour(
            "cannot delete the neighbour \(address)", RTM_DELNEIGH, tolerating: [ENOENT],
            family: AF_INET, link: link, address: address)
    }

    /// Frames for `hardware` go to `address`, and nowhere else.
    func setForwarding(_ hardware: HardwareAddress, to address: IPv4Address, link: Int32) throws(NetworkError) {
        try sendNeighbour(
            "cannot add the forwarding entry of \(hardware) to \(address)", RTM_NEWNEIGH,
            flags: NLM_F_CREATE | NLM_F_REPLACE, family: AF_BRIDGE, link: link, hardware: hardware, address: address)
    }

    /// Every destination of `hardware`.
    func deleteForwarding(_ hardware: HardwareAddress, link: Int32) throws(NetworkError) {
        try sendNeighbour(
            "cannot delete the forwarding entry of \(hardware)", RTM_DELNEIGH, tolerating: [ENOENT],
            family: AF_BRIDGE, link: link, hardware: hardware)
    }

    private func sendNeighbour(
        _ what: String,
        _ type: Int,
        flags: Int32 = 0,
        tolerating: [Int32] = [],
        family: Int32,
        link: Int32,
        hardware: HardwareAddress? = nil,
        address: IPv4Address? = nil
    ) throws(NetworkError) {
        guard let message = nlmsg_alloc_simple(Int32(type), flags) else {
            throw NetworkError(.exhausted, "no memory for a request")
        }
        var header = ndmsg()
        header.ndm_family = UInt8(family)
        header.ndm_ifindex = link
        header.ndm_state = UInt16(NUD_PERMANENT)
        header.ndm_flags = family == AF_BRIDGE ? UInt8(NTF_SELF) : 0
        var status = nlmsg_append(message, &header, MemoryLayout<ndmsg>.size, Int32(NLMSG_ALIGNTO))
        if let hardware, status == 0 { status = nla_put(message, Int32(NDA_LLADDR), 6, hardware.bytes) }
        if let address, status == 0 { status = nla_put_u32(message, Int32(NDA_DST), address.value.bigEndian) }
        guard status == 0 else {
            nlmsg_free(message)
            throw .netlink(what, status: status, errno: 0, text: "")
        }
        // Frees the message, whatever comes of it.
        try request(what, tolerating: tolerating) { nl_send_sync($0, message) }
    }

    private final class Found {
        var entries: [NeighbourEntry] = []
    }

    /// - Parameter family: `AF_INET` for neighbours, `AF_BRIDGE` for forwarding entries.
    func neighbours(_ family: Int32, link: Int32) throws(NetworkError) -> [NeighbourEntry] {
        let found = Found()
        try withExtendedLifetime(found) { () throws(NetworkError) in
            try request("cannot list the neighbours of link \(link)") { raw in
                var status = -NLE_DUMP_INTR
                for _ in 0..<Self.dumpTries where status == -NLE_DUMP_INTR {
                    found.entries = []
                    status = Self.dumpNeighbours(raw, family, found)
                }
                return status
            }
        }
        return found.entries.filter { $0.link == link }
    }

    private static func dumpNeighbours(_ socket: OpaquePointer, _ family: Int32, _ found: Found) -> Int32 {
        nl_socket_modify_cb(
            socket,
            NL_CB_VALID,
            NL_CB_CUSTOM,
            { message, context in
                guard let message, let context else { return Int32(NL_SKIP.rawValue) }
                if let entry = NetlinkSocket.neighbour(nlmsg_hdr(message)) {
                    Unmanaged<Found>.fromOpaque(context).takeUnretainedValue().entries.append(entry)
                }
                return Int32(NL_OK.rawValue)
            },
            Unmanaged.passUnretained(found).toOpaque()
        )
        defer { nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_DEFAULT, nil, nil) }
        var header = ndmsg()
        header.ndm_family = UInt8(family)
        let sent = nl_send_simple(socket, Int32(RTM_GETNEIGH), NLM_F_DUMP, &header, MemoryLayout<ndmsg>.size)
        return sent < 0 ? sent : nl_recvmsgs_default(socket)
    }

    private static func neighbour(_ message: UnsafeMutablePointer<nlmsghdr>?) -> NeighbourEntry? {
        let size = Int32(MemoryLayout<ndmsg>.size)
        guard let message, Int32(message.pointee.nlmsg_type) == Int32(RTM_NEWNEIGH),
            nlmsg_valid_hdr(message, size) != 0,
            let data = nlmsg_data(message)
        else { return nil }
        let header = data.loadUnaligned(as: ndmsg.self)
        func attribute(_ type: Int, bytes: Int32) -> UnsafeMutableRawPointer? {
            guard let found = nlmsg_find_attr(message, size, Int32(type)), nla_len(found) == bytes else { return nil }
            return nla_data(found)
        }
        let hardware = attribute(NDA_LLADDR, bytes: 6).map {
            HardwareAddress(bytes: Array(UnsafeRawBufferPointer(start: $0, count: 6)))
        }
        let address = attribute(NDA_DST, bytes: 4).map {
            IPv4Address(value: UInt32(bigEndian: $0.loadUnaligned(as: UInt32.self)))
        }
        return NeighbourEntry(
            link: header.ndm_ifindex,
            hardware: hardware,
            address: address,
            isPermanent: header.ndm_state == UInt16(NUD_PERMANENT),
            isDiverted: [NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_NH_ID].contains {
                nlmsg_find_attr(message, size, Int32($0)) != nil
            }
        )
    }
}
