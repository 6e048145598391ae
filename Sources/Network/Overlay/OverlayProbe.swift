// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model

/// Sends packets of both sizes to every node, over the underlay and through the overlay, and collects what comes back.
///
/// The other nodes need no help: their kernels answer echo requests, and refuse a datagram to a port nobody has only after
/// they found its checksum right. Sockets belong to the namespace of the thread that makes this; waiting may happen on
/// any.
final class OverlayProbe: Sendable {
    /// One in each part of the deadline, to those that did not answer yet: a lost packet is no finding.
    private static let tries = 3
    /// Nobody listens there (TCPMUX); where somebody does, nothing comes back and the offload is suspected.
    private static let closedPort: UInt16 = 1
    private static let smallBytes = 84
    /// IPv4 and ICMP headers.
    private static let headerBytes = 28

    private let echo: Int32
    private let datagram: Int32
    private let identifier: UInt16
    private let conditions: OverlayDiagnosis.Conditions

    /// - Parameter identifier: tells these probes from those of others.
    init(_ conditions: OverlayDiagnosis.Conditions, identifier: UInt16) throws(NetworkError) {
        self.conditions = conditions
        self.identifier = identifier
        echo = socket(AF_INET, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), Int32(IPPROTO_ICMP))
        datagram = socket(AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        let failure = errno
        // Never in pieces, and whatever the kernel learned about the path before.
        var whole = Int32(IP_PMTUDISC_PROBE)
        for socket in [echo, datagram] where socket >= 0 {
            setsockopt(socket, Int32(IPPROTO_IP), IP_MTU_DISCOVER, &whole, 4)
        }
        var room: Int32 = 1 << 20
        setsockopt(echo, SOL_SOCKET, SO_RCVBUF, &room, 4)
        guard echo >= 0, datagram >= 0 else { throw .system("cannot open a socket for probes", errno: failure) }
    }

    deinit {
        for socket in [echo, datagram] where socket >= 0 { close(socket) }
    }

    /// Blocks until every node answered everything, at most for `limit`.
    func run(_ nodes: [RemoteNode], within limit: Duration) -> [NodeID: OverlayDiagnosis.Answers] {
        var answers: [IPv4Address: OverlayDiagnosis.Answers] = [:]
        func found(_ node: RemoteNode) -> OverlayDiagnosis.Answers {
            // Each only where it was asked: a gateway answers for the overlay, a node's address for the underlay.
            (answers[node.subnet[1]] ?? []).intersection([.overlay, .overlayWhole, .checksum])
                .union((answers[node.address] ?? []).intersection([.underlay, .underlayWhole]))
        }
        let all: OverlayDiagnosis.Answers = [.underlay, .underlayWhole, .overlay, .overlayWhole, .checksum]
        let clock = ContinuousClock()
        let start = clock.now
        for attempt in 1...Self.tries {
            let missing = nodes.filter { found($0) != all }
            if missing.isEmpty { break }
            for node in missing { send(to: node, except: found(node)) }
            let end = start + limit * attempt / Self.tries
            while clock.now < end, nodes.contains(where: { found($0) != all }) {
                let left = (end - clock.now) / .milliseconds(1)
                var waiting = pollfd(fd: echo, events: Int16(POLLIN), revents: 0)
                guard poll(&waiting, 1, Int32(max(1, min(left, 1000)))) > 0 else { continue }
                receive(&answers)
            }
        }
        return Dictionary(nodes.map { ($0.id, found($0)) }, uniquingKeysWith: { first, _ in first })
    }

    /// What cannot be sent is not answered, which says the same.
    private func send(to node: RemoteNode, except known: OverlayDiagnosis.Answers) {
        let probes: [(OverlayDiagnosis.Answers, IPv4Address, Int)] = [
            (.underlay, node.address, Self.smallBytes), (.underlayWhole, node.address, conditions.linkMTU),
            (.overlay, node.subnet[1], Self.smallBytes), (.overlayWhole, node.subnet[1], conditions.mtu),
        ]
        for (kind, address, bytes) in probes where !known.contains(kind) {
            let packet = EchoPacket.request(identifier: identifier, sequence: UInt16(kind.rawValue), bytes: bytes - 20)
            Self.send(packet, to: address, 0, echo)
        }
        if !known.contains(.checksum) {
            let bytes = [UInt8](repeating: 0x5a, count: conditions.mtu - Self.headerBytes)
            Self.send(bytes, to: node.subnet[1], Self.closedPort, datagram)
        }
    }

