// SPDX-License-Identifier: Apache-2.0

public import Raft

/// What a log directory holds, found without changing a byte of it.
public struct LogInspection: Sendable {
    public enum Verdict: Hashable, Sendable {
        case clean
        /// The last record was never finished; opening the log cuts it off. Nothing acknowledged is lost.
        case tornTail(LogPlace)
        /// What was durable is not there any more: opening refuses the log.
        case damaged(LogPlace)
    }

    public struct Segment: Hashable, Sendable {
        public enum State: String, Sendable {
            case sealed, open
            /// Made ahead of need, empty.
            case spare
            /// Superseded by a reset, removed when the log is opened.
            case void
            case damaged
            /// Beyond the damage.
            case unread
        }

        public var sequence: UInt64
        public var file: String
        public var state: State
        /// Size of the file, in bytes.
        public var bytes: Int
        /// Up to the end of the last good record, in bytes.
        public var usedBytes = 0
        public var records = 0
        /// Entries written here, whether or not a later truncation made them void.
        public var entries = 0
        /// Before the first entry, as the header has it.
        public var base: LogPosition?
        /// Indexes of the entries written here, lowest and highest.
        public var indexes: ClosedRange<UInt64>?
        public var terms: ClosedRange<UInt64>?
        /// The log began anew here, after a snapshot.
        public var isReset = false
    }

    public struct RecordLine: Hashable, Sendable {
        public enum Kind: String, Sendable {
            case header, reset, batch, seal
        }

        public var segment: UInt64
        /// In bytes from the segment's start.
        public var offset: Int
        public var bytes: Int
        public var kind: Kind
        /// Of the first entry, or of the position before `firstIndex`.
        public var term: UInt64
        public var firstIndex: UInt64
        public var entries = 0
        public var truncateFrom: UInt64?
        public var hardState: HardState?
    }

    public var verdict = Verdict.clean
    public var segments: [Segment] = []
    /// Up to the damage, if there is any. Nil when not even the first header can be read.
    public var recovered: LogFile.Recovered?
    /// The newest of those asked for, in order.
    public var records: [RecordLine] = []
    /// Records of the log in all.
    public var recordsFound = 0
}

/// A place in a log where something is wrong.
public struct LogPlace: Hashable, Sendable, CustomStringConvertible {
    public var segment: UInt64?
    /// In bytes from the segment's start.
    public var offset: Int?
    public var problem: String

    public var description: String { "\(LogDamage(problem, segment: segment, offset: offset))" }
}

/// Reads a log directory nobody writes to at the moment.
public enum LogInspector {
    /// Record lines asked for, at most.
    public static let recordsMax = 1_000_000

    /// - Parameters:
    ///   - records: how many of the newest records to list, in `0 ... recordsMax`.
    /// - Throws: `notAvailable` when there is no log; `failed` when a file cannot be read. Damage is an answer, no error.
    public static func inspect(_ directory: any LogDirectory, records: Int = 0) throws(LogError) -> LogInspection {
        let sequences = try disk { () throws(DiskError) in try directory.list() }
            .compactMap { SegmentName.sequence($0) }.sorted()
        guard !sequences.isEmpty else {
            throw LogError(.notAvailable, "there is no log: no file is named like \(SegmentName.of(1))")
        }
        var found = LogInspection()
        for sequence in sequences {
            let file = SegmentName.of(sequence)
            let bytes = try disk { () throws(DiskError) in try directory.open(file).size() }
            found.segments.append(
                LogInspection.Segment(sequence: sequence, file: file, state: .unread, bytes: bytes))
        }
        let tally = Tally(found, recordsMax: min(max(0, records), recordsMax))
        var scan = LogScan(directory: directory) { tally.add($0, segment: $1, offset: $2) }
        do throws(LogScan.Failure) {
            try scan.run(sequences)
            if let damage = scan.checkHardState() {
                tally.found.verdict = .damaged(LogPlace(damage))
            } else if let torn = scan.torn {
                tally.found.verdict = .tornTail(LogPlace(torn))
            }
        } catch {
            switch error {
            case .damaged(let damage): tally.found.verdict = .damaged(LogPlace(damage))
            case .disk(let error): throw error.final
            }
        }
        return tally.finished(scan)
    }

    private static func disk<Value>(_ body: () throws(DiskError) -> Value) throws(LogError) -> Value {
        do { return try body() } catch { throw error.final }
    }
}

/// Counts records as the scan passes them.
private final class Tally {
    var found: LogInspection
    private let recordsMax: Int
    private var current = 0
    /// Older lines before this one are dropped from time to time.
    private var lines: [LogInspection.RecordLine] = []

    init(_ found: LogInspection, recordsMax: Int) {
        self.found = found
        self.recordsMax = recordsMax
    }

    func add(_ record: Record, segment: UInt64, offset: Int) {
        found.recordsFound += 1
        while current + 1 < found.segments.count, found.segments[current].sequence < segment { current += 1 }
        let header = SegmentHeader(record)
        let batch = Batch(record)
        count(record, header, batch, offset, in: &found.segments[current])
        guard recordsMax > 0 else { return }
        let kind: LogInspection.RecordLine.Kind =
            switch record.kind {
            case .segmentHeader: .header
            case .resetHeader: .reset
            case .batch: .batch
            case .seal: .seal
            }
        lines.append(
            LogInspection.RecordLine(
                segment: segment, offset: offset, bytes: record.totalBytes, kind: kind, term: record.term,
                firstIndex: record.firstIndex, entries: batch?.entries.count ?? 0,
                truncateFrom: batch?.truncation?.from, hardState: header?.hardState ?? batch?.hardState))
        if lines.count >= 2 * recordsMax + 1_000 { lines.removeFirst(lines.count - recordsMax) }
    }

    private func count(
        _ record: Record, _ header: SegmentHeader?, _ batch: Batch?, _ offset: Int,
        in segment: inout LogInspection.Segment
    ) {
        segment.records += 1
        segment.usedBytes = offset + record.totalBytes
        if record.kind == .seal { segment.state = .sealed }
        if let header {
            segment.base = header.base
            segment.isReset = header.isReset
        }
        guard let entries = batch?.entries, let first = entries.first, let last = entries.last else { return }
        segment.entries += entries.count
        segment.indexes = Self.joined(segment.indexes, first.index...last.index)
        segment.terms = Self.joined(segment.terms, first.term...last.term)
    }

    private static func joined(_ known: ClosedRange<UInt64>?, _ new: ClosedRange<UInt64>) -> ClosedRange<UInt64> {
        guard let known else { return new }
        return min(known.lowerBound, new.lowerBound)...max(known.upperBound, new.upperBound)
    }

    func finished(_ scan: LogScan) -> LogInspection {
        for index in found.segments.indices where found.segments[index].state == .unread {
            let sequence = found.segments[index].sequence
            if sequence == scan.open?.sequence { found.segments[index].state = .open }
            if sequence == scan.spare?.sequence { found.segments[index].state = .spare }
            if scan.voided.contains(sequence) { found.segments[index].state = .void }
            if case .damaged(let place) = found.verdict, place.segment == sequence {
                found.segments[index].state = .damaged
            }
        }
        found.recovered = scan.map.map { LogFile.Recovered($0, cutTornTail: scan.torn != nil) }
        found.records = Array(lines.suffix(recordsMax))
        return found
    }
}

extension LogPlace {
    init(_ damage: LogDamage) {
        self.init(segment: damage.segment, offset: damage.offset, problem: damage.problem)
    }
}
