// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Appends records to a file and puts it aside when it is full: `path` becomes `path.1`, `path.1` becomes `path.2`;
/// the oldest goes. Only whole records are ever in a file.
///
/// Nothing here waits for a disk that is full: what cannot be written is dropped and counted, and the count is the
/// first record once writing works again.
struct RotatingFile {
    private let options: Options
    private var descriptor: Int32 = -1
    /// Bytes in the current file.
    private var size = 0
    private var buffer: [UInt8] = []
    /// Where in `buffer` each record ends.
    private var ends: [Int] = []
    private var dropped = 0
    private var failure: Int32 = 0

    init(options: Options) { self.options = options }

    mutating func append(_ record: [UInt8]) {
        if size + buffer.count > 0, size + buffer.count + record.count > options.bytesMax {
            flush()
            if size + record.count > options.bytesMax { rotate() }
        }
        buffer += record
        ends.append(buffer.count)
    }

    /// Writes what was appended.
    mutating func flush() {
        guard !buffer.isEmpty else { return }
        defer {
            buffer.removeAll(keepingCapacity: true)
            ends.removeAll(keepingCapacity: true)
        }
        guard ensureOpen() else { return dropAll() }
        if dropped > 0 {
            let notice = LineTime.now() + Array(" stderr F [\(dropped) lines were lost: ".utf8) + Self.text(failure)
            guard write(whole: notice + Array("]\n".utf8)) else { return dropAll() }
            dropped = 0
        }
        let written = writeSome(buffer)
        guard written < buffer.count else { return }
        // Back to the end of the last whole record.
        let whole = ends.lastIndex { $0 <= written }
        takeBack(written - (whole.map { ends[$0] } ?? 0))
        dropped += ends.count - (whole.map { $0 + 1 } ?? 0)
    }

    @discardableResult
    mutating func ensureOpen() -> Bool {
        if descriptor >= 0 { return true }
        Self.makeParents(of: options.path)
        descriptor = open(options.path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else {
            failure = errno
            return false
        }
        size = Int(lseek(descriptor, 0, SEEK_END))
        // A writer that was killed may have left half a record.
        var last: UInt8 = 0
        if size > 0, pread(descriptor, &last, 1, off_t(size - 1)) == 1, last != UInt8(ascii: "\n") {
            _ = write(whole: [UInt8(ascii: "\n")])
        }
        return true
    }

    // MARK: Details

    private mutating func dropAll() { dropped += ends.count }

    /// The new file is made first: when that fails the old one goes on, longer than wished but without a loss.
    private mutating func rotate() {
        guard descriptor >= 0 else { return }
        let next = options.path + ".next"
        let fresh = open(next, O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC, 0o640)
        guard fresh >= 0 else {
            // The logs were removed: nobody can read the open file any more, so it need not grow.
            if errno == ENOENT { truncate(to: 0) }
            return
        }
        for number in stride(from: options.filesMax - 2, through: 1, by: -1) {
            rename("\(options.path).\(number)", "\(options.path).\(number + 1)")
        }
        let isAside = options.filesMax == 1 || rename(options.path, options.path + ".1") == 0 || errno == ENOENT
        guard isAside, rename(next, options.path) == 0 else {
            close(fresh)
            unlink(next)
            return
        }
        close(descriptor)
        descriptor = fresh
        size = 0
    }

    private mutating func write(whole bytes: [UInt8]) -> Bool {
        let written = writeSome(bytes)
        if written == bytes.count { return true }
        takeBack(written)
        return false
    }

    /// Cuts off the last bytes. Somebody may have emptied the file: its true end counts, not what was written.
    private mutating func takeBack(_ count: Int) {
        truncate(to: max(0, Int(lseek(descriptor, 0, SEEK_END)) - count))
    }

    /// Number of bytes that reached the file.
    private mutating func writeSome(_ bytes: [UInt8]) -> Int {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { all in
                Glibc.write(descriptor, all.baseAddress.map { $0 + done }, all.count - done)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                failure = errno
                break
            }
            done += count
        }
        size += done
        return done
    }

    private mutating func truncate(to length: Int) {
        if ftruncate(descriptor, off_t(length)) == 0 { size = length }
    }

    private static func text(_ number: Int32) -> [UInt8] { Array(String(cString: strerror(number)).utf8) }

    private static func makeParents(of path: String) {
        var prefix = ""
        for part in path.split(separator: "/").dropLast() {
            prefix += "/" + part
            mkdir(prefix, 0o750)
        }
    }
}
