// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// Opening: read everything, decide whether it can be trusted, and make what was found durable.
struct LogRecovery {
    struct Found {
        var map: LogMap
        var segments: [UInt64]
        var tail: TailSegment
        var cutTornTail: Bool
        /// The log does not begin after the snapshot being installed yet.
        var wantsReset: Bool
    }

    /// The segment to be made anew: its records, and the file that may become it.
    private struct Renewal {
        var sequence: UInt64
        var capacity: Int
        var content: [UInt8]
        var spare: (sequence: UInt64, bytes: Int)?
    }

    /// Written with zeroes at once, beyond the records of the renewed segment; the rest can wait.
    static let renewedBytes = 1 << 20

    let directory: any LogDirectory
    let segmentBytes: Int
    let mustExist: Bool

    func run(minimumIndex: UInt64, installing: LogPosition?, ballast: inout Ballast) throws(LogError) -> Found {
        var sequences: [UInt64] = []
        for name in try disk({ () throws(DiskError) in try directory.list() }) {
            if let sequence = SegmentName.sequence(name) { sequences.append(sequence) }
            if name == SegmentName.preparing || name == SegmentName.recovering {
                try disk { () throws(DiskError) in try directory.remove(name) }
            }
        }
        guard !sequences.isEmpty else {
            guard minimumIndex == 0, installing == nil, !mustExist else {
                throw .missing(minimumIndex: minimumIndex)
            }
            return try begin(ballast: &ballast)
        }
        var scan = LogScan(directory: directory)
        do throws(LogScan.Failure) {
            try scan.run(sequences.sorted())
        } catch {
            switch error {
            case .damaged(let damage): throw .damaged(damage)
            case .disk(let error): throw error.isNoSpace ? .noSpace(error) : error.final
            }
        }
        return try resume(scan, minimumIndex: minimumIndex, installing: installing, ballast: &ballast)
    }

    private func begin(ballast: inout Ballast) throws(LogError) -> Found {
        let map = LogMap(base: .origin, hardState: HardState())
        let header = SegmentHeader(sequence: 1, capacity: segmentBytes, base: map.base, hardState: map.hardState)
        let record = header.record(previousSum: 0)
        let tail = try renew(
            Renewal(sequence: 1, capacity: segmentBytes, content: record.bytes), sum: record.sum, ballast: &ballast)
        return Found(map: map, segments: [1], tail: tail, cutTornTail: false, wantsReset: false)
    }

    private func resume(
        _ scan: LogScan, minimumIndex: UInt64, installing: LogPosition?, ballast: inout Ballast
    ) throws(LogError) -> Found {
        guard let map = scan.map, let open = scan.open else { preconditionFailure("a whole log has an open segment") }
        if installing == nil, map.base.index > minimumIndex {
            throw .stateBehind(map.base.index, minimumIndex: minimumIndex)
        }
        var wantsReset = false
        var damage: LogDamage?
        if let installing, map.base.index < installing.index, minimumIndex <= installing.index,
            map.term(at: installing.index) != installing.term
        {
            // The state gave way to the snapshot already; the log was about to. A log that holds the snapshot's end
            // stays: what follows there may have been acknowledged. Source: Ongaro, figure 5.3, step 6.
            wantsReset = true
            damage = scan.checkHardState()
            if minimumIndex != installing.index {
                damage = LogDamage("the state ends at \(minimumIndex), not at the snapshot's end \(installing)")
            }
        } else {
            damage = scan.check(minimumIndex: minimumIndex)
            if let installing, map.base.index == installing.index, map.base.term != installing.term {
                damage = LogDamage("it begins after \(map.base), but the snapshot ends at \(installing)")
            }
        }
        if let damage { throw .damaged(damage) }
        var content = Array(open.content)
        var sum = scan.sum
        if content.isEmpty {
            let header = SegmentHeader(
                sequence: open.sequence, capacity: open.capacity, base: map.last, hardState: map.hardState)
            let record = header.record(previousSum: sum)
            content = record.bytes
            sum = record.sum
        }
        if open.content.isEmpty, scan.segments.count > 1, !Planted.isActive(.sealNotRenewed) {
            try renewSealed(open.sequence - 1)
        }
        let renewal = Renewal(sequence: open.sequence, capacity: open.capacity, content: content, spare: scan.spare)
        let tail = try renew(renewal, sum: sum, ballast: &ballast)
        // Only now: the record that voids them may have been read from memory and is certain to be on the disk since.
        if !scan.voided.isEmpty {
            try disk { () throws(DiskError) in
                for sequence in scan.voided { try directory.remove(SegmentName.of(sequence)) }
                try directory.sync()
            }
        }
        return Found(
            map: map,
            segments: scan.segments,
            tail: tail,
            cutTornTail: scan.torn != nil,
            wantsReset: wantsReset)
    }

