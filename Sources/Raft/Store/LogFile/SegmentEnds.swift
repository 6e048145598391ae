// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// Payload of the record every segment begins with: enough to start reading here when all before is compacted away.
struct SegmentHeader {
    var sequence: UInt64
    /// Size of the file, in bytes: a file of another size has lost something.
    var capacity: Int
    /// Position before the segment's first entry.
    var base: LogPosition
    var hardState: HardState
    /// The log begins here: all segments before are void, whatever they hold.
    var isReset = false

    static let payloadBytes = 32 + HardState.encodedBytes
    static let recordBytes = Record.totalBytes(payload: payloadBytes)

    func record(previousSum: UInt32) -> Record.Encoded {
        Record.encode(
            isReset ? .resetHeader : .segmentHeader,
            term: base.term,
            firstIndex: base.index + 1,
            previousSum: previousSum,
            payloadBytes: Self.payloadBytes
        ) { writer in
            writer.put(sequence)
            writer.put(UInt64(capacity))
            writer.put(base.index)
            writer.put(base.term)
            hardState.encode(to: &writer)
        }
    }

    init(sequence: UInt64, capacity: Int, base: LogPosition, hardState: HardState, isReset: Bool = false) {
        self.sequence = sequence
        self.capacity = capacity
        self.base = base
        self.hardState = hardState
        self.isReset = isReset
    }

    init?(_ record: Record) {
        var reader = ByteReader(record.payload)
        guard record.kind == .segmentHeader || record.kind == .resetHeader, let sequence = reader.take(UInt64.self),
            let size = reader.take(UInt64.self), let capacity = Int(exactly: size),
            let index = reader.take(UInt64.self), let term = reader.take(UInt64.self),
            let hardState = HardState(from: &reader), reader.rest.isEmpty
        else { return nil }
        self.sequence = sequence
        self.capacity = capacity
        self.base = LogPosition(index: index, term: term)
        self.hardState = hardState
        isReset = record.kind == .resetHeader
    }
}

/// Payload of the record that closes a segment: from then on the next one exists, with this size.
struct SegmentSeal {
    var last: LogPosition
    var nextCapacity: Int

    static let recordBytes = Record.totalBytes(payload: 8)

    func record(previousSum: UInt32) -> Record.Encoded {
        Record.encode(
            .seal, term: last.term, firstIndex: last.index + 1, previousSum: previousSum, payloadBytes: 8
        ) { writer in
            writer.put(UInt64(nextCapacity))
        }
    }

    init(last: LogPosition, nextCapacity: Int) {
        self.last = last
        self.nextCapacity = nextCapacity
    }

    init?(_ record: Record) {
        var reader = ByteReader(record.payload)
        guard record.kind == .seal, let size = reader.take(UInt64.self), let capacity = Int(exactly: size),
            reader.rest.isEmpty
        else { return nil }
        last = LogPosition(index: record.firstIndex &- 1, term: record.term)
        nextCapacity = capacity
    }
}
