// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
internal import Model

/// A tracked connection: what its opener meant, and who answers.
struct Flow: Hashable, Sendable {
    var protocolNumber: UInt8
    var source: IPv4Address
    var destination: IPv4Address
    /// 0 for protocols without ports.
    var destinationPort: UInt16
    var answering: IPv4Address
    var answeringPort: UInt16

    var isTranslated: Bool { destination != answering }
}

/// Which flows the kernel is asked for; one that cannot filter (before 5.8) gives all of them, so callers look again.
enum FlowFilter {
    case openedBy(IPv4Address)
    case answeredBy(IPv4Address)
    case ofProtocol(UInt8)
}

/// The connection tracking table of a namespace.
struct FlowTable: ~Copyable {
    private let socket: NetlinkSocket

    init() throws(NetworkError) { socket = try NetlinkSocket(family: NETLINK_NETFILTER) }

    /// Forgets flows: the next packet of each is balanced anew, or refused. The kernel walks its whole table.
    /// - Returns: how many.
    @discardableResult
    func delete(_ filter: FlowFilter, where matches: (Flow) -> Bool) throws(NetworkError) -> Int {
        var found: [OpaquePointer]
        do throws(NetworkError) { found = try list(filter) } catch {
            guard error.errno == EINVAL || error.errno == EOPNOTSUPP else { throw error }
            found = try list(nil)
        }
        defer { for raw in found { nfnl_ct_put(raw) } }
        var deleted = 0
        for raw in found {
            guard let flow = Self.flow(raw), matches(flow) else { continue }
            try socket.request("cannot forget a connection of \(flow.answering)", tolerating: [ENOENT]) {
                nfnl_ct_del($0, raw, 0)
            }
            deleted += 1
        }
        return deleted
    }

    private final class Found {
        var flows: [OpaquePointer] = []
    }

    /// The caller puts each of them.
    private func list(_ filter: FlowFilter?) throws(NetworkError) -> [OpaquePointer] {
        guard
            let message = nfnlmsg_alloc_simple(
                UInt8(NFNL_SUBSYS_CTNETLINK),
                UInt8(IPCTNL_MSG_CT_GET.rawValue),
                NLM_F_REQUEST | NLM_F_DUMP,
                UInt8(AF_INET),
                0
            )
        else { throw NetworkError(.exhausted, "no memory for a request") }
        defer { nlmsg_free(message) }
        if let filter { Self.put(filter, message) }
        let found = Found()
        try withExtendedLifetime(found) { () throws(NetworkError) in
            try socket.request("cannot list connections") { raw in
                nl_socket_modify_cb(
                    raw,
                    NL_CB_VALID,
                    NL_CB_CUSTOM,
                    { message, context in
                        guard let message, let context else { return Int32(NL_SKIP.rawValue) }
                        var flow: OpaquePointer?
                        if nfnlmsg_ct_parse(nlmsg_hdr(message), &flow) == 0, let flow {
                            Unmanaged<Found>.fromOpaque(context).takeUnretainedValue().flows.append(flow)
                        }
                        return Int32(NL_OK.rawValue)
                    },
                    Unmanaged.passUnretained(found).toOpaque()
                )
                defer { nl_socket_modify_cb(raw, NL_CB_VALID, NL_CB_DEFAULT, nil, nil) }
                let sent = nl_send_auto(raw, message)
                return sent < 0 ? sent : nl_recvmsgs_default(raw)
            }
        }
        return found.flows
    }

    // Bits of CTA_FILTER_*_FLAGS; the kernel's header keeps them to itself (net/netfilter/nf_internals.h).
    private static let byAddress: UInt32 = 1 << 0
    private static let byProtocol: UInt32 = 1 << 3

    private static func put(_ filter: FlowFilter, _ message: OpaquePointer) {
        func nest(_ type: UInt32, _ body: () -> Void) {
            let start = nla_nest_start(message, Int32(type))
            body()
            nla_nest_end(message, start)
        }
        let flags: (original: UInt32, reply: UInt32)
        switch filter {
        case .openedBy(let address), .answeredBy(let address):
            let opened = if case .openedBy = filter { true } else { false }
            nest((opened ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY).rawValue) {
                nest(CTA_TUPLE_IP.rawValue) {
                    nla_put_u32(message, Int32(CTA_IP_V4_SRC.rawValue), address.value.bigEndian)
                }
            }
            flags = opened ? (byAddress, 0) : (0, byAddress)
        case .ofProtocol(let number):
            nest(CTA_TUPLE_ORIG.rawValue) {
                nest(CTA_TUPLE_PROTO.rawValue) { nla_put_u8(message, Int32(CTA_PROTO_NUM.rawValue), number) }
            }
            flags = (byProtocol, 0)
        }
        nest(CTA_FILTER.rawValue) {
            nla_put_u32(message, Int32(CTA_FILTER_ORIG_FLAGS.rawValue), flags.original)
            nla_put_u32(message, Int32(CTA_FILTER_REPLY_FLAGS.rawValue), flags.reply)
        }
    }

    private static func flow(_ raw: OpaquePointer) -> Flow? {
        guard let source = NetlinkAddress.subnet(nfnl_ct_get_src(raw, 0)),
            let destination = NetlinkAddress.subnet(nfnl_ct_get_dst(raw, 0)),
            let answering = NetlinkAddress.subnet(nfnl_ct_get_src(raw, 1))
        else { return nil }
        return Flow(
            protocolNumber: nfnl_ct_get_proto(raw),
            source: source.network,
            destination: destination.network,
            destinationPort: nfnl_ct_test_dst_port(raw, 0) != 0 ? nfnl_ct_get_dst_port(raw, 0) : 0,
            answering: answering.network,
            answeringPort: nfnl_ct_test_src_port(raw, 1) != 0 ? nfnl_ct_get_src_port(raw, 1) : 0
        )
    }
}
