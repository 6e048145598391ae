// SPDX-License-Identifier: Apache-2.0

/// The end of the log kept in memory: what is not yet both committed and applied.
///
/// `[base.index + 1 ... last.index]` are held; everything up to `base` is in the durable log only. Grows by `append`,
/// shrinks by `release`; the owner bounds it by refusing proposals.
struct LogTail: Sendable {
    private(set) var base: LogPosition
    private(set) var entries: [Entry] = []
    /// Sum of the footprints of the entries held.
    private(set) var footprintBytes = 0

    init(base: LogPosition) {
        self.base = base
    }

    var last: LogPosition { entries.last?.position ?? base }

    /// Term of a held entry or of the base; nil when the index is outside.
    func term(at index: UInt64) -> UInt64? {
        if index == base.index { return base.term }
        guard index > base.index, index <= last.index else { return nil }
        return entries[Int(index - base.index) - 1].term
    }

    mutating func append(_ entry: Entry) {
        precondition(
            entry.index == last.index + 1 && entry.term >= last.term,
            "entry \(entry.position) does not follow \(last)"
        )
        entries.append(entry)
        footprintBytes += entry.footprintBytes
    }

    /// Held entries of the range; the range must not begin at or below the base.
    func slice(_ range: Range<UInt64>) -> ArraySlice<Entry> {
        guard !range.isEmpty else { return [] }
        precondition(range.lowerBound > base.index && range.upperBound <= last.index + 1, "\(range) is not held")
        return entries[Int(range.lowerBound - base.index) - 1..<Int(range.upperBound - base.index) - 1]
    }

    /// Forgets everything up to and including `index`.
    mutating func release(through index: UInt64) {
        guard index > base.index else { return }
        let count = Int(min(index, last.index) - base.index)
        guard count > 0 else { return }
        base = entries[count - 1].position
        for entry in entries.prefix(count) { footprintBytes -= entry.footprintBytes }
        entries.removeFirst(count)
    }
}
