// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// One record of a segment: 40 bytes of header, the payload, zeroes up to a multiple of eight.
///
/// All fields little-endian: magic u32, payload bytes u32, kind u8, version u8, zero u16, previous sum u32, term u64,
/// first index u64, body sum u32, header sum u32. The body sum covers the first 32 bytes and the payload, thus also the
/// previous record's body sum: records form a chain. The header sum covers the 36 bytes before it, so that a length is
/// believed only when it is right: what a torn write looks like depends on where the record ends.
struct Record {
    enum Kind: UInt8 {
        case segmentHeader = 1
        case batch = 2
        case seal = 3
        /// Begins a segment as `segmentHeader` does, and voids all segments before it.
        case resetHeader = 4
    }

    static let headerBytes = 40
    private static let magic: UInt32 = 0x524C_4D48  // "HMLR"
    private static let version: UInt8 = 1

    var kind: Kind
    /// Term of the first entry (batch) or of the position before `firstIndex` (header, seal).
    var term: UInt64
    /// Index of the first entry, or of the one that would come next.
    var firstIndex: UInt64
    var payload: ArraySlice<UInt8>
    var previousSum: UInt32
    var sum: UInt32

    /// Bytes on disk, header and padding included.
    var totalBytes: Int { Self.totalBytes(payload: payload.count) }

    static func totalBytes(payload: Int) -> Int { (headerBytes + payload + 7) & ~7 }

    /// A record ready to be written.
    struct Encoded {
        var bytes: [UInt8]
        /// What the next record chains to.
        var sum: UInt32
    }

    /// - Parameters:
    ///   - payloadBytes: exactly what `payload` puts.
    ///   - payload: appends the payload; called once.
    static func encode(
        _ kind: Kind,
        term: UInt64,
        firstIndex: UInt64,
        previousSum: UInt32,
        payloadBytes: Int,
        payload: (inout ByteWriter) -> Void
    ) -> Encoded {
        let total = totalBytes(payload: payloadBytes)
        var writer = ByteWriter()
        writer.reserve(total)
        writer.put(Self.magic)
        writer.put(UInt32(payloadBytes))
        writer.put(kind.rawValue)
        writer.put(Self.version)
        writer.put(UInt16(0))
        writer.put(previousSum)
        writer.put(term)
        writer.put(firstIndex)
        writer.put(UInt64(0))  // Both sums, once they are known.
        payload(&writer)
        precondition(writer.bytes.count == headerBytes + payloadBytes, "the payload has another size than announced")
        writer.put(repeatElement(0, count: total - writer.bytes.count))
        var bytes = writer.bytes
        writer = ByteWriter()  // The bytes have one owner now: changing them copies nothing.
        var body = CRC32C()
        body.update(bytes[..<(headerBytes - 8)])
        body.update(bytes[headerBytes..<headerBytes + payloadBytes])
        bytes.put(body.value, at: headerBytes - 8)
        bytes.put(CRC32C.of(bytes[..<(headerBytes - 4)]), at: headerBytes - 4)
        return Encoded(bytes: bytes, sum: body.value)
    }

    enum Parsed {
        case record(Record)
        /// Only zeroes from here to the end.
        case end
        /// `extent`: bytes the record takes if its header can be believed, else those of the header.
        case bad(String, extent: Int)
    }

    /// Reads the record that begins at `offset`; checks both sums, not the chain.
    static func parse(_ segment: [UInt8], at offset: Int) -> Parsed {
        let room = segment.count - offset
        guard room >= headerBytes else {
            return segment[offset...].isZero ? .end : .bad("bytes after the last record", extent: room)
        }
        let header = segment[offset..<offset + headerBytes]
        var reader = ByteReader(header)
        guard let magic = reader.take(UInt32.self), let payloadBytes = reader.take(UInt32.self),
            let kind = reader.take(UInt8.self), let version = reader.take(UInt8.self), reader.take(UInt16.self) != nil,
            let previousSum = reader.take(UInt32.self), let term = reader.take(UInt64.self),
            let firstIndex = reader.take(UInt64.self), let sum = reader.take(UInt32.self),
            let headerSum = reader.take(UInt32.self)
        else { return .bad("short header", extent: headerBytes) }
        guard magic == Self.magic, CRC32C.of(header.dropLast(4)) == headerSum else {
            if header.isZero, segment[offset...].isZero { return .end }
            return .bad("header checksum differs", extent: headerBytes)
        }
        guard version == Self.version, let kind = Kind(rawValue: kind) else {
            return .bad("record kind \(kind) version \(version) is unknown", extent: headerBytes)
        }
        let extent = totalBytes(payload: Int(payloadBytes))
        guard extent <= room else { return .bad("record is longer than its segment", extent: room) }
        let payloadStart = offset + headerBytes
        let payload = segment[payloadStart..<payloadStart + Int(payloadBytes)]
        var body = CRC32C()
        body.update(header.prefix(32))
        body.update(payload)
        guard body.value == sum, segment[payload.endIndex..<offset + extent].isZero else {
            return .bad("checksum differs", extent: extent)
        }
        return .record(
            Record(
                kind: kind,
                term: term,
                firstIndex: firstIndex,
                payload: payload,
                previousSum: previousSum,
                sum: sum
            )
        )
    }

    /// Offset of a whole, valid record at or after `offset`, at any multiple of eight.
    static func find(in segment: [UInt8], from offset: Int) -> Int? {
        let pattern = Self.magic.littleEndian
        return segment.withUnsafeBytes { buffer -> [Int] in
            stride(from: (offset + 7) & ~7, through: buffer.count - headerBytes, by: 8).filter {
                buffer.loadUnaligned(fromByteOffset: $0, as: UInt32.self) == pattern
            }
        }.first { candidate in
            if case .record = parse(segment, at: candidate) { true } else { false }
        }
    }
}

extension [UInt8] {
    fileprivate mutating func put(_ value: UInt32, at offset: Int) {
        for byte in 0..<4 { self[offset + byte] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(byte))) }
    }
}
