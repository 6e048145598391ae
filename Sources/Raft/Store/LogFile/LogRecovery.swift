// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// Opening: read every segment, decide what is a torn tail and what is damage, and make what was found durable.
///
/// Only the very last record can be torn, since each is synced before the next is written. A bad record counts as torn
/// only if a 512-byte sector of it is still all zero, as the segment was made (a synced record with a flipped bit is
/// not), if no valid record follows, and if nothing known to be committed would be lost. All else is damage: cutting
/// there would take back what was acknowledged. Source: Alagappan et al., "Protocol-Aware Recovery", FAST 2018.
struct LogRecovery {
    struct Found {
        var map: LogMap
        var segments: [UInt64]
        var tail: TailSegment
        var cutTornTail: Bool
    }

    private struct Scan {
        var map: LogMap
        var sum: UInt32
        /// The segment that is not sealed: its content up to the end of the last good record.
        var open: (sequence: UInt64, content: ArraySlice<UInt8>, capacity: Int)?
        /// A segment made ahead and not yet begun.
        var spare: UInt64?
        /// Size of the segment after the last sealed one.
        var nextCapacity: Int?
        var cutTornTail = false
    }

    static let sectorBytes = 512

    let directory: any LogDirectory
    let segmentBytes: Int

    func run(minimumIndex: UInt64) throws(LogError) -> Found {
        var sequences: [UInt64] = []
        for name in try disk({ () throws(DiskError) in try directory.list() }) {
            if let sequence = SegmentName.sequence(name) { sequences.append(sequence) }
            if name == SegmentName.preparing || name == SegmentName.recovering {
                try disk { () throws(DiskError) in try directory.remove(name) }
            }
        }
        sequences.sort()
        guard let first = sequences.first else {
            guard minimumIndex == 0 else { throw .damaged("it is missing, but the state holds entry \(minimumIndex)") }
            let scan = Scan(map: LogMap(base: .origin, hardState: HardState()), sum: 0, open: (1, [], segmentBytes))
            return try renew(scan, segments: [1])
        }
        for (offset, sequence) in sequences.enumerated() where sequence != first + UInt64(offset) {
            throw .damaged("segment \(first + UInt64(offset)) is missing")
        }
        let scan = try scan(sequences)
        try check(scan.map, minimumIndex: minimumIndex)
        return try renew(scan, segments: sequences.filter { $0 != scan.spare })
    }

    // MARK: Scan

    private func scan(_ sequences: [UInt64]) throws(LogError) -> Scan {
        var scan: Scan?
        for sequence in sequences {
            let bytes = try read(sequence)
            let isLast = sequence == sequences.last
            if scan?.open != nil {
                guard isLast, bytes[...].isZero else { throw .damaged("segment \(sequence - 1) has no seal") }
                scan?.spare = sequence
            } else {
                try take(bytes, sequence, isLast: isLast, into: &scan)
            }
        }
        guard let scan else { throw .damaged("it has no segment") }
        guard scan.open != nil else { throw .damaged("segment \((sequences.last ?? 0) + 1) is missing") }
        return scan
    }

    private func take(_ bytes: [UInt8], _ sequence: UInt64, isLast: Bool, into scan: inout Scan?) throws(LogError) {
        let start: Record
        switch Record.parse(bytes, at: 0) {
        case .record(let record): start = record
        case .end, .bad:
            guard isLast, let promised = scan?.nextCapacity, promised == bytes.count,
                isTorn(bytes, at: 0, extent: SegmentHeader.recordBytes)
            else { throw .damaged("segment \(sequence) has no header") }
            scan?.open = (sequence, [], segmentBytes)
            return
        }
        guard let header = SegmentHeader(start), header.sequence == sequence else {
            throw .damaged("segment \(sequence) begins with something else")
        }
        guard header.capacity == bytes.count else {
            throw .damaged("segment \(sequence) has \(bytes.count) bytes instead of \(header.capacity)")
        }
        var found = scan ?? Scan(map: LogMap(base: header.base, hardState: header.hardState), sum: start.previousSum)
        guard found.map.last == header.base, found.sum == start.previousSum else {
            throw .damaged("segment \(sequence) does not follow segment \(sequence - 1)")
        }
        found.sum = start.sum
        try takeRecords(bytes, sequence, from: start.totalBytes, into: &found)
        scan = found
    }

