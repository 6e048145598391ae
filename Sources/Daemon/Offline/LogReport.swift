// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
public import Model
internal import Raft
internal import Store

/// The log of a data directory as `admin log` shows it. Made without a daemon and without changing a byte.
public struct LogReport: Encodable, Sendable {
    public struct Position: Encodable, Sendable {
        public var index: UInt64
        public var term: UInt64
    }

    public struct HardState: Encodable, Sendable {
        public var term: UInt64
        public var vote: UInt64?
        /// A hint that may lag behind what is committed.
        public var commit: UInt64
    }

    public struct Segment: Encodable, Sendable {
        public var sequence: UInt64
        public var file: String
        /// sealed, open, spare, void (superseded by a reset), damaged or unread (beyond the damage).
        public var state: String
        public var bytes: Int
        public var usedBytes: Int
        public var records: Int
        /// Written here, void ones included.
        public var entries: Int
        public var firstIndex: UInt64?
        public var lastIndex: UInt64?
        public var firstTerm: UInt64?
        public var lastTerm: UInt64?
        public var isReset: Bool
    }

    public struct Membership: Encodable, Sendable {
        public var index: UInt64
        public var voters: [UInt64]
        public var learners: [UInt64]
        public var removed: [UInt64]
    }

    public struct Record: Encodable, Sendable {
        public var segment: UInt64
        public var offset: Int
        public var bytes: Int
        /// header, reset, batch or seal.
        public var kind: String
        public var term: UInt64
        public var firstIndex: UInt64
        public var entries: Int
        public var truncateFrom: UInt64?
        public var hardState: HardState?
    }

    public struct Place: Encodable, Sendable {
        public var segment: UInt64?
        public var offset: Int?
        public var problem: String
    }

    public var directory: String
    /// clean, torn_tail or damaged.
    public var verdict: String
    /// Of the torn record or the damage.
    public var place: Place?
    /// The verdict in a sentence.
    public var summary: String
    /// Before the first entry, and of the last one; up to the damage, if there is any.
    public var base: Position?
    public var last: Position?
    public var hardState: HardState?
    /// The first entry of each term.
    public var terms: [Position]
    public var memberships: [Membership]
    public var segments: [Segment]
    public var recordsFound: Int
    public var records: [Record]

    public var isDamaged: Bool { verdict == "damaged" }

    /// Reads `dataDirectory/log` while no daemon can use it.
    ///
    /// - Parameter records: how many of the newest records to list, in `0 ... 1_000_000`.
    /// - Throws: `Problem`: `not_found` when there is no log, `conflict` when a daemon uses it, `internal` when it cannot be
    ///   read.
    public static func read(dataDirectory: String, records: Int = 0) throws(Problem) -> LogReport {
        let path = dataDirectory + "/log"
        guard access(path, F_OK) == 0 else {
            throw Problem(
                .notFound, "`\(dataDirectory)` is no data directory: it has no `log`",
                hint: "name the one the daemon was started with: --data-dir DIR")
        }
        let lock = try lockShared(dataDirectory)
        defer { if lock >= 0 { close(lock) } }
        do {
            let found = try LogInspector.inspect(try POSIXLogDirectory(reading: path), records: records)
            return LogReport(path, found)
        } catch let error as LogError where error.code == .notAvailable {
            throw Problem(
                .notFound, "`\(path)` holds no log: \(error.message)",
                hint: "name the data directory the daemon was started with: --data-dir DIR")
        } catch {
            throw Problem(.internal, "cannot read `\(path)`: \(error)", hint: "run as root, and check the disk")
        }
    }

    /// Keeps a daemon from starting meanwhile, and refuses beside a running one. -1 when there never was a daemon.
    private static func lockShared(_ dataDirectory: String) throws(Problem) -> Int32 {
        let lock = open(dataDirectory + "/lock", O_RDONLY | O_CLOEXEC)
        guard lock >= 0 else {
            guard errno == ENOENT else {
                throw Problem(
                    .internal, "cannot open `\(dataDirectory)/lock`: \(String(cString: strerror(errno)))",
                    hint: "run as root")
            }
            return -1
        }
        guard flock(lock, LOCK_SH | LOCK_NB) == 0 else {
            close(lock)
            throw Problem(
                .conflict, "a daemon uses `\(dataDirectory)`", hint: "stop it first, or look at a copy of the directory"
            )
        }
        return lock
    }
}

extension LogReport {
    init(_ directory: String, _ found: LogInspection) {
        self.directory = directory
        switch found.verdict {
        case .clean:
            verdict = "clean"
            summary = "all \(found.recordsFound) records are whole"
        case .tornTail(let place):
            verdict = "torn_tail"
            self.place = Place(segment: place.segment, offset: place.offset, problem: place.problem)
            summary =
                "the last record was never finished and is cut off at the next start; nothing acknowledged is lost"
        case .damaged(let place):
            verdict = "damaged"
            self.place = Place(segment: place.segment, offset: place.offset, problem: place.problem)
            summary = "\(place)"
        }
        let recovered = found.recovered
        base = recovered.map { Position($0.extent.base) }
        last = recovered.map { Position($0.extent.last) }
        hardState = recovered.map { HardState($0.hardState) }
        terms = recovered?.termStarts.map { Position($0) } ?? []
        memberships =
            recovered?.configurations.map { point in
                Membership(
                    index: point.index, voters: point.membership.voters, learners: point.membership.learners,
                    removed: point.membership.removed)
            } ?? []
        segments = found.segments.map { segment in
            Segment(
                sequence: segment.sequence, file: segment.file, state: segment.state.rawValue, bytes: segment.bytes,
                usedBytes: segment.usedBytes, records: segment.records, entries: segment.entries,
                firstIndex: segment.indexes?.lowerBound, lastIndex: segment.indexes?.upperBound,
                firstTerm: segment.terms?.lowerBound, lastTerm: segment.terms?.upperBound, isReset: segment.isReset)
        }
        recordsFound = found.recordsFound
        records = found.records.map { record in
            Record(
                segment: record.segment, offset: record.offset, bytes: record.bytes, kind: record.kind.rawValue,
                term: record.term, firstIndex: record.firstIndex, entries: record.entries,
                truncateFrom: record.truncateFrom, hardState: record.hardState.map { HardState($0) })
        }
    }
}

extension LogReport.Position {
    fileprivate init(_ position: LogPosition) {
        self.init(index: position.index, term: position.term)
    }
}

extension LogReport.HardState {
    fileprivate init(_ state: Raft.HardState) {
        self.init(term: state.term, vote: state.vote, commit: state.commit)
    }
}
