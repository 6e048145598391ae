// SPDX-License-Identifier: Apache-2.0
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import Glibc

/// One file of a task's log: `<attempt>.log` is being written, `<attempt>.log.1` was put aside, higher is older.
struct LogFile: Hashable {
    var attempt: Int
    var age: Int

    var name: String { age == 0 ? "\(attempt).log" : "\(attempt).log.\(age)" }

    init(attempt: Int, age: Int) {
        self.attempt = attempt
        self.age = age
    }

    init?(name: String) {
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        guard (2...3).contains(parts.count), parts[1] == "log", let attempt = Int(parts[0]), attempt >= 0 else {
            return nil
        }
        guard let age = parts.count == 2 ? 0 : Int(parts[2]), parts.count == 2 || age > 0 else { return nil }
        (self.attempt, self.age) = (attempt, age)
    }

    /// The order in which the lines were written.
    static func isOlder(_ left: Self, _ right: Self) -> Bool {
        left.attempt == right.attempt ? left.age > right.age : left.attempt < right.attempt
    }
}

/// The files of one task, which its writers rename under the reader's hands.
struct LogDirectory {
    let path: String

    /// In writing order; nil when the directory does not exist.
    func files() -> [LogFile]? {
        guard let directory = opendir(path) else { return nil }
        defer { closedir(directory) }
        var files: [LogFile] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if let file = LogFile(name: name) { files.append(file) }
        }
        return files.sorted(by: LogFile.isOlder)
    }

    func inode(of file: LogFile) -> UInt64? {
        var status = stat()
        guard stat("\(path)/\(file.name)", &status) == 0 else { return nil }
        return UInt64(status.st_ino)
    }

    /// The file written after the one that was opened as `attempt`, whatever that one is called now.
    func successor(ofInode inode: UInt64, attempt: Int) -> (file: LogFile, inode: UInt64)? {
        // A rename between two looks can hide a file or show it twice; a stable picture comes within a try or two.
        for _ in 0..<5 {
            guard let all = files() else { return nil }
            let own = all.filter { $0.attempt == attempt }
            let inodes = own.map { self.inode(of: $0) }
            guard files() == all, own.map({ self.inode(of: $0) }) == inodes else { continue }
            // When it went with the oldest, what is left goes on.
            let index = inodes.firstIndex(of: inode).map { $0 + 1 } ?? 0
            guard let next = index < own.count ? own[index] : all.first(where: { $0.attempt > attempt }) else {
                return nil
            }
            if let inode = self.inode(of: next) { return (next, inode) }
        }
        return nil
    }
}
