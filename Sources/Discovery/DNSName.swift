// SPDX-License-Identifier: Apache-2.0

/// A domain name as it travels: length octets and labels, the root's zero left out.
///
/// At most 254 bytes, labels of 1...63 bytes (RFC 1035, 2.3.4).
struct DNSName: Hashable, Sendable, CustomStringConvertible {
    static let bytesMax = 254
    private(set) var wire: [UInt8]

    static let root = DNSName(uncheckedWire: [])

    init(uncheckedWire: [UInt8]) { wire = uncheckedWire }

    /// Nil for an empty or overlong label or an overlong name. One trailing dot is allowed; `""` and `"."` are the root.
    init?(_ text: String) {
        var text = Substring(text)
        if text.hasSuffix(".") { text.removeLast() }
        wire = []
        if text.isEmpty { return }
        for label in text.split(separator: ".", omittingEmptySubsequences: false) {
            guard let piece = Self.label(label) else { return nil }
            wire += piece
        }
        guard wire.count <= Self.bytesMax else { return nil }
    }

    /// Length octet and bytes of one label, nil unless it has 1...63 bytes.
    static func label(_ text: some StringProtocol) -> [UInt8]? {
        let bytes = Array(text.utf8)
        guard (1...63).contains(bytes.count) else { return nil }
        return [UInt8(bytes.count)] + bytes
    }

    /// ASCII only, as DNS compares names (RFC 4343). Length octets are below `A` and stay.
    var lowercased: DNSName { DNSName(uncheckedWire: wire.map(lowercase)) }

    var description: String {
        var parts: [String] = []
        var at = 0
        while at < wire.count {
            let end = min(at + 1 + Int(wire[at]), wire.count)
            parts.append(String(decoding: wire[(at + 1)..<end], as: UTF8.self))
            at = end
        }
        return parts.joined(separator: ".") + "."
    }
}

@inline(__always)
func lowercase(_ byte: UInt8) -> UInt8 { byte &- 65 < 26 ? byte | 0x20 : byte }
