// SPDX-License-Identifier: Apache-2.0

/// The term of every entry the log holds, as the places where terms begin: a few words, however long the log is.
///
/// Covers `base.index ... last.index`, where `base` is the position before the log's first entry.
struct TermMap: Sendable {
    /// Ascending in index and term; the first one covers `base`.
    private(set) var starts: [LogPosition]
    private(set) var base: LogPosition
    private(set) var last: LogPosition

    init(base: LogPosition) {
        self.base = base
        last = base
        starts = [base]
    }

    /// - Parameter starts: the first entry of each term in the log, ascending; entries at or before `base` are left out.
    init(extent: LogExtent, starts: [LogPosition]) {
        base = extent.base
        last = extent.last
        self.starts = [extent.base]
        for start in starts where start.index > base.index {
            precondition(
                start.term >= self.starts[self.starts.count - 1].term && start.index <= last.index,
                "term starts \(starts) do not fit the log \(extent.base) to \(extent.last)")
            if start.term > self.starts[self.starts.count - 1].term { self.starts.append(start) }
        }
        precondition(
            self.starts[self.starts.count - 1].term == last.term, "term starts \(starts) do not end at \(extent.last)")
    }

    /// Nil outside of what the log holds.
    func term(at index: UInt64) -> UInt64? {
        guard index >= base.index, index <= last.index else { return nil }
        if index == last.index { return last.term }
        var low = 0
        var high = starts.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if starts[middle].index <= index { low = middle } else { high = middle }
        }
        return starts[low].term
    }

    /// Highest position at or below `index` whose term is at most `term`; the base when there is none.
    func lastPosition(atMost index: UInt64, term: UInt64) -> LogPosition {
        var index = min(index, last.index)
        for (offset, start) in starts.enumerated().reversed() {
            guard start.index <= index else { continue }
            if start.term <= term || offset == 0 { return LogPosition(index: max(index, base.index), term: start.term) }
            index = start.index - 1
        }
        return base
    }

    mutating func append(_ position: LogPosition) {
        precondition(
            position.index == last.index + 1 && position.term >= last.term, "entry \(position) does not follow \(last)")
        if position.term != last.term { starts.append(position) }
        last = position
    }

    /// Forgets `index` and everything after it.
    mutating func truncate(from index: UInt64) {
        precondition(index > base.index && index <= last.index + 1, "cut at \(index) of \(base) to \(last)")
        guard let term = term(at: index - 1) else { preconditionFailure("no term before \(index)") }
        while starts.count > 1, starts[starts.count - 1].index >= index { starts.removeLast() }
        last = LogPosition(index: index - 1, term: term)
    }

    /// The log begins after `index` from now on.
    mutating func compact(through index: UInt64) {
        guard index > base.index, let term = term(at: index) else { return }
        base = LogPosition(index: index, term: term)
        starts.removeAll { $0.index <= index }
        starts.insert(base, at: 0)
    }
}
