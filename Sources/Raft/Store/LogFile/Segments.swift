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
    /// Bytes beyond `end` up to here may hold pieces of a record that met a full disk.
    var dirtyEnd = 0
}

/// Makes the next segment ahead of need, a piece at a time, so that commits never wait for 16 MiB of zeroes and a full
/// disk shows while there is still room to work in.
struct NextSegment {
    static let chunkBytes = 1 << 20

    let capacity: Int
    private var storage: (any LogStorage)?
    private var written = 0
    private(set) var isReady = false

    init(capacity: Int) {
        self.capacity = capacity
    }

    /// Does one piece of the work. On an error the unfinished file is gone and the work begins anew.
    mutating func advance(in directory: any LogDirectory, as sequence: UInt64) throws(DiskError) {
        do {
            try piece(in: directory, as: sequence)
        } catch {
            storage = nil
            written = 0
            if error.isNoSpace { try directory.remove(SegmentName.preparing) }
            throw error
        }
    }

    private mutating func piece(in directory: any LogDirectory, as sequence: UInt64) throws(DiskError) {
        guard !isReady else { return }
        if storage == nil { storage = try directory.create(SegmentName.preparing) }
        guard let storage else { return }
        if written < capacity {
            let count = min(Self.chunkBytes, capacity - written)
            try storage.write([UInt8](repeating: 0, count: count), at: written)
            written += count
        } else {
            try storage.sync()
            try directory.rename(SegmentName.preparing, to: SegmentName.of(sequence))
            try directory.sync()
            isReady = true
        }
    }

    /// Hands over the finished file and begins anew.
    mutating func take() -> (any LogStorage)? {
        guard isReady else { return nil }
        defer { self = NextSegment(capacity: capacity) }
        return storage
    }
}

extension DiskError {
    var isNoSpace: Bool { status == DiskStatus.noSpace || status == DiskStatus.quota }
}
