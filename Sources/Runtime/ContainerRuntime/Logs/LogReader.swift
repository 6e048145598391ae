// SPDX-License-Identifier: Apache-2.0
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import Glibc
internal import Model

/// Reads the files of one task forward, over rotations and attempts. Blocking; owned by one thread at a time.
final class LogReader {
    private static let blockBytes = 64 << 10

    private let directory: LogDirectory
    private let query: LogQuery
    /// A reader that does not follow ends at the first line written after it began: it must not race a busy writer.
    private let until: Timestamp?
    private var descriptor: Int32 = -1
    private var file = LogFile(attempt: 0, age: 0)
    private var inode: UInt64 = 0
    /// Bytes after the last whole record.
    private var carry: [UInt8] = []
    private var joiner = LogJoiner()
    private var skip = 0
    private var hasStarted = false
    private var hasSeenDirectory = false
    private(set) var isAtEnd = false

    init(directory: LogDirectory, query: LogQuery, now: Timestamp) {
        self.directory = directory
        self.query = query
        until = query.follow ? nil : now
    }

    deinit { closeFile() }

    /// The next lines, one block's worth at most; empty when there is nothing new now, or nothing more when `isAtEnd`.
    func next() throws(LogError) -> [LogLine] {
        if isAtEnd { return [] }
        guard try start() else { return [] }
        while true {
            var lines: [LogLine] = []
            if try readBlock(into: &lines) {
                if lines.isEmpty, !isAtEnd { continue }
                return lines
            }
            if let next = directory.successor(ofInode: inode, attempt: file.attempt) {
                // Nobody writes to this file once it has a successor; what came before it did is still to be read.
                if try readBlock(into: &lines) { return lines }
                let isNewAttempt = next.file.attempt != file.attempt
                if try open(next.file, inode: next.inode, at: 0), isNewAttempt { lines += finishAttempt() }
                if lines.isEmpty { continue }
                return lines
            }
            if !query.follow || directory.files() == nil {
                lines += finishAttempt()
                isAtEnd = true
            }
            return lines
        }
    }

    // MARK: Details

    /// False when there is no file yet.
    private func start() throws(LogError) -> Bool {
        if hasStarted { return true }
        let files = directory.files()
        guard let files, let first = files.first else {
            isAtEnd = !query.follow || (hasSeenDirectory && files == nil)
            hasSeenDirectory = hasSeenDirectory || files != nil
            return false
        }
        if let tail = query.tail {
            let place = try LogTail(directory: directory, files: files).place(ofLast: tail)
            skip = place.skip
            hasStarted = try open(place.file, inode: place.inode, at: place.offset)
        } else {
            let file = query.since.flatMap { firstFile(of: files, since: $0) } ?? first
            hasStarted = try open(file, inode: directory.inode(of: file) ?? 0, at: 0)
        }
        return hasStarted
    }

    /// Leaves out files that were last written before `since`; the last one always stays.
    private func firstFile(of files: [LogFile], since: Timestamp) -> LogFile? {
        files.first { file in
            var status = stat()
            guard stat("\(directory.path)/\(file.name)", &status) == 0 else { return false }
            return Int64(status.st_mtim.tv_sec) * 1000 + 1000 >= since.milliseconds
        } ?? files.last
    }

    /// False, with nothing changed, when the file of that inode has another name by now: look again.
    private func open(_ next: LogFile, inode expected: UInt64, at offset: Int64) throws(LogError) -> Bool {
        let path = "\(directory.path)/\(next.name)"
        let fresh = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        if fresh < 0, errno == ENOENT { return false }
        guard fresh >= 0 else { throw LogError(path: path, errno: errno) }
        var status = stat()
        guard fstat(fresh, &status) == 0, UInt64(status.st_ino) == expected else {
            close(fresh)
            return false
        }
        closeFile()
        (descriptor, file, inode, carry) = (fresh, next, expected, [])
        lseek(descriptor, off_t(offset), SEEK_SET)
        return true
    }

    private func closeFile() {
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }

    /// False at the end of the file.
    private func readBlock(into lines: inout [LogLine]) throws(LogError) -> Bool {
        guard descriptor >= 0 else { return false }
        var block = [UInt8](repeating: 0, count: Self.blockBytes)
        let count = read(descriptor, &block, block.count)
        if count < 0, errno == EINTR { return true }
        guard count >= 0 else { throw LogError(path: "\(directory.path)/\(file.name)", errno: errno) }
        guard count > 0 else { return false }
        carry += block[..<count]
        var start = 0
        while let end = carry[start...].firstIndex(of: UInt8(ascii: "\n")) {
            if let record = LogRecord(carry[start..<end]) {
                if let until, record.at > until {
                    lines += finishAttempt()
                    isAtEnd = true
                    return true
                }
                if let line = joiner.take(record) { append(line, to: &lines) }
            }
            start = end + 1
        }
        carry.removeFirst(start)
        // No record of ours is that long: not a log file.
        if carry.count > LogJoiner.lineBytesMax { carry = [] }
        return true
    }

    private func finishAttempt() -> [LogLine] {
        var lines: [LogLine] = []
        for line in joiner.rest() { append(line, to: &lines) }
        return lines
    }

    private func append(_ line: LogLine, to lines: inout [LogLine]) {
        if skip > 0 {
            skip -= 1
        } else if query.since.map({ line.at >= $0 }) ?? true {
            lines.append(line)
        }
    }
}
