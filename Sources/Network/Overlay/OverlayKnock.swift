// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model

/// Datagrams of both sizes to the overlay's port of other machines, and those that come from there.
///
/// Both ends run this at the same time. The port itself is the kernel's on a node that has a VXLAN device, so what arrives
/// is seen beside it, after the firewall; the device drops these datagrams, which are no VXLAN. Sockets belong to the
/// namespace of the thread that makes this; waiting may happen on any.
final class OverlayKnock: Sendable {
    private static let interval = Duration.milliseconds(50)
    /// IPv4 and UDP headers.
    private static let headerBytes = 28

    private let inbound: Int32
    private let outbound: Int32
    private let port: UInt16
    /// Of the link, in bytes.
    private let mtu: Int

    init(from own: IPv4Address, port: UInt16, mtu: Int) throws(NetworkError) {
        (self.port, self.mtu) = (port, mtu)
        inbound = socket(AF_INET, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), Int32(IPPROTO_UDP))
        outbound = socket(AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var failure = errno
        var whole = Int32(IP_PMTUDISC_PROBE)
        setsockopt(outbound, Int32(IPPROTO_IP), IP_MTU_DISCOVER, &whole, 4)
        var room: Int32 = 1 << 20
        setsockopt(inbound, SOL_SOCKET, SO_RCVBUF, &room, 4)
        var isBound = false
        if outbound >= 0 {
            isBound = Self.with(own, 0) { bind(outbound, $0, $1) } == 0
            if !isBound { failure = errno }
        }
        guard inbound >= 0, isBound else {
            throw .system("cannot send datagrams from \(own) to try the overlay's port", errno: failure)
        }
    }

    deinit {
        for socket in [inbound, outbound] where socket >= 0 { close(socket) }
    }

    /// Blocks until both sizes went both ways for every machine, at most for `limit`.
    /// - Parameter nonce: 16 bytes both ends know.
    func run(_ others: [IPv4Address], nonce: [UInt8], within limit: Duration) -> [IPv4Address: Knocks] {
        var heard: [IPv4Address: Knocks] = [:]
        var answered: [IPv4Address: Knocks] = [:]
        var done: Set<IPv4Address> = []
        let clock = ContinuousClock()
        let end = clock.now + limit
        var next = clock.now
        while clock.now < end, done.count < Set(others).count {
            if clock.now >= next {
                for other in others where !done.contains(other) { send(to: other, nonce, heard[other] ?? []) }
                next += Self.interval
            }
            let left = (min(next, end) - clock.now) / .milliseconds(1)
            var waiting = pollfd(fd: inbound, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, Int32(max(1, min(left, 50)))) > 0,
                let knock = receive(nonce), others.contains(knock.from)
            else { continue }
            heard[knock.from, default: []].formUnion(knock.size)
            answered[knock.from, default: []].formUnion(knock.heard)
            if !done.contains(knock.from), heard[knock.from] == .all, answered[knock.from] == .all {
                // The other end must learn it, too, and one of these may be lost.
                for _ in 0..<3 { send(to: knock.from, nonce, .all) }
                done.insert(knock.from)
            }
        }
        return heard
    }

    // MARK: - Datagrams: 0 and `hmknock`, the nonce, what was heard, its own size; then as long as it has to be.

    /// The first byte is no VXLAN header's.
    private static let magic: [UInt8] = [0] + Array("hmknock".utf8)

    private func send(to other: IPv4Address, _ nonce: [UInt8], _ heard: Knocks) {
        for (size, bytes) in [(Knocks.small, 64), (Knocks.whole, mtu - Self.headerBytes)] {
            var packet = Self.magic + nonce + [heard.rawValue, size.rawValue]
            packet += [UInt8](repeating: 0x5a, count: max(0, bytes - packet.count))
            // What cannot be sent does not arrive, which says the same.
            _ = Self.with(other, port) { sendto(outbound, packet, packet.count, Int32(MSG_DONTWAIT), $0, $1) }
        }
    }

    private func receive(_ nonce: [UInt8]) -> (from: IPv4Address, size: Knocks, heard: Knocks)? {
        // The beginning is enough; the rest of a packet is cut off.
        var bytes = [UInt8](repeating: 0, count: 128)
        let count = recv(inbound, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        guard count > 0 else { return nil }
        return Self.parse(Array(bytes[..<count]), port: port, nonce: nonce)
    }

    static func parse(
        _ bytes: [UInt8], port: UInt16, nonce: [UInt8]
    ) -> (from: IPv4Address, size: Knocks, heard: Knocks)? {
        guard let first = bytes.first, first >> 4 == 4 else { return nil }
        let header = Int(first & 15) * 4
        let body = header + 8
        let length = magic.count + nonce.count + 2
        guard header >= 20, bytes.count >= body + length, bytes[9] == 17,
            UInt16(bytes[header + 2]) << 8 | UInt16(bytes[header + 3]) == port,
            Array(bytes[body..<body + length - 2]) == magic + nonce
        else { return nil }
        let from = IPv4Address(value: bytes[12..<16].reduce(0) { $0 << 8 | UInt32($1) })
        return (from, Knocks(rawValue: bytes[body + length - 1]), Knocks(rawValue: bytes[body + length - 2]))
    }

    private static func with<Value>(
        _ address: IPv4Address, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Value
    ) -> Value {
        var target = sockaddr_in()
        target.sin_family = sa_family_t(AF_INET)
        target.sin_port = port.bigEndian
        target.sin_addr.s_addr = address.value.bigEndian
        return withUnsafePointer(to: &target) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}
