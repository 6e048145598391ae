// SPDX-License-Identifier: Apache-2.0

/// Names of the files in a log directory.
///
/// `00000000000000000001.log` and on are segments in order, the newest possibly still all zero (made ahead of need);
/// `*.tmp` were never finished and are removed at open.
enum SegmentName {
    static let preparing = "next.tmp"
    static let recovering = "tail.tmp"
    private static let digits = 20

    static func of(_ sequence: UInt64) -> String {
        let number = String(sequence)
        return String(repeating: "0", count: digits - number.count) + number + ".log"
    }

    static func sequence(_ name: String) -> UInt64? {
        guard name.hasSuffix(".log"), name.utf8.count == digits + 4 else { return nil }
        return UInt64(name.dropLast(4))
    }
}

/// The segment being written.
struct TailSegment {
    var sequence: UInt64
    var storage: any LogStorage
    var capacity: Int
    /// Where the next record goes; 0 while not even the segment's header is written.
    var end: Int
    /// Body sum of the last record, here or in the segment before.
    var sum: UInt32
    /// Up to here zeroes were written; beyond, the room is only reserved and a first write there costs more.
    var zeroedEnd = 0
    /// Bytes beyond `end` up to here may hold pieces of a record that met a full disk.
    var dirtyEnd = 0
}

/// Makes the next segment ahead of need, so that commits need not wait for it and a full disk shows while there is still
/// room to work in.
struct NextSegment {
    let capacity: Int
    private var storage: (any LogStorage)?

    init(capacity: Int) {
        self.capacity = capacity
    }

    var isReady: Bool { storage != nil }

    /// On an error no unfinished file is left.
    mutating func make(in directory: any LogDirectory, as sequence: UInt64) throws(DiskError) {
        guard !isReady else { return }
        do {
            let fresh = try directory.create(SegmentName.preparing)
            try fresh.allocate(capacity)
            try fresh.sync()
            try directory.rename(SegmentName.preparing, to: SegmentName.of(sequence))
            try directory.sync()
            storage = fresh
        } catch {
            if error.isNoSpace { try directory.removeIfThere(SegmentName.preparing) }
            throw error
        }
    }

    /// Hands over the finished file and begins anew.
    mutating func take() -> (any LogStorage)? {
        defer { storage = nil }
        return storage
    }
}

extension DiskError {
    var isNoSpace: Bool { status == DiskStatus.noSpace || status == DiskStatus.quota }
}