    // MARK: Renewal

    /// Copies the segment before one that is not begun: its seal may have been read from memory after a failed sync.
    private func renewSealed(_ sequence: UInt64) throws(LogError) {
        try disk { () throws(DiskError) in
            let sealed = try directory.open(SegmentName.of(sequence))
            let content = try sealed.read(at: 0, count: try sealed.size())
            let storage = try directory.create(SegmentName.recovering)
            try storage.write(content, at: 0)
            try storage.sync()
            try directory.rename(SegmentName.recovering, to: SegmentName.of(sequence))
            try directory.sync()
        }
    }

    /// Copies the open segment's records to a fresh file that takes its place: after an fsync error memory may show what
    /// the disk does not hold.
    private func renew(_ renewal: Renewal, sum: UInt32, ballast: inout Ballast) throws(LogError) -> TailSegment {
        var spare = renewal.spare
        let (storage, zeroedEnd) = try disk { () throws(DiskError) in
            let (storage, zeroedEnd) = try ballast.spending(in: directory) { () throws(DiskError) in
                let file = try fresh(renewal, spare: &spare)
                try file.storage.write(renewal.content, at: 0)
                return file
            }
            try storage.sync()
            try directory.rename(SegmentName.recovering, to: SegmentName.of(renewal.sequence))
            try directory.sync()
            return (storage, zeroedEnd)
        }
        return TailSegment(
            sequence: renewal.sequence,
            storage: storage,
            capacity: renewal.capacity,
            end: renewal.content.count,
            sum: sum,
            zeroedEnd: zeroedEnd
        )
    }

    /// A file of the segment's size, all zero, and up to where its zeroes are written and not only reserved.
    private func fresh(
        _ renewal: Renewal, spare: inout (sequence: UInt64, bytes: Int)?
    ) throws(DiskError) -> (storage: any LogStorage, zeroedEnd: Int) {
        if let ready = spare {
            spare = nil
            if ready.bytes == renewal.capacity {
                // Made and synced before; the name first, as a begun segment of the old name would look like damage.
                try directory.rename(SegmentName.of(ready.sequence), to: SegmentName.recovering)
                try directory.sync()
                return (try directory.open(SegmentName.recovering), renewal.content.count)
            }
            // First, so that on a full disk its room serves the copy.
            try directory.remove(SegmentName.of(ready.sequence))
        }
        let storage = try directory.create(SegmentName.recovering)
        try storage.allocate(renewal.capacity)
        let zeroedEnd = min(renewal.capacity, renewal.content.count + Self.renewedBytes)
        try storage.write([UInt8](repeating: 0, count: zeroedEnd - renewal.content.count), at: renewal.content.count)
        return (storage, zeroedEnd)
    }

    private func disk<Value>(_ body: () throws(DiskError) -> Value) throws(LogError) -> Value {
        do {
            return try body()
        } catch {
            throw error.isNoSpace ? .noSpace(error) : error.final
        }
    }
}
