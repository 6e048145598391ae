// SPDX-License-Identifier: Apache-2.0
internal import Crypto

/// `sha256:<64 lower-case hex>`: the only algorithm accepted.
enum Digest {
    static func of(_ bytes: some Sequence<UInt8>) -> String {
        var hash = SHA256()
        hash.update(data: Array(bytes))
        return text(hash.finalize())
    }

    static func text(_ digest: SHA256.Digest) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text = Array("sha256:".utf8)
        for byte in digest {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    static func isValid(_ text: String) -> Bool {
        text.hasPrefix("sha256:") && text.utf8.count == 71 && text.utf8.dropFirst(7).allSatisfy(isHex)
    }

    static func isHex(_ byte: UInt8) -> Bool {
        (48...57).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
    }

    /// The id of a stack of layers: the first is its own, each next `sha256("<below> <layer>")` (OCI image spec).
    static func chain(_ diffIDs: [String]) -> String {
        diffIDs.dropFirst().reduce(diffIDs.first ?? "") { of("\($0) \($1)".utf8) }
    }
}
