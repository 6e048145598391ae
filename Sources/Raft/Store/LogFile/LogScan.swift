// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// Where a log is not what it was, and how that shows.
struct LogDamage: Error, Hashable, CustomStringConvertible {
    var segment: UInt64?
    /// In bytes from the segment's start.
    var offset: Int?
    var problem: String

    init(_ problem: String, segment: UInt64? = nil, offset: Int? = nil) {
        self.problem = problem
        self.segment = segment
        self.offset = offset
    }

    var description: String {
        guard let segment else { return problem }
        return offset.map { "segment \(segment) at byte \($0): \(problem)" } ?? "segment \(segment) \(problem)"
    }
}

/// Reads every segment and decides what is a torn tail and what is damage. Changes nothing.
///
/// Only the very last record can be torn, since each is synced before the next is written. A bad record counts as torn
/// only if a 512-byte sector of it is still all zero, as the segment was made (a synced record with a flipped bit is
/// not), if no valid record follows, and if nothing known to be committed would be lost. All else is damage: cutting
/// there would take back what was acknowledged. Source: Alagappan et al., "Protocol-Aware Recovery", FAST 2018.
struct LogScan {
    enum Failure: Error {
        case damaged(LogDamage)
        case disk(DiskError)
    }

    /// A good record, and the segment and offset it begins at.
    typealias Visit = (_ record: Record, _ segment: UInt64, _ offset: Int) -> Void

    static let sectorBytes = 512
    /// No segment was ever made larger: a file that claims to be is not read.
    static let segmentBytesMax = 1 << 30

    private let directory: any LogDirectory
    private let visit: Visit?

    /// Segments that hold or will hold records, ascending; the last one is `open`.
    private(set) var segments: [UInt64] = []
    /// Segments a reset made void, not removed yet.
    private(set) var voided: [UInt64] = []
    /// A segment made ahead and not yet begun.
    private(set) var spare: (sequence: UInt64, bytes: Int)?
    private(set) var map: LogMap?
    /// Body sum of the last record.
    private(set) var sum: UInt32 = 0
    /// The segment that is not sealed: its content up to the end of the last good record.
    private(set) var open: (sequence: UInt64, content: ArraySlice<UInt8>, capacity: Int)?
    /// The unfinished record that ends the log.
    private(set) var torn: LogDamage?
    /// Size of the segment after the last sealed one.
    private var nextCapacity: Int?

    init(directory: any LogDirectory, visit: Visit? = nil) {
        self.directory = directory
        self.visit = visit
    }

    /// - Parameter sequences: of all segment files, ascending, at least one.
    mutating func run(_ sequences: [UInt64]) throws(Failure) {
        var live = sequences
        for sequence in sequences.reversed() where try beginsAnew(sequence) {
            live = sequences.filter { $0 >= sequence }
            voided = sequences.filter { $0 < sequence }
            break
        }
        guard let first = live.first else { throw .damaged(LogDamage("it has no segment")) }
        for (offset, sequence) in live.enumerated() where sequence != first + UInt64(offset) {
            throw .damaged(LogDamage("is missing", segment: first + UInt64(offset)))
        }
        for sequence in live {
            let bytes = try read(sequence)
            if let open {
                guard sequence == live.last, bytes[...].isZero else {
                    throw .damaged(LogDamage("has no seal", segment: open.sequence))
                }
                spare = (sequence, bytes.count)
            } else {
                try take(bytes, sequence, isLast: sequence == live.last)
                segments.append(sequence)
            }
        }
        guard open != nil else { throw .damaged(LogDamage("is missing", segment: (live.last ?? 0) + 1)) }
    }

    /// What the log must hold besides being whole.
    /// - Parameter minimumIndex: as in `LogFile.init`.
    func check(minimumIndex: UInt64) -> LogDamage? {
        guard let map else { return LogDamage("it has no segment") }
        if map.base.index > minimumIndex {
            return LogDamage("it begins after entry \(map.base.index), but the state ends at \(minimumIndex)")
        }
        if map.last.index < minimumIndex, !Planted.isActive(.tornTailCutAnyway) {
            return LogDamage("it ends at entry \(map.last.index), but entry \(minimumIndex) was committed")
        }
        return checkHardState()
    }

    func checkHardState() -> LogDamage? {
        guard let map else { return LogDamage("it has no segment") }
        if map.last.index < map.hardState.commit, !Planted.isActive(.tornTailCutAnyway) {
            return LogDamage("it ends at entry \(map.last.index), but entry \(map.hardState.commit) was committed")
        }
        if map.last.term > map.hardState.term {
            return LogDamage("it ends at \(map.last), but its hard state is of term \(map.hardState.term)")
        }
        return nil
    }

