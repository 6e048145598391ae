// SPDX-License-Identifier: Apache-2.0

/// The few file operations the log needs, so that a simulated disk can stand in for the real one.
///
/// Names are plain file names within one directory. Calls block; one thread uses a directory and its files at a time.
public protocol LogDirectory: AnyObject, Sendable {
    /// Names of all regular files, in any order.
    func list() throws(DiskError) -> [String]
    /// Opens an existing file for reading and writing.
    func open(_ name: String) throws(DiskError) -> any LogStorage
    /// Makes an empty file, replacing one of that name.
    func create(_ name: String) throws(DiskError) -> any LogStorage
    /// Replaces `target` if it exists; durable only after `sync()`.
    func rename(_ name: String, to target: String) throws(DiskError)
    /// Durable only after `sync()`.
    func remove(_ name: String) throws(DiskError)
    /// Makes names durable: creations, renames and removals so far.
    func sync() throws(DiskError)
    /// Bytes this process could still write on the directory's disk.
    func freeBytes() throws(DiskError) -> Int
}

extension LogDirectory {
    /// A directory that knows no limit is never short of space.
    public func freeBytes() throws(DiskError) -> Int { .max }

    func removeIfThere(_ name: String) throws(DiskError) {
        do {
            try remove(name)
        } catch {
            guard error.status == DiskStatus.notFound else { throw error }
        }
    }
}

/// One open file of a `LogDirectory`; closed when released.
public protocol LogStorage: AnyObject, Sendable {
    func size() throws(DiskError) -> Int
    /// Up to `count` bytes; fewer only at the end of the file.
    func read(at offset: Int, count: Int) throws(DiskError) -> [UInt8]
    /// Writes all bytes or throws; a part may have been written then.
    func write(_ bytes: [UInt8], at offset: Int) throws(DiskError)
    /// Makes an empty file that long, all zero, with room for all of it on the disk.
    func allocate(_ count: Int) throws(DiskError)
    /// Makes contents and size durable. After an error nothing is known about earlier writes, and a retry proves nothing.
    func sync() throws(DiskError)
}

extension LogStorage {
    public func allocate(_ count: Int) throws(DiskError) {
        let piece = 1 << 20
        for offset in stride(from: 0, to: count, by: piece) {
            try write([UInt8](repeating: 0, count: min(piece, count - offset)), at: offset)
        }
    }
}

/// A system call on a file failed.
public struct DiskError: Error, Hashable, Sendable, CustomStringConvertible {
    public var operation: String
    public var file: String
    /// `errno` as the call left it.
    public var status: Int32

    public init(operation: String, file: String, status: Int32) {
        self.operation = operation
        self.file = file
        self.status = status
    }

    public var description: String { "\(operation) `\(file)` failed (errno \(status))" }
}
