// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// Payload of a batch record: one `Write`, whole or not at all.
///
/// flags u32 (1 hard state, 2 truncation), entry count u32, [hard state], [from u64, term before it u64], then per entry
/// term u64, kind u8, length u32, payload.
struct Batch {
    var hardState: HardState?
    /// Entries from `from` on are void; `previousTerm` is the term at `from - 1`, which may be compacted away.
    var truncation: Truncation?
    var entries: [Entry]

    struct Truncation {
        var from: UInt64
        var previousTerm: UInt64
    }

    static let entryOverheadBytes = 13
    static let overheadBytes = 8 + HardState.encodedBytes + 16

    var payloadBytes: Int {
        entries.reduce(8 + (hardState == nil ? 0 : HardState.encodedBytes) + (truncation == nil ? 0 : 16)) {
            $0 + Self.entryOverheadBytes + $1.payload.count
        }
    }

    func encode(to writer: inout ByteWriter) {
        writer.put(UInt32(hardState == nil ? 0 : 1) | UInt32(truncation == nil ? 0 : 2))
        writer.put(UInt32(entries.count))
        hardState?.encode(to: &writer)
        if let truncation {
            writer.put(truncation.from)
            writer.put(truncation.previousTerm)
        }
        for entry in entries {
            writer.put(entry.term)
            writer.put(entry.kind.rawValue)
            writer.put(UInt32(entry.payload.count))
            writer.put(entry.payload)
        }
    }

    /// Nil when the payload is not exactly one batch.
    init?(_ record: Record) {
        var reader = ByteReader(record.payload)
        guard record.kind == .batch, let flags = reader.take(UInt32.self), flags & ~3 == 0,
            let count = reader.take(UInt32.self)
        else { return nil }
        if flags & 1 != 0 {
            guard let state = HardState(from: &reader) else { return nil }
            hardState = state
        }
        if flags & 2 != 0 {
            guard let from = reader.take(UInt64.self), from > 0, let term = reader.take(UInt64.self) else { return nil }
            truncation = Truncation(from: from, previousTerm: term)
        }
        entries = []
        for _ in 0..<count {
            guard let term = reader.take(UInt64.self), let raw = reader.take(UInt8.self),
                let kind = Entry.Kind(rawValue: raw), let length = reader.take(UInt32.self),
                let payload = reader.take(count: Int(length))
            else { return nil }
            let index = record.firstIndex &+ UInt64(entries.count)
            entries.append(Entry(index: index, term: term, kind: kind, payload: payload))
        }
        guard reader.rest.isEmpty else { return nil }
    }

    init(hardState: HardState?, truncation: Truncation?, entries: [Entry]) {
        self.hardState = hardState
        self.truncation = truncation
        self.entries = entries
    }
}

extension HardState {
    static let encodedBytes = 25

    func encode(to writer: inout ByteWriter) {
        writer.put(term)
        writer.put(UInt8(vote == nil ? 0 : 1))
        writer.put(vote ?? 0)
        writer.put(commit)
    }

    init?(from reader: inout ByteReader) {
        guard let term = reader.take(UInt64.self), let voted = reader.take(UInt8.self), voted <= 1,
            let vote = reader.take(UInt64.self), let commit = reader.take(UInt64.self)
        else { return nil }
        self.init(term: term, vote: voted == 1 ? vote : nil, commit: commit)
    }
}
