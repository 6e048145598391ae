// SPDX-License-Identifier: Apache-2.0

public import Raft

/// The durable log: entries and hard state in segment files, one record per batch, one fdatasync per record.
///
/// Belongs to one thread; every call may block on the disk. At most one record is ever written but not synced, which is
/// what lets `open` tell a torn tail from damage. After any error but `noSpace`, `tooLarge` and `notAvailable` the log is
/// dead: every later call throws the same error, and only opening it anew shows what is on disk.
public final class LogFile {
    public struct Options: Sendable {
        /// Size of each segment file, in bytes, at least 1 KiB. Also bounds one record: see `recordBytesMax`.
        public var segmentBytes = 16 << 20

        public init() {}
    }

    public struct Recovered: Hashable, Sendable {
        public var hardState: HardState
        public var extent: LogExtent
        /// The first entry of each term in the log, ascending.
        public var termStarts: [LogPosition]
        /// Memberships in the log, ascending.
        public var configurations: [ConfigurationPoint]
        /// A record that was being written when the machine stopped, never acknowledged, was cut off.
        public var cutTornTail: Bool
    }

    /// What was found at open, and is durable now.
    public let recovered: Recovered
    /// Largest payload of one record, in bytes, as `payloadBytes(of:)` counts it.
    public let recordBytesMax: Int

    private let directory: any LogDirectory
    private var map: LogMap
    /// Sequences of all segments that hold records, ascending; the last one is the tail's.
    private var segments: [UInt64]
    private var tail: TailSegment
    private var next: NextSegment
    private var unsynced = false
    private var failure: LogError?
    /// Appends to let pass before trying again to prepare a segment on a full disk.
    private var preparationPause = 0

    /// Opens the log in `directory`, making an empty one in an empty directory.
    ///
    /// Scans everything; copies the newest segment to a fresh file, since after an fsync error memory may show what the
    /// disk does not hold.
    /// - Parameter minimumIndex: what the state is known to hold durably. A log that ends before it, or begins after the
    ///   next entry, is damaged.
    /// - Throws: `damaged`, `noSpace`, `failed`.
    public init(directory: any LogDirectory, minimumIndex: UInt64, options: Options = Options()) throws(LogError) {
        let segmentBytes = max(options.segmentBytes, 1 << 10) & ~7
        let recovery = LogRecovery(directory: directory, segmentBytes: segmentBytes)
        let found = try recovery.run(minimumIndex: minimumIndex)
        self.directory = directory
        map = found.map
        segments = found.segments
        tail = found.tail
        next = NextSegment(capacity: segmentBytes)
        recordBytesMax =
            segmentBytes - SegmentHeader.recordBytes - SegmentSeal.recordBytes - Record.totalBytes(payload: 8)
        recovered = Recovered(
            hardState: found.map.hardState,
            extent: found.map.extent,
            termStarts: found.map.termStarts,
            configurations: found.map.configurations,
            cutTornTail: found.cutTornTail
        )
    }

    public var hardState: HardState { map.hardState }
    public var extent: LogExtent { map.extent }

    /// Payload bytes the write takes in one record.
    public static func payloadBytes(of write: Write) -> Int {
        write.entries.reduce(Batch.overheadBytes) { $0 + Batch.entryOverheadBytes + $1.payload.count }
    }

