// SPDX-License-Identifier: Apache-2.0

/// An IPv4 address, host byte order inside, dotted text outside.
public struct IPv4Address: Hashable, Comparable, Codable, Sendable, CustomStringConvertible {
    public var value: UInt32

    public init(value: UInt32) { self.value = value }

    /// Nil unless `text` is four decimal numbers of 0...255 without leading zeros.
    public init?(_ text: some StringProtocol) {
        var value: UInt32 = 0
        var dots = 0
        var number: UInt32?
        // Digit by digit: every row of a task has one.
        for byte in text.utf8 {
            switch (byte, number) {
            case (UInt8(ascii: "."), let whole?):
                value = value << 8 | whole
                number = nil
                dots += 1
                if dots > 3 { return nil }
            case (UInt8(ascii: "0")...UInt8(ascii: "9"), nil): number = UInt32(byte - UInt8(ascii: "0"))
            case (UInt8(ascii: "0")...UInt8(ascii: "9"), let whole?):
                let next = whole * 10 + UInt32(byte - UInt8(ascii: "0"))
                guard whole > 0, next <= 255 else { return nil }
                number = next
            default: return nil
            }
        }
        guard dots == 3, let number else { return nil }
        self.value = value << 8 | number
    }

    public static func < (left: Self, right: Self) -> Bool { left.value < right.value }
    public var description: String {
        "\(value >> 24).\(value >> 16 & 255).\(value >> 8 & 255).\(value & 255)"
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let address = IPv4Address(text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "`\(text)` is not an IPv4 address")
        }
        self = address
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// An IPv4 network, `10.210.0.0/16`; host bits are zero.
public struct IPv4Subnet: Hashable, Codable, Sendable, CustomStringConvertible {
    public let network: IPv4Address
    /// 0...32
    public let prefix: Int

    /// Host bits of `address` are cleared.
    public init(_ address: IPv4Address, prefix: Int) {
        precondition((0...32).contains(prefix), "prefix \(prefix)")
        self.prefix = prefix
        network = IPv4Address(value: address.value & Self.mask(prefix))
    }

    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let address = IPv4Address(parts[0]), let prefix = Int(parts[1]),
            (0...32).contains(prefix)
        else { return nil }
        self.init(address, prefix: prefix)
    }

    /// Number of addresses, network and broadcast included.
    public var count: UInt64 { 1 << UInt64(32 - prefix) }
    public var description: String { "\(network)/\(prefix)" }

    public subscript(offset: Int) -> IPv4Address { IPv4Address(value: network.value + UInt32(offset)) }

    public func contains(_ address: IPv4Address) -> Bool { address.value & Self.mask(prefix) == network.value }
    public func overlaps(_ other: IPv4Subnet) -> Bool { contains(other.network) || other.contains(network) }

    private static func mask(_ prefix: Int) -> UInt32 { prefix == 0 ? 0 : ~UInt32(0) << UInt32(32 - prefix) }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let subnet = IPv4Subnet(text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "`\(text)` is not an IPv4 subnet")
        }
        self = subnet
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// The addresses one cluster uses (design, section 7). Fixed once a cluster exists.
public struct AddressRanges: Hashable, Codable, Sendable {
    /// Containers, a /24 per node. `.0` is the node's overlay end, `.1` the gateway, `.2`–`.254` containers.
    public var containers: IPv4Subnet
    public var virtual: IPv4Subnet

    public init(containers: IPv4Subnet, virtual: IPv4Subnet) {
        self.containers = containers
        self.virtual = virtual
    }

    public static let standard = AddressRanges(
        containers: IPv4Subnet(IPv4Address(value: 10 << 24 | 210 << 16), prefix: 16),
        virtual: IPv4Subnet(IPv4Address(value: 10 << 24 | 211 << 16), prefix: 16)
    )

    /// Gateway of every container, the same on every node (link-local, never routed).
    public static let gateway = IPv4Address(value: 169 << 24 | 254 << 16 | 1 << 8 | 1)
    /// Where every container asks for names, on `lo` of its node.
    public static let nameServer = IPv4Address(value: 169 << 24 | 254 << 16 | 20 << 8 | 10)
}