    private func beginsAnew(_ sequence: UInt64) throws(Failure) -> Bool {
        let bytes = try disk { () throws(DiskError) in
            try directory.open(SegmentName.of(sequence)).read(at: 0, count: SegmentHeader.recordBytes)
        }
        guard case .record(let record) = Record.parse(bytes, at: 0), let header = SegmentHeader(record) else {
            return false
        }
        return header.isReset && header.sequence == sequence
    }

    private mutating func take(_ bytes: [UInt8], _ sequence: UInt64, isLast: Bool) throws(Failure) {
        let start: Record
        switch Record.parse(bytes, at: 0) {
        case .record(let record): start = record
        case .end, .bad:
            guard isLast, let promised = nextCapacity, promised == bytes.count,
                isTorn(bytes, at: 0, extent: SegmentHeader.recordBytes)
            else { throw .damaged(LogDamage("has no header", segment: sequence)) }
            if !bytes[...].isZero { torn = LogDamage("unfinished header", segment: sequence, offset: 0) }
            open = (sequence, [], promised)
            return
        }
        guard let header = SegmentHeader(start), header.sequence == sequence else {
            throw .damaged(LogDamage("begins with something else", segment: sequence))
        }
        guard header.capacity == bytes.count else {
            throw .damaged(LogDamage("has \(bytes.count) bytes instead of \(header.capacity)", segment: sequence))
        }
        if let map {
            guard map.last == header.base, sum == start.previousSum else {
                throw .damaged(LogDamage("does not follow segment \(sequence - 1)", segment: sequence))
            }
        } else {
            map = LogMap(base: header.base, hardState: header.hardState)
        }
        sum = start.sum
        visit?(start, sequence, 0)
        try takeRecords(bytes, sequence, from: start.totalBytes)
    }

    private mutating func takeRecords(_ bytes: [UInt8], _ sequence: UInt64, from start: Int) throws(Failure) {
        var offset = start
        while true {
            func damaged(_ problem: String) -> Failure {
                .damaged(LogDamage(problem, segment: sequence, offset: offset))
            }
            switch Record.parse(bytes, at: offset) {
            case .record(let record):
                guard record.previousSum == sum else { throw damaged("broken chain") }
                sum = record.sum
                if let seal = SegmentSeal(record) {
                    guard seal.last == map?.last, bytes[(offset + record.totalBytes)...].isZero else {
                        throw damaged("seal before the end")
                    }
                    nextCapacity = seal.nextCapacity
                    visit?(record, sequence, offset)
                    return
                }
                guard let batch = Batch(record) else { throw damaged("not a batch of entries") }
                let misfit = map?.add(
                    batch,
                    firstIndex: record.firstIndex,
                    segment: sequence,
                    offset: offset,
                    bytes: record.totalBytes
                )
                if let misfit = misfit ?? nil { throw damaged(misfit) }
                visit?(record, sequence, offset)
                offset += record.totalBytes
            case .bad(let problem, let extent):
                guard isTorn(bytes, at: offset, extent: extent) else { throw damaged(problem) }
                torn = LogDamage(problem, segment: sequence, offset: offset)
                fallthrough
            case .end:
                open = (sequence, bytes[..<offset], bytes.count)
                return
            }
        }
    }

    private func isTorn(_ bytes: [UInt8], at offset: Int, extent: Int) -> Bool {
        let end = min(offset + extent, bytes.count)
        let sectors = offset / Self.sectorBytes...max(offset, end - 1) / Self.sectorBytes
        let missing = sectors.contains { sector in
            bytes[max(offset, sector * Self.sectorBytes)..<min(end, (sector + 1) * Self.sectorBytes)].isZero
        }
        if Planted.isActive(.tornTailCutAnyway) { return true }
        return missing && Record.find(in: bytes, from: offset) == nil
    }

    private func read(_ sequence: UInt64) throws(Failure) -> [UInt8] {
        let (storage, size) = try disk { () throws(DiskError) in
            let storage = try directory.open(SegmentName.of(sequence))
            return (storage, try storage.size())
        }
        guard size <= Self.segmentBytesMax else {
            throw .damaged(LogDamage("has \(size) bytes, more than any segment", segment: sequence))
        }
        return try disk { () throws(DiskError) in try storage.read(at: 0, count: size) }
    }

    private func disk<Value>(_ body: () throws(DiskError) -> Value) throws(Failure) -> Value {
        do { return try body() } catch { throw .disk(error) }
    }
}
