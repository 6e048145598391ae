// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
internal import Model

/// A netlink socket of the namespace of the thread that makes it. One user at a time.
struct NetlinkSocket: ~Copyable {
    private static let answerSecondsMax: Int32 = 10
    static let dumpTries = 5

    let raw: OpaquePointer
    private let failure: UnsafeMutablePointer<hm_nl_error>

    /// - Parameter family: `NETLINK_ROUTE` or `NETLINK_NETFILTER`.
    init(family: Int32 = NETLINK_ROUTE) throws(NetworkError) {
        guard let raw = nl_socket_alloc() else { throw NetworkError(.exhausted, "no memory for a netlink socket") }
        let status = nl_connect(raw, family)
        guard status == 0 else {
            nl_socket_free(raw)
            throw .netlink("cannot open netlink \(family)", status: status, errno: 0, text: "")
        }
        self.raw = raw
        failure = .allocate(capacity: 1)
        failure.initialize(to: hm_nl_error())
        hm_nl_configure(raw, failure, Self.answerSecondsMax)
    }

    deinit {
        nl_socket_free(raw)
        failure.deallocate()
    }

    /// One request and its answer.
    /// - Parameters:
    ///   - what: for the error, e.g. "cannot add the link `hmabc`".
    ///   - tolerating: errno values that mean the wanted state is already there.
    func request(
        _ what: @autoclosure () -> String,
        tolerating: [Int32] = [],
        _ call: (OpaquePointer) -> Int32
    ) throws(NetworkError) {
        // libnl's own refusals do not touch the struct.
        failure.pointee = hm_nl_error()
        let status = call(raw)
        guard status < 0 else { return }
        let errno = failure.pointee.code == 0 ? Self.errno(status: -status) : failure.pointee.code
        if errno != 0 && tolerating.contains(errno) { return }
        let text = withUnsafeBytes(of: failure.pointee.text) {
            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        throw .netlink(what(), status: status, errno: errno, text: text)
    }

    /// For the few calls that install a callback of their own and keep only libnl's translation; 0 for all else.
    private static func errno(status: Int32) -> Int32 {
        switch status {
        case NLE_NODEV: ENODEV
        case NLE_OBJ_NOTFOUND: ENOENT
        case NLE_EXIST: EEXIST
        default: 0
        }
    }

    /// Every object of a dump, as `make` sees it. A dump that was interrupted by a change is repeated.
    func dump<Value>(
        _ what: String,
        _ allocate: (OpaquePointer, UnsafeMutablePointer<OpaquePointer?>) -> Int32,
        make: (OpaquePointer) -> Value?
    ) throws(NetworkError) -> [Value] {
        var cache: OpaquePointer?
        try request("cannot list \(what)") { raw in
            var status = -NLE_DUMP_INTR
            for _ in 0..<Self.dumpTries where status == -NLE_DUMP_INTR { status = allocate(raw, &cache) }
            return status
        }
        defer { nl_cache_free(cache) }
        var values: [Value] = []
        var item = nl_cache_get_first(cache)
        while let object = item {
            if let value = make(object) { values.append(value) }
            item = nl_cache_get_next(object)
        }
        return values
    }
}

/// A libnl address: IPv4 network or link-layer.
struct NetlinkAddress: ~Copyable {
    let raw: OpaquePointer

    init(_ subnet: IPv4Subnet) throws(NetworkError) {
        var bytes = subnet.network.value.bigEndian
        guard let raw = nl_addr_build(AF_INET, &bytes, 4) else { throw NetworkError(.exhausted, "no memory") }
        nl_addr_set_prefixlen(raw, Int32(subnet.prefix))
        self.raw = raw
    }

    init(_ address: IPv4Address) throws(NetworkError) { try self.init(IPv4Subnet(address, prefix: 32)) }

    init(_ hardware: HardwareAddress) throws(NetworkError) {
        var bytes = hardware.bytes
        guard let raw = nl_addr_build(AF_LLC, &bytes, bytes.count) else { throw NetworkError(.exhausted, "no memory") }
        self.raw = raw
    }

    deinit { nl_addr_put(raw) }

    /// Nil unless `raw` is a link's address of six bytes.
    static func hardware(_ raw: OpaquePointer?) -> HardwareAddress? {
        guard let raw, nl_addr_get_len(raw) == 6, let bytes = nl_addr_get_binary_addr(raw) else { return nil }
        return HardwareAddress(bytes: Array(UnsafeRawBufferPointer(start: bytes, count: 6)))
    }

    /// Nil unless `raw` is an IPv4 address. An empty one (a default route) is 0.0.0.0/0.
    static func subnet(_ raw: OpaquePointer?) -> IPv4Subnet? {
        guard let raw, nl_addr_get_family(raw) == AF_INET else { return nil }
        guard nl_addr_get_len(raw) == 4, let bytes = nl_addr_get_binary_addr(raw) else {
            return nl_addr_get_len(raw) == 0 ? IPv4Subnet(IPv4Address(value: 0), prefix: 0) : nil
        }
        let value = UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))
        return IPv4Subnet(IPv4Address(value: value), prefix: Int(min(nl_addr_get_prefixlen(raw), 32)))
    }
}

/// Six bytes, locally administered.
struct HardwareAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
    let bytes: [UInt8]

    static func < (left: Self, right: Self) -> Bool { left.bytes.lexicographicallyPrecedes(right.bytes) }

    /// `02:68:0a:d2:01:05`
    var description: String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    }

    /// The node's end of every link: the same everywhere, so that a container's neighbour entry never changes.
    static let gateway = HardwareAddress(bytes: [0x02, 0x68, 0x6d, 0xff, 0xff, 0x01])

    /// The container's end, made of its address, so that both sides know it without asking.
    static func container(_ address: IPv4Address) -> Self {
        Self(bytes: [0x02, 0x68] + (0..<4).reversed().map { UInt8(truncatingIfNeeded: address.value >> ($0 * 8)) })
    }
}
