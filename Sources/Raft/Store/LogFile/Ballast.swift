// SPDX-License-Identifier: Apache-2.0

/// A file that takes room on the disk to give it up when there is none left: enough to go on with deletions, and to make
/// the state durable so that the log can be cut.
struct Ballast {
    static let name = "ballast"

    /// In bytes; 0 for none.
    let bytes: Int
    private(set) var isThere = false

    init(bytes: Int) {
        self.bytes = max(0, bytes)
    }

    /// Looks whether an earlier run left it; one of another size is removed.
    mutating func find(in directory: any LogDirectory) throws(DiskError) {
        guard try directory.list().contains(Self.name) else { return }
        let size = try directory.open(Self.name).size()
        isThere = bytes > 0 && size == bytes
        if !isThere { try directory.remove(Self.name) }
    }

    /// Makes it unless it is there. A full disk is no error: it is then not there.
    mutating func make(in directory: any LogDirectory) throws(DiskError) {
        guard bytes > 0, !isThere else { return }
        do {
            try directory.create(Self.name).allocate(bytes)
            isThere = true
        } catch {
            guard error.isNoSpace else { throw error }
            try directory.removeIfThere(Self.name)
        }
    }

    /// - Returns: whether that made room.
    mutating func giveUp(in directory: any LogDirectory) throws(DiskError) -> Bool {
        guard isThere else { return false }
        isThere = false
        try directory.remove(Self.name)
        // A file system may hold freed blocks back until the removal is durable.
        try directory.sync()
        return true
    }

    /// Does the work, and once more with the ballast given up when the disk was full.
    mutating func spending<Value>(
        in directory: any LogDirectory, _ work: () throws(DiskError) -> Value
    ) throws(DiskError) -> Value {
        do {
            return try work()
        } catch {
            guard error.isNoSpace, try giveUp(in: directory) else { throw error }
            return try work()
        }
    }
}
