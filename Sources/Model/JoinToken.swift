// SPDX-License-Identifier: Apache-2.0

/// What a machine needs to become a node: where the cluster is, how to know it, and a secret.
///
/// One word without spaces, `hmj_` and base32 letters, so that it survives chat, shells and paper: upper case, dashes and
/// spaces do not matter, `o`, `i` and `l` are read as the digits they look like, and a checksum finds any other slip.
///
/// The secret is never shown: descriptions and mirrors leave it out, `text` alone has it.
public struct JoinToken: Hashable, Sendable, CustomStringConvertible, CustomReflectable {
    public static let prefix = "hmj_"
    public static let identityBytes = 8
    public static let secretBytes = 20
    /// SHA-256 of the public key of the cluster's authority.
    public static let digestBytes = 32
    public static let addressesMax = 5
    /// More than any token has.
    public static let textBytesMax = 4_096

    /// Names the token in lists and logs.
    public let identity: [UInt8]
    public let secret: [UInt8]
    public let digest: [UInt8]
    /// `host:port` of nodes, at least one; tried in order.
    public let addresses: [String]

    /// - Returns: nil unless the lengths are as above and every address has 1 to 255 bytes.
    public init?(identity: [UInt8], secret: [UInt8], digest: [UInt8], addresses: [String]) {
        guard identity.count == Self.identityBytes, secret.count == Self.secretBytes,
            digest.count == Self.digestBytes, (1...Self.addressesMax).contains(addresses.count),
            addresses.allSatisfy({ (1...255).contains($0.utf8.count) })
        else { return nil }
        (self.identity, self.secret, self.digest, self.addresses) = (identity, secret, digest, addresses)
    }

    /// The identity as lists show it: 13 base32 letters.
    public var id: String { Base32.text(identity) }

    /// For the one who is to join, and for nobody's log.
    public var text: String {
        var bytes: [UInt8] = [Self.format]
        bytes += identity + secret + digest
        for address in addresses {
            bytes.append(UInt8(address.utf8.count))
            bytes += Array(address.utf8)
        }
        return Self.prefix + Base32.text(bytes + Self.checksum(bytes))
    }

    /// - Throws: `Problem` `bad_request` that tells a slip of the pen from a token of another version or another thing.
    public init(_ text: String) throws(Problem) {
        let hint = "copy the whole line that `hivemind cluster token create` printed"
        let given = text.utf8.count > Self.textBytesMax ? "" : text.lowercased()
        guard given.hasPrefix(Self.prefix) else {
            let what = given.hasPrefix("hm_") ? "an API token" : "not a join token: those begin with `\(Self.prefix)`"
            throw Problem(.badRequest, "this is \(what)", hint: hint)
        }
        guard let bytes = Base32.bytes(given.dropFirst(Self.prefix.count)), bytes.count > Self.bytesMin else {
            throw Problem(.badRequest, "the join token is mistyped or cut off", hint: hint)
        }
        let body = bytes.dropLast(Self.checksumBytes)
        guard Self.checksum(body) == Array(bytes.suffix(Self.checksumBytes)) else {
            throw Problem(.badRequest, "the join token is mistyped: its checksum does not fit", hint: hint)
        }
        guard body.first == Self.format else {
            throw Problem(
                .badRequest, "the join token has format \(body.first ?? 0), this build reads \(Self.format)",
                hint: "install the version the cluster runs")
        }
        var rest = body.dropFirst()
        func take(_ count: Int) -> [UInt8] {
            defer { rest = rest.dropFirst(count) }
            return Array(rest.prefix(count))
        }
        let (identity, secret, digest) = (take(Self.identityBytes), take(Self.secretBytes), take(Self.digestBytes))
        var addresses: [String] = []
        while let length = rest.first, rest.count > Int(length) {
            rest = rest.dropFirst()
            addresses.append(String(decoding: take(Int(length)), as: UTF8.self))
        }
        guard rest.isEmpty,
            let token = JoinToken(identity: identity, secret: secret, digest: digest, addresses: addresses)
        else { throw Problem(.badRequest, "the join token is damaged", hint: hint) }
        self = token
    }

    public var description: String { "join token \(id)" }
    public var customMirror: Mirror { Mirror(self, children: ["id": id, "addresses": addresses]) }

    private static let format: UInt8 = 1
    private static let checksumBytes = 4
    private static let bytesMin = 1 + identityBytes + secretBytes + digestBytes + checksumBytes

    /// Against slips, not against forgery: CRC-32C, most significant byte first.
    private static func checksum(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        var crc: UInt32 = 0xffff_ffff
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82f6_3b78 : crc >> 1 }
        }
        crc = ~crc
        return (0..<checksumBytes).map { UInt8(truncatingIfNeeded: crc >> (24 - 8 * $0)) }
    }
}

/// Crockford's base32 in lower case: no `i`, `l`, `o`, `u`.
public enum Base32 {
    private static let alphabet = Array("0123456789abcdefghjkmnpqrstvwxyz".utf8)

    /// Padded with zero bits to whole letters.
    public static func text(_ bytes: some Sequence<UInt8>) -> String {
        var text: [UInt8] = []
        var (held, count): (UInt32, Int) = (0, 0)
        for byte in bytes {
            held = held << 8 | UInt32(byte)
            count += 8
            while count >= 5 {
                count -= 5
                text.append(alphabet[Int(held >> UInt32(count) & 31)])
            }
        }
        if count > 0 { text.append(alphabet[Int(held << UInt32(5 - count) & 31)]) }
        return String(decoding: text, as: UTF8.self)
    }

    /// Upper case counts like lower case, look-alikes like the digit; dashes and white space are skipped.
    /// - Returns: nil for another letter, or when the bits left over are not zero.
    public static func bytes(_ text: some StringProtocol) -> [UInt8]? {
        var bytes: [UInt8] = []
        var (held, count): (UInt32, Int) = (0, 0)
        for letter in text.utf8 {
            if [0x2d, 0x20, 0x09, 0x0a, 0x0d].contains(letter) { continue }
            let lower = (0x41...0x5a).contains(letter) ? letter + 0x20 : letter
            let plain: UInt8 =
                switch lower {
                case UInt8(ascii: "o"): UInt8(ascii: "0")
                case UInt8(ascii: "i"), UInt8(ascii: "l"): UInt8(ascii: "1")
                default: lower
                }
            guard let value = alphabet.firstIndex(of: plain) else { return nil }
            held = held << 5 | UInt32(value)
            count += 5
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: held >> UInt32(count)))
            }
        }
        guard count < 5, held & ((1 << UInt32(count)) - 1) == 0 else { return nil }
        return bytes
    }
}
