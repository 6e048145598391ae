// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

/// What a server needs of a query, read in place. The name goes to the caller's scratch array.
struct DNSQuery: Sendable {
    var id: UInt16
    var flags: UInt16
    /// Bytes of name (with the root), type and class; they begin at byte 12.
    var questionLength: Int
    var type: UInt16
    var dnsClass: UInt16
    var edns: EDNS?

    struct EDNS: Hashable, Sendable {
        /// As the client says it.
        var payload: UInt16
        var version: UInt8
        /// The DO bit.
        var wantsDNSSEC: Bool
    }

    static let headerLength = 12

    enum Parsed {
        case query(DNSQuery)
        /// Answerable by its header only.
        case malformed(id: UInt16, flags: UInt16)
        /// A response or too short for a header: answering could start a loop.
        case ignored
    }

    /// - Parameter name: replaced by the question's name in lower case, wire form, root left out.
    static func parse(_ buffer: ByteBuffer, name: inout [UInt8]) -> Parsed {
        name.removeAll(keepingCapacity: true)
        return buffer.withUnsafeReadableBytes { bytes in
            guard bytes.count >= headerLength else { return .ignored }
            let id = bytes.uint16(at: 0)
            let flags = bytes.uint16(at: 2)
            guard flags & DNSFlags.response == 0 else { return .ignored }
            let malformed = Parsed.malformed(id: id, flags: flags)
            guard flags & DNSFlags.opcode == 0 else {
                // Other opcodes lay out their sections otherwise; the header is all that is needed to refuse them.
                return .query(
                    DNSQuery(id: id, flags: flags, questionLength: 0, type: 0, dnsClass: 0, edns: nil))
            }
            guard bytes.uint16(at: 4) == 1, bytes.uint16(at: 6) == 0, bytes.uint16(at: 8) == 0 else { return malformed }

            var at = headerLength
            while true {
                guard at < bytes.count else { return malformed }
                let length = Int(bytes[at])
                if length == 0 { break }
                // Nothing comes before the first name that a pointer could mean.
                guard length < 64, bytes.count - at > length, name.count + 1 + length <= DNSName.bytesMax else {
                    return malformed
                }
                name.append(bytes[at])
                for index in (at + 1)...(at + length) { name.append(lowercase(bytes[index])) }
                at += 1 + length
            }
            at += 1
            guard bytes.count - at >= 4 else { return malformed }
            var query = DNSQuery(
                id: id, flags: flags, questionLength: at + 4 - headerLength, type: bytes.uint16(at: at),
                dnsClass: bytes.uint16(at: at + 2), edns: nil)
            at += 4
            for _ in 0..<bytes.uint16(at: 10) {
                guard let fixed = skipName(bytes, at), bytes.count - fixed >= 10 else { return malformed }
                let length = Int(bytes.uint16(at: fixed + 8))
                guard bytes.count - fixed - 10 >= length else { return malformed }
                if bytes.uint16(at: fixed) == DNSType.opt {
                    guard query.edns == nil, fixed == at + 1 else { return malformed }
                    query.edns = EDNS(
                        payload: bytes.uint16(at: fixed + 2), version: bytes[fixed + 5],
                        wantsDNSSEC: bytes[fixed + 6] & 0x80 != 0)
                }
                at = fixed + 10 + length
            }
            return .query(query)
        }
    }

    private static func skipName(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Int? {
        var at = start
        while at < bytes.count {
            let length = Int(bytes[at])
            if length == 0 { return at + 1 }
            if length >= 0xc0 { return at + 2 }
            if length >= 64 { return nil }
            at += 1 + length
        }
        return nil
    }
}

extension UnsafeRawBufferPointer {
    /// Network byte order; the caller has checked the bounds.
    @inline(__always)
    func uint16(at index: Int) -> UInt16 { UInt16(self[index]) << 8 | UInt16(self[index + 1]) }
}