    private func takeRecords(
        _ bytes: [UInt8],
        _ sequence: UInt64,
        from start: Int,
        into scan: inout Scan
    ) throws(LogError) {
        var offset = start
        while true {
            let place = "segment \(sequence) at byte \(offset)"
            switch Record.parse(bytes, at: offset) {
            case .record(let record):
                guard record.previousSum == scan.sum else { throw .damaged("\(place): broken chain") }
                scan.sum = record.sum
                if let seal = SegmentSeal(record) {
                    guard seal.last == scan.map.last, bytes[(offset + record.totalBytes)...].isZero else {
                        throw .damaged("\(place): seal before the end")
                    }
                    scan.nextCapacity = seal.nextCapacity
                    return
                }
                guard let batch = Batch(record) else { throw .damaged("\(place): not a batch of entries") }
                let misfit = scan.map.add(
                    batch,
                    firstIndex: record.firstIndex,
                    segment: sequence,
                    offset: offset,
                    bytes: record.totalBytes
                )
                if let misfit { throw .damaged("\(place): \(misfit)") }
                offset += record.totalBytes
            case .bad(let problem, let extent):
                guard isTorn(bytes, at: offset, extent: extent) else { throw .damaged("\(place): \(problem)") }
                scan.cutTornTail = true
                fallthrough
            case .end:
                scan.open = (sequence, bytes[..<offset], bytes.count)
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
        return missing && Record.find(in: bytes, from: offset) == nil
    }

    private func check(_ map: LogMap, minimumIndex: UInt64) throws(LogError) {
        if map.base.index > minimumIndex {
            throw .damaged("it begins after entry \(map.base.index), but the state ends at \(minimumIndex)")
        }
        let known = max(minimumIndex, map.hardState.commit)
        if map.last.index < known {
            throw .damaged("it ends at entry \(map.last.index), but entry \(known) was committed")
        }
        if map.last.term > map.hardState.term {
            throw .damaged("it ends at \(map.last), but its hard state is of term \(map.hardState.term)")
        }
    }

    // MARK: Renewal

    /// Copies the open segment's records to a new file that takes its place.
    private func renew(_ scan: Scan, segments: [UInt64]) throws(LogError) -> Found {
        guard let open = scan.open else { preconditionFailure("a log without an open segment") }
        var content = Array(open.content)
        var sum = scan.sum
        if content.isEmpty {
            let header = SegmentHeader(
                sequence: open.sequence,
                capacity: open.capacity,
                base: scan.map.last,
                hardState: scan.map.hardState
            )
            var record = header.record(previousSum: sum)
            content = record.encode()
            sum = record.sum
        }
        let storage = try disk { [content] () throws(DiskError) in
            // First, so that on a full disk its room serves the copy.
            if let spare = scan.spare { try directory.remove(SegmentName.of(spare)) }
            let storage = try directory.create(SegmentName.recovering)
            try storage.write(content, at: 0)
            var offset = content.count
            while offset < open.capacity {
                let count = min(NextSegment.chunkBytes, open.capacity - offset)
                try storage.write([UInt8](repeating: 0, count: count), at: offset)
                offset += count
            }
            try storage.sync()
            try directory.rename(SegmentName.recovering, to: SegmentName.of(open.sequence))
            try directory.sync()
            return storage
        }
        let tail = TailSegment(
            sequence: open.sequence,
            storage: storage,
            capacity: open.capacity,
            end: content.count,
            sum: sum
        )
        return Found(map: scan.map, segments: segments, tail: tail, cutTornTail: scan.cutTornTail)
    }

    // MARK: Disk

    private func read(_ sequence: UInt64) throws(LogError) -> [UInt8] {
        try disk { () throws(DiskError) in
            let storage = try directory.open(SegmentName.of(sequence))
            return try storage.read(at: 0, count: try storage.size())
        }
    }

    private func disk<Value>(_ body: () throws(DiskError) -> Value) throws(LogError) -> Value {
        do {
            return try body()
        } catch {
            throw error.isNoSpace ? .noSpace(error) : error.final
        }
    }
}
