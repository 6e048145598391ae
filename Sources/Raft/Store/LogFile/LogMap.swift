// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// What the log holds and where: kept in memory, rebuilt by the scan at open.
///
/// Runs are pieces of about 64 KiB, so that a 16 MiB segment costs some 256 of them and finding an entry costs one read.
struct LogMap {
    /// Live entries `first ... last` begin in the record at `offset` of `segment` and lie within `bytes` from there.
    struct Run {
        var first: UInt64
        var last: UInt64
        var segment: UInt64
        var offset: Int
        var bytes: Int
        /// A truncation came after it: what follows in the file is void, so that it must not grow.
        var isClosed = false
    }

    static let runBytes = 64 << 10

    var hardState: HardState
    private(set) var base: LogPosition
    private(set) var last: LogPosition
    private(set) var runs: [Run] = []
    /// Where each term begins, ascending; the first element covers `base`.
    private var terms: [LogPosition]
    /// Memberships among the live entries, ascending.
    private(set) var configurations: [ConfigurationPoint] = []

    init(base: LogPosition, hardState: HardState) {
        self.base = base
        self.last = base
        self.hardState = hardState
        self.terms = [base]
    }

    var termStarts: [LogPosition] { Array(terms.dropFirst()) }
    var extent: LogExtent { LogExtent(base: base, last: last) }

    /// Term at `base.index ... last.index`; nil outside.
    func term(at index: UInt64) -> UInt64? {
        guard index >= base.index, index <= last.index else { return nil }
        return terms.last { $0.index <= index }?.term
    }

    /// Takes in a batch stored at `offset` of `segment`.
    /// - Returns: what does not fit the log so far, nil when all is well; then nothing was changed.
    mutating func add(_ batch: Batch, firstIndex: UInt64, segment: UInt64, offset: Int, bytes: Int) -> String? {
        if let misfit = misfit(batch, firstIndex: firstIndex) { return misfit }
        if let truncation = batch.truncation { truncate(truncation) }
        if let state = batch.hardState { hardState = state }
        guard let end = batch.entries.last else { return nil }
        var term = last.term
        for entry in batch.entries where entry.term != term {
            term = entry.term
            terms.append(entry.position)
        }
        for entry in batch.entries where entry.kind == .configuration {
            guard let membership = Membership(decoding: entry.payload) else { continue }
            configurations.append(ConfigurationPoint(index: entry.index, membership: membership))
        }
        last = end.position
        let current = runs.count - 1
        if current >= 0, runs[current].segment == segment, runs[current].bytes < Self.runBytes, !runs[current].isClosed
        {
            runs[current].last = end.index
            runs[current].bytes = offset + bytes - runs[current].offset
        } else {
            runs.append(Run(first: firstIndex, last: end.index, segment: segment, offset: offset, bytes: bytes))
        }
        return nil
    }

    /// What keeps the batch from following the log, nil when nothing does.
    func misfit(_ batch: Batch, firstIndex: UInt64) -> String? {
        var previous = last
        if let truncation = batch.truncation {
            previous = LogPosition(index: truncation.from - 1, term: truncation.previousTerm)
            let known = term(at: previous.index) ?? previous.term
            guard previous.index <= last.index, known == previous.term else {
                return "truncation to \(previous) does not fit a log that ends at \(last)"
            }
        }
        guard batch.entries.isEmpty || firstIndex == previous.index + 1 else {
            return "entry \(firstIndex) does not follow \(previous)"
        }
        for entry in batch.entries {
            guard entry.term >= previous.term else { return "term falls from \(previous) to \(entry.position)" }
            previous = entry.position
        }
        return nil
    }

    private mutating func truncate(_ truncation: Batch.Truncation) {
        let keep = truncation.from - 1
        if keep < base.index {
            // The segment before, with the entries this cut through, is compacted away.
            base = LogPosition(index: keep, term: truncation.previousTerm)
            terms = [base]
        }
        terms.removeAll { $0.index > keep }
        configurations.removeAll { $0.index > keep }
        runs.removeAll { $0.first > keep }
        if let run = runs.last {
            runs[runs.count - 1].last = min(run.last, keep)
            runs[runs.count - 1].isClosed = true
        }
        last = LogPosition(index: keep, term: truncation.previousTerm)
    }

    /// No live entry above `index` is in the oldest segment `sequence`.
    func isSpent(segment: UInt64, through index: UInt64) -> Bool {
        runs.allSatisfy { $0.segment != segment || $0.last <= index }
    }

    mutating func drop(segment: UInt64) {
        runs.removeAll { $0.segment == segment }
        let newBase = (runs.first?.first ?? last.index + 1) - 1
        base = LogPosition(index: newBase, term: term(at: newBase) ?? last.term)
        while terms.count > 1, terms[1].index <= newBase { terms.removeFirst() }
        configurations.removeAll { $0.index <= newBase }
    }
}
