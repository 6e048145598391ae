// SPDX-License-Identifier: Apache-2.0

// Configs are written and read thousands of times a second: their JSON is made and read without the general coder, which
// takes longer than everything else such a request needs. The bytes are the same.

extension ConfigView {
    /// What `JSON.encode` gives.
    public var json: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(80 + data.utf8.count + name.utf8.count + namespace.utf8.count)
        bytes.append(contentsOf: "{\"data\":\"".utf8)
        Self.append(data, to: &bytes)
        bytes.append(contentsOf: "\",\"name\":\"".utf8)
        Self.append(name, to: &bytes)
        bytes.append(contentsOf: "\",\"namespace\":\"".utf8)
        Self.append(namespace, to: &bytes)
        bytes.append(contentsOf: "\",\"version\":".utf8)
        bytes.append(contentsOf: String(version).utf8)
        bytes.append(UInt8(ascii: "}"))
        return bytes
    }

    private static func append(_ text: String, to bytes: inout [UInt8]) {
        var text = text
        text.withUTF8 { utf8 in
            // Runs of what stands for itself are copied at once.
            var start = 0
            for (place, byte) in utf8.enumerated()
            where byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") {
                bytes.append(contentsOf: utf8[start..<place])
                appendEscaped(byte, to: &bytes)
                start = place + 1
            }
            bytes.append(contentsOf: utf8[start...])
        }
    }

    private static func appendEscaped(_ byte: UInt8, to bytes: inout [UInt8]) {
        bytes.append(UInt8(ascii: "\\"))
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes.append(byte)
        case 0x08: bytes.append(UInt8(ascii: "b"))
        case 0x09: bytes.append(UInt8(ascii: "t"))
        case 0x0a: bytes.append(UInt8(ascii: "n"))
        case 0x0c: bytes.append(UInt8(ascii: "f"))
        case 0x0d: bytes.append(UInt8(ascii: "r"))
        default:
            bytes.append(contentsOf: "u00".utf8)
            for digit in [byte >> 4, byte & 15] { bytes.append(digit < 10 ? digit + 48 : digit + 87) }
        }
    }
}

extension PutConfigRequest {
    /// Reads the plain form, `{"data": "text"}` with escapes of one character.
    ///
    /// Nil says nothing about the bytes but that the general decoder must judge them: another member, `\u`, what is no
    /// JSON at all.
    public init?(plain bytes: UnsafeRawBufferPointer) {
        var reader = PlainReader(bytes: bytes)
        guard reader.take("{"), reader.take("\"data\""), reader.take(":"), let data = reader.string(),
            reader.take("}"), reader.isAtEnd
        else { return nil }
        self.init(data: data)
    }
}

private struct PlainReader {
    let bytes: UnsafeRawBufferPointer
    private var place = 0

    init(bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    private mutating func skipSpace() {
        while place < bytes.count, [0x20, 0x0a, 0x0d, 0x09].contains(bytes[place]) { place += 1 }
    }

    var isAtEnd: Bool {
        mutating get {
            skipSpace()
            return place == bytes.count
        }
    }

    mutating func take(_ text: StaticString) -> Bool {
        skipSpace()
        let end = place + text.utf8CodeUnitCount
        guard end <= bytes.count else { return false }
        for offset in 0..<text.utf8CodeUnitCount where bytes[place + offset] != text.utf8Start[offset] { return false }
        place = end
        return true
    }

    mutating func string() -> String? {
        guard take("\"") else { return nil }
        let start = place
        while place < bytes.count {
            switch bytes[place] {
            case UInt8(ascii: "\""):
                defer { place += 1 }
                return String(validating: UnsafeRawBufferPointer(rebasing: bytes[start..<place]), as: UTF8.self)
            case UInt8(ascii: "\\"): return escapedString(from: start)
            case 0..<0x20: return nil
            default: place += 1
            }
        }
        return nil
    }

    private mutating func escapedString(from start: Int) -> String? {
        var text = Array(bytes[start..<place])
        text.reserveCapacity(bytes.count - start)
        while place < bytes.count {
            let byte = bytes[place]
            place += 1
            switch byte {
            case UInt8(ascii: "\""): return String(validating: text, as: UTF8.self)
            case 0..<0x20: return nil
            case UInt8(ascii: "\\"):
                guard place < bytes.count, let plain = Self.escapes[bytes[place]] else { return nil }
                text.append(plain)
                place += 1
            default: text.append(byte)
            }
        }
        return nil
    }

    private static let escapes: [UInt8: UInt8] = [
        UInt8(ascii: "\""): UInt8(ascii: "\""), UInt8(ascii: "\\"): UInt8(ascii: "\\"),
        UInt8(ascii: "/"): UInt8(ascii: "/"), UInt8(ascii: "b"): 0x08, UInt8(ascii: "f"): 0x0c,
        UInt8(ascii: "n"): 0x0a, UInt8(ascii: "r"): 0x0d, UInt8(ascii: "t"): 0x09,
    ]
}