    /// Writes one record; durable after `sync()`. Syncs first what an earlier append left unsynced.
    ///
    /// - Throws: `noSpace` and `tooLarge` leave the log as it was; `failed` is final.
    public func append(_ write: Write) throws(LogError) {
        try checkAlive()
        try sync()
        guard write.changesLog else { return }
        let batch = Batch(
            hardState: write.hardState,
            truncation: try write.truncateFrom.map { from throws(LogError) in
                precondition(
                    from > map.base.index && from <= map.last.index + 1, "truncate from \(from): \(map.extent)")
                guard let term = map.term(at: from - 1) else { throw .notAvailable(from - 1, map.extent) }
                return Batch.Truncation(from: from, previousTerm: term)
            },
            entries: write.entries
        )
        let payload = batch.encode()
        guard payload.count <= recordBytesMax else {
            throw LogError(.tooLarge, "a record of \(payload.count) bytes exceeds the limit of \(recordBytesMax)")
        }
        let firstIndex = write.entries.first?.index ?? write.truncateFrom ?? map.last.index + 1
        // Asked before the disk is touched: a batch that does not fit is the caller's broken invariant.
        let misfit = map.misfit(batch, firstIndex: firstIndex)
        precondition(misfit == nil, "batch at \(firstIndex): \(misfit ?? "")")
        if preparationPause > 0 { preparationPause -= 1 }
        try makeRoom(for: Record.totalBytes(payload: payload.count))
        let record = Record(
            kind: .batch,
            term: write.entries.first?.term ?? map.last.term,
            firstIndex: firstIndex,
            payload: payload[...],
            previousSum: tail.sum
        )
        let offset = tail.end
        try put(record)
        _ = map.add(batch, firstIndex: firstIndex, segment: tail.sequence, offset: offset, bytes: record.totalBytes)
    }

    /// Makes the last append durable.
    /// - Throws: `failed`, final.
    public func sync() throws(LogError) {
        try checkAlive()
        guard unsynced else { return }
        do {
            try tail.storage.sync()
            unsynced = false
        } catch {
            throw die(error)
        }
    }

    /// Entries of the range in order: all, or as many from its start as fit `bytesMax` (footprint; at least one).
    /// - Throws: `notAvailable` when the range leaves `extent`; `damaged` when what is read is not what was written.
    public func entries(_ range: Range<UInt64>, bytesMax: Int) throws(LogError) -> [Entry] {
        try checkAlive()
        guard !range.isEmpty else { return [] }
        guard range.lowerBound > map.base.index else { throw .notAvailable(range.lowerBound, map.extent) }
        guard range.upperBound <= map.last.index + 1 else { throw .notAvailable(range.upperBound - 1, map.extent) }
        var found: [Entry] = []
        var bytes = 0
        for run in map.runs where run.last >= range.lowerBound && run.first < range.upperBound {
            for entry in try read(run) where range.contains(entry.index) {
                bytes += entry.footprintBytes
                guard bytes <= bytesMax || found.isEmpty else { return found }
                found.append(entry)
            }
        }
        return found
    }

    /// Removes whole segments that hold nothing above `index`. Call it only with an index that is durable in the state or
    /// a snapshot. Syncs the directory once per file, so that files vanish in order whatever happens.
    public func compact(through index: UInt64) throws(LogError) {
        try checkAlive()
        try sync()
        // The hard state lives on in the next segment's header, which must be there.
        while segments.count > 2 || segments.count == 2 && tail.end > 0,
            map.isSpent(segment: segments[0], through: index)
        {
            do {
                try directory.remove(SegmentName.of(segments[0]))
                try directory.sync()
            } catch {
                throw die(error)
            }
            map.drop(segment: segments.removeFirst())
        }
    }

    /// Whether `prepare()` has anything to do now.
    public var wantsPreparation: Bool { failure == nil && !next.isReady && preparationPause == 0 }

    /// Does a piece (1 MiB) of making the next segment. A full disk is no error here: it shows in `isShortOfSpace`, and
    /// the work is tried again after some appends.
    public func prepare() throws(LogError) {
        try checkAlive()
        do {
            try next.advance(in: directory, as: tail.sequence + 1)
            isShortOfSpace = false
        } catch {
            guard error.isNoSpace else { throw die(error) }
            isShortOfSpace = true
            preparationPause = 64
        }
    }

    /// There is no room for another segment: only what is left of the current one can be written.
    public private(set) var isShortOfSpace = false

    // MARK: Writing