    private static func send(_ bytes: [UInt8], to address: IPv4Address, _ port: UInt16, _ socket: Int32) {
        var target = sockaddr_in()
        target.sin_family = sa_family_t(AF_INET)
        target.sin_port = port.bigEndian
        target.sin_addr.s_addr = address.value.bigEndian
        _ = withUnsafePointer(to: &target) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(socket, bytes, bytes.count, Int32(MSG_DONTWAIT), $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    private func receive(_ answers: inout [IPv4Address: OverlayDiagnosis.Answers]) {
        // The beginning is enough; the rest of a packet is cut off.
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = recv(echo, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        guard count > 0, let packet = EchoPacket(bytes[..<count]) else { return }
        switch packet {
        case .reply(let source, let identifier, let sequence):
            guard identifier == self.identifier, let kind = UInt8(exactly: sequence) else { return }
            answers[source, default: []].formUnion(OverlayDiagnosis.Answers(rawValue: kind))
        case .refusal(let destination, let port):
            if port == Self.closedPort { answers[destination, default: []].insert(.checksum) }
        }
    }
}

/// ICMP as these probes need it (RFC 792). Pure.
enum EchoPacket: Equatable {
    case reply(from: IPv4Address, identifier: UInt16, sequence: UInt16)
    /// Nobody listens on this UDP port.
    case refusal(by: IPv4Address, port: UInt16)

    /// - Parameter bytes: a packet as a raw socket gives it, IPv4 header first; may be cut off.
    init?(_ bytes: ArraySlice<UInt8>) {
        func header(_ packet: ArraySlice<UInt8>) -> (
            protocol: UInt8, source: IPv4Address, to: IPv4Address, rest: ArraySlice<UInt8>
        )? {
            guard packet.count >= 20, let first = packet.first, first >> 4 == 4 else { return nil }
            let length = Int(first & 15) * 4
            guard length >= 20, packet.count >= length + 8 else { return nil }
            func address(_ offset: Int) -> IPv4Address {
                IPv4Address(value: packet.dropFirst(offset).prefix(4).reduce(0) { $0 << 8 | UInt32($1) })
            }
            return (packet[packet.startIndex + 9], address(12), address(16), packet.dropFirst(length))
        }
        func number(_ packet: ArraySlice<UInt8>, _ offset: Int) -> UInt16 {
            packet.dropFirst(offset).prefix(2).reduce(0) { $0 << 8 | UInt16($1) }
        }
        guard let outer = header(bytes), outer.protocol == 1, let type = outer.rest.first else { return nil }
        switch (type, outer.rest.dropFirst().first) {
        case (0, _):
            self = .reply(from: outer.source, identifier: number(outer.rest, 4), sequence: number(outer.rest, 6))
        case (3, 3):
            guard let inner = header(outer.rest.dropFirst(8)), inner.protocol == 17 else { return nil }
            self = .refusal(by: inner.to, port: number(inner.rest, 2))
        default: return nil
        }
    }

    /// - Parameter bytes: of the ICMP message, header included; at least 8.
    static func request(identifier: UInt16, sequence: UInt16, bytes count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0x5a, count: max(8, count))
        bytes.replaceSubrange(
            0..<8,
            with: [
                8, 0, 0, 0, UInt8(identifier >> 8), UInt8(identifier & 255), UInt8(sequence >> 8),
                UInt8(sequence & 255),
            ])
        let sum = checksum(bytes)
        (bytes[2], bytes[3]) = (UInt8(sum >> 8), UInt8(sum & 255))
        return bytes
    }

    /// Of RFC 1071.
    static func checksum(_ bytes: [UInt8]) -> UInt16 {
        var sum: UInt64 = 0
        for index in stride(from: 0, to: bytes.count, by: 2) {
            sum += UInt64(bytes[index]) << 8 + UInt64(index + 1 < bytes.count ? bytes[index + 1] : 0)
        }
        while sum >> 16 != 0 { sum = sum & 0xffff + sum >> 16 }
        return ~UInt16(truncatingIfNeeded: sum)
    }
}
