// SPDX-License-Identifier: Apache-2.0

/// The log as the core sees it: the terms of all of it, the entries of its end.
///
/// Entries in memory are `memoryStart ... last.index`; everything before is in the durable log only. Grows by `append`,
/// shrinks by `release`; the owner bounds it by refusing proposals and appends.
struct LogTail: Sendable {
    private(set) var terms: TermMap
    /// The first `head` slots are empty: taking from the front would move all that follows each time.
    private var slots: [Entry] = []
    private var head = 0
    /// Sum of the footprints of the entries held.
    private(set) var footprintBytes = 0

    init(terms: TermMap) {
        self.terms = terms
    }

    var base: LogPosition { terms.base }
    var last: LogPosition { terms.last }
    /// First index held in memory; one beyond the last when none is.
    var memoryStart: UInt64 { head < slots.count ? slots[head].index : terms.last.index + 1 }
    var heldCount: Int { slots.count - head }

    func term(at index: UInt64) -> UInt64? { terms.term(at: index) }

    func holds(_ position: LogPosition) -> Bool { terms.term(at: position.index) == position.term }

    mutating func append(_ entry: Entry) {
        terms.append(entry.position)
        slots.append(entry)
        footprintBytes += entry.footprintBytes
    }

    /// Forgets `index` and everything after it.
    mutating func truncate(from index: UInt64) {
        terms.truncate(from: index)
        while slots.count > head, let entry = slots.last, entry.index >= index {
            footprintBytes -= entry.footprintBytes
            slots.removeLast()
        }
    }

    /// Held entries of the range, which must begin at or after `memoryStart`.
    func slice(_ range: Range<UInt64>) -> ArraySlice<Entry> {
        guard !range.isEmpty else { return [] }
        precondition(range.lowerBound >= memoryStart && range.upperBound <= last.index + 1, "\(range) is not held")
        return slots[slot(range.lowerBound)..<slot(range.upperBound)]
    }

    /// Held entries from `index` on, as many as fit `bytesMax` (at least one).
    func slice(from index: UInt64, bytesMax: Int) -> ArraySlice<Entry> {
        let start = slot(index)
        var end = start
        var bytes = 0
        while end < slots.count {
            bytes += slots[end].footprintBytes
            if bytes > bytesMax, end > start { break }
            end += 1
        }
        return slots[start..<end]
    }

    /// Footprint of the held entries of the range, in bytes; entries not held count nothing.
    func footprintBytes(of range: ClosedRange<UInt64>) -> Int {
        let start = max(range.lowerBound, memoryStart)
        guard start <= range.upperBound else { return 0 }
        return slice(start..<range.upperBound + 1).reduce(0) { $0 + $1.footprintBytes }
    }

    /// Drops entries up to and including `index` from memory, but keeps as many of them as fit both bounds.
    mutating func release(through index: UInt64, keepingEntries: Int, keepingBytes: Int) {
        while head < slots.count, slots[head].index <= index,
            slots.count - head > keepingEntries || footprintBytes > keepingBytes
        {
            dropFirst()
        }
    }

    mutating func compact(through index: UInt64) {
        terms.compact(through: index)
        while head < slots.count, slots[head].index <= terms.base.index { dropFirst() }
    }

    private func slot(_ index: UInt64) -> Int { head + Int(index - memoryStart) }

    private mutating func dropFirst() {
        footprintBytes -= slots[head].footprintBytes
        slots[head].payload = []
        head += 1
        guard head >= 1_024 && head * 2 >= slots.count || head == slots.count else { return }
        slots.removeFirst(head)
        head = 0
    }
}