    /// Goes to the next segment when a record of `bytes` and the seal do not fit this one any more.
    private func makeRoom(for bytes: Int) throws(LogError) {
        if tail.end > 0, tail.end + bytes + SegmentSeal.recordBytes > tail.capacity {
            // First the room, then the seal: a full disk must leave this segment open.
            do {
                while !next.isReady { try next.advance(in: directory, as: tail.sequence + 1) }
                isShortOfSpace = false
            } catch {
                isShortOfSpace = error.isNoSpace
                throw error.isNoSpace ? .noSpace(error) : die(error)
            }
            let seal = SegmentSeal(last: map.last, nextCapacity: next.capacity)
            try putSynced(seal.record(previousSum: tail.sum))
            let sequence = tail.sequence + 1
            guard let storage = next.take() else { preconditionFailure("segment \(sequence) is not ready") }
            tail = TailSegment(sequence: sequence, storage: storage, capacity: next.capacity, end: 0, sum: tail.sum)
            segments.append(sequence)
        }
        if tail.end == 0 {
            let header = SegmentHeader(
                sequence: tail.sequence,
                capacity: tail.capacity,
                base: map.last,
                hardState: map.hardState
            )
            try putSynced(header.record(previousSum: tail.sum))
        }
    }

    private func putSynced(_ record: Record) throws(LogError) {
        try put(record)
        try sync()
    }

    private func put(_ record: Record) throws(LogError) {
        var record = record
        let bytes = record.encode()
        if tail.dirtyEnd > tail.end {
            try write([UInt8](repeating: 0, count: tail.dirtyEnd - tail.end))
            unsynced = true
            try sync()
            tail.dirtyEnd = 0
        }
        try write(bytes)
        tail.end += bytes.count
        tail.sum = record.sum
        unsynced = true
    }

    private func write(_ bytes: [UInt8]) throws(LogError) {
        do {
            try tail.storage.write(bytes, at: tail.end)
        } catch {
            guard error.isNoSpace else { throw die(error) }
            // The blocks are there since the segment was made, yet some file systems need new ones to overwrite. Pieces
            // of this record may remain and are wiped before anything else is written.
            tail.dirtyEnd = max(tail.dirtyEnd, tail.end + bytes.count)
            throw .noSpace(error)
        }
    }

    // MARK: Reading

    private func read(_ run: LogMap.Run) throws(LogError) -> [Entry] {
        let bytes: [UInt8]
        do {
            let storage = run.segment == tail.sequence ? tail.storage : try directory.open(SegmentName.of(run.segment))
            bytes = try storage.read(at: run.offset, count: run.bytes)
        } catch {
            throw die(error)
        }
        var found: [Entry] = []
        var offset = 0
        while offset < bytes.count, found.last?.index ?? 0 < run.last {
            guard case .record(let record) = Record.parse(bytes, at: offset), let batch = Batch(record) else {
                throw die(.damaged("segment \(run.segment) cannot be read at \(run.offset + offset)"))
            }
            found += batch.entries.prefix { $0.index <= run.last }
            offset += record.totalBytes
        }
        guard found.first?.index == run.first, found.last?.index == run.last else {
            throw die(.damaged("segment \(run.segment) lacks entries \(run.first) to \(run.last)"))
        }
        return found
    }

    // MARK: Failure

    private func checkAlive() throws(LogError) {
        if let failure { throw failure }
    }

    private func die(_ error: DiskError) -> LogError { die(error.final) }

    private func die(_ error: LogError) -> LogError {
        failure = error
        return error
    }
}

extension LogError {
    static func noSpace(_ error: DiskError) -> Self {
        Self(.noSpace, "no room for the log: \(error)", hint: "free space on the log's disk", status: error.status)
    }

    static func notAvailable(_ index: UInt64, _ extent: LogExtent) -> Self {
        Self(.notAvailable, "entry \(index) is not in the log, which spans \(extent.base) to \(extent.last)")
    }

    static func damaged(_ message: String) -> Self {
        Self(
            .damaged,
            "the log is damaged: \(message)",
            hint: "this node must not continue under its identity; replace it or restore a backup"
        )
    }
}

extension DiskError {
    /// As an error of the log when nothing can be retried.
    var final: LogError {
        LogError(
            .failed,
            "the log cannot go on: \(self)",
            hint: "check the disk; the daemon must be restarted",
            status: status
        )
    }
}
