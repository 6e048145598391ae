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
        /// Size of a file that is given up when the disk is full, in bytes; 0 for none.
        public var ballastBytes = 0
        /// An empty directory is damage: this node has promised things already.
        public var mustExist = false

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
    public private(set) var recovered: Recovered
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
    private var ballast: Ballast
    /// Appends to let pass before trying again to prepare a segment on a full disk.
    private var preparationPause = 0

    /// Opens the log in `directory`, making an empty one in an empty directory.
    ///
    /// Scans everything; copies the newest segment to a fresh file, since after an fsync error memory may show what the
    /// disk does not hold.
    /// - Parameters:
    ///   - minimumIndex: what the state is known to hold durably. A log that ends before it, or begins after the next
    ///     entry, is damaged.
    ///   - installing: the end of a snapshot that is the durable state already (`minimumIndex` is its index), while it is
    ///     not certain that the log followed: it is reset now, unless it was or holds that position, as the core decides.
    /// - Throws: `damaged`, `noSpace`, `failed`.
    public init(
        directory: any LogDirectory,
        minimumIndex: UInt64,
        installing: LogPosition? = nil,
        options: Options = Options()
    ) throws(LogError) {
        let segmentBytes = max(options.segmentBytes, 1 << 10) & ~7
        let recovery = LogRecovery(directory: directory, segmentBytes: segmentBytes, mustExist: options.mustExist)
        var ballast = Ballast(bytes: options.ballastBytes)
        do { try ballast.find(in: directory) } catch { throw error.final }
        let found = try recovery.run(minimumIndex: minimumIndex, installing: installing, ballast: &ballast)
        self.directory = directory
        map = found.map
        segments = found.segments
        tail = found.tail
        next = NextSegment(capacity: segmentBytes)
        recordBytesMax =
            segmentBytes - SegmentHeader.recordBytes - SegmentSeal.recordBytes - Record.totalBytes(payload: 8)
        recovered = Recovered(found.map, cutTornTail: found.cutTornTail)
        self.ballast = ballast
        if found.wantsReset, let installing {
            try reset(to: installing)
            recovered = Recovered(map, cutTornTail: found.cutTornTail)
        }
        // Not the last of what is free: others need it more.
        if try freeBytes() / 3 >= missingBallastBytes { try restoreBallast() }
    }

    public var hardState: HardState { map.hardState }
    public var extent: LogExtent { map.extent }
    /// Of all segment files, in bytes, if all have the size new ones have.
    public var fileBytes: Int { (segments.count + (next.isReady ? 1 : 0)) * next.capacity }

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
        let payloadBytes = batch.payloadBytes
        guard payloadBytes <= recordBytesMax else {
            throw LogError(.tooLarge, "a record of \(payloadBytes) bytes exceeds the limit of \(recordBytesMax)")
        }
        let firstIndex = write.entries.first?.index ?? write.truncateFrom ?? map.last.index + 1
        // Asked before the disk is touched: a batch that does not fit is the caller's broken invariant.
        let misfit = map.misfit(batch, firstIndex: firstIndex)
        precondition(misfit == nil, "batch at \(firstIndex): \(misfit ?? "")")
        if preparationPause > 0 { preparationPause -= 1 }
        try makeRoom(for: Record.totalBytes(payload: payloadBytes))
        let record = Record.encode(
            .batch,
            term: write.entries.first?.term ?? map.last.term,
            firstIndex: firstIndex,
            previousSum: tail.sum,
            payloadBytes: payloadBytes
        ) { batch.encode(to: &$0) }
        let offset = tail.end
        try put(record)
        _ = map.add(batch, firstIndex: firstIndex, segment: tail.sequence, offset: offset, bytes: record.bytes.count)
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

    /// Empties the log, which then begins after `position`: the end of a snapshot that is durable as the state. Term and
    /// vote stay. A crash leaves the old log or the new one; `init(installing:)` finishes it then.
    ///
    /// - Parameter position: at or after `extent.base`.
    /// - Throws: `noSpace`, the log is as it was; `failed`, final.
    public func reset(to position: LogPosition) throws(LogError) {
        try checkAlive()
        try sync()
        guard extent != LogExtent(base: position, last: position) else { return }
        precondition(position.index >= map.base.index, "reset to \(position): \(extent)")
        var hardState = map.hardState
        hardState.commit = position.index
        // The snapshot's term is known to have been; nobody here has voted in it, or the term would be in the log.
        if hardState.term < position.term { hardState = HardState(term: position.term, commit: position.index) }
        try makeNext()
        let sequence = tail.sequence + 1
        guard let storage = next.take() else { preconditionFailure("segment \(sequence) is not ready") }
        let header = SegmentHeader(
            sequence: sequence, capacity: next.capacity, base: position, hardState: hardState, isReset: true)
        let record = header.record(previousSum: tail.sum)
        do {
            // This record is the whole step: it lies in one sector, so that it is there or not.
            try storage.write(record.bytes, at: 0)
            try storage.sync()
            for segment in segments { try directory.remove(SegmentName.of(segment)) }
            try directory.sync()
        } catch {
            throw die(error)
        }
        tail = TailSegment(
            sequence: sequence, storage: storage, capacity: next.capacity, end: record.bytes.count, sum: record.sum)
        segments = [sequence]
        map = LogMap(base: position, hardState: hardState)
    }

    // MARK: Room

    /// Whether `prepare()` has anything to do now.
    public var wantsPreparation: Bool {
        failure == nil && preparationPause == 0 && (!next.isReady || tail.zeroedEnd < aheadEnd)
    }

    /// Does a piece of the work ahead: makes the next segment, or fills what comes next of this one with zeroes (1 MiB).
    /// A full disk is no error here: it shows in `isShortOfSpace`, and the work is tried again after some appends.
    public func prepare() throws(LogError) {
        try checkAlive()
        do {
            if !next.isReady {
                try next.make(in: directory, as: tail.sequence + 1)
            } else {
                try zeroAhead()
            }
            isShortOfSpace = false
        } catch {
            guard error.isNoSpace else { throw die(error) }
            isShortOfSpace = true
            preparationPause = 64
        }
    }

    /// Lets `prepare` try again now what a full disk kept it from.
    public func retryPreparation() { preparationPause = 0 }

    /// There is no room for another segment: only what is left of the current one can be written.
    public private(set) var isShortOfSpace = false

    /// Bytes free on the log's disk.
    /// - Throws: `failed`; the log goes on.
    public func freeBytes() throws(LogError) -> Int {
        do { return try directory.freeBytes() } catch { throw error.final }
    }

    /// What it takes to make the ballast again, in bytes; 0 while it is there.
    public var missingBallastBytes: Int { ballast.isThere ? 0 : ballast.bytes }

    /// Gives the ballast's room to whoever needs it. `append` and `reset` do so themselves when the disk is full.
    /// - Throws: `failed`, final.
    public func giveUpBallast() throws(LogError) {
        try checkAlive()
        do { _ = try ballast.giveUp(in: directory) } catch { throw die(error) }
    }

    /// Makes the ballast again if there is room.
    /// - Throws: `failed`, final.
    public func restoreBallast() throws(LogError) {
        try checkAlive()
        do { try ballast.make(in: directory) } catch { throw die(error) }
    }

    private static let zeroedAheadBytes = 4 << 20
    private static let zeroedPieceBytes = 1 << 20

    /// Up to where the tail should be written with zeroes: a first write to blocks that are only reserved costs the file
    /// system another flush.
    private var aheadEnd: Int { min(tail.capacity, tail.end + Self.zeroedAheadBytes) }

    private func zeroAhead() throws(DiskError) {
        let start = max(tail.end, tail.zeroedEnd)
        guard start < aheadEnd else { return }
        let end = min(start + Self.zeroedPieceBytes, tail.capacity)
        try tail.storage.write([UInt8](repeating: 0, count: end - start), at: start)
        try tail.storage.sync()
        unsynced = false
        tail.zeroedEnd = end
    }

    /// Makes the next segment now, at the cost of the ballast if need be.
    private func makeNext() throws(LogError) {
        let sequence = tail.sequence + 1
        do {
            try ballast.spending(in: directory) { () throws(DiskError) in
                try next.make(in: directory, as: sequence)
            }
            isShortOfSpace = false
        } catch {
            isShortOfSpace = error.isNoSpace
            throw error.isNoSpace ? .noSpace(error) : die(error)
        }
    }

    // MARK: Writing

    /// Goes to the next segment when a record of `bytes` and the seal do not fit this one any more.
    private func makeRoom(for bytes: Int) throws(LogError) {
        if tail.end > 0, tail.end + bytes + SegmentSeal.recordBytes > tail.capacity {
            // First the room, then the seal: a full disk must leave this segment open.
            try makeNext()
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

    private func putSynced(_ record: Record.Encoded) throws(LogError) {
        try put(record)
        try sync()
    }

    private func put(_ record: Record.Encoded) throws(LogError) {
        if tail.dirtyEnd > tail.end {
            try write([UInt8](repeating: 0, count: tail.dirtyEnd - tail.end))
            unsynced = true
            try sync()
            tail.dirtyEnd = 0
        }
        try write(record.bytes)
        tail.end += record.bytes.count
        tail.sum = record.sum
        unsynced = true
    }

    private func write(_ bytes: [UInt8]) throws(LogError) {
        do {
            try ballast.spending(in: directory) { () throws(DiskError) in try tail.storage.write(bytes, at: tail.end) }
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

    static func missing(minimumIndex: UInt64) -> Self {
        Self(
            .missing,
            minimumIndex == 0
                ? "the log is missing, but this node had one"
                : "the log is missing, but this node had one, up to entry \(minimumIndex) at least",
            hint: "put it back as it was; without it this node must not continue under its identity"
        )
    }

    static func stateBehind(_ base: UInt64, minimumIndex: UInt64) -> Self {
        Self(
            .stateBehind,
            minimumIndex == 0
                ? "the state is missing, and the log begins after entry \(base): it cannot be made anew from it"
                : "the state ends at entry \(minimumIndex), but the log begins after entry \(base)",
            hint: "put the state back as it was, or restore a snapshot of the same node"
        )
    }

    static func damaged(_ damage: LogDamage) -> Self { damaged("\(damage)") }

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

extension LogFile.Recovered {
    init(_ map: LogMap, cutTornTail: Bool) {
        self.init(
            hardState: map.hardState,
            extent: map.extent,
            termStarts: map.termStarts,
            configurations: map.configurations,
            cutTornTail: cutTornTail
        )
    }
}
