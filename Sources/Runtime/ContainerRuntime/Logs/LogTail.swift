// SPDX-License-Identifier: Apache-2.0
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import Glibc
internal import Model

/// Finds where the last lines of a task begin by reading its files backwards: cost goes with what is shown, not with
/// what is stored.
struct LogTail {
    struct Place: Equatable {
        var file: LogFile
        /// The file may be renamed before it is opened again.
        var inode: UInt64
        var offset: Int64
        /// Lines to leave out from there on.
        var skip: Int
    }

    private static let blockBytes = 64 << 10
    /// How far before the first wanted line the beginning of a long, interleaved one is looked for.
    private static let searchBytesMax: Int64 = 2 << 20

    let directory: LogDirectory
    /// In writing order, not empty.
    let files: [LogFile]

    func place(ofLast count: Int) throws(LogError) -> Place {
        var scan = Scan(wanted: max(0, count))
        var last = Place(file: files[0], inode: 0, offset: 0, skip: 0)
        for file in files.reversed() {
            let path = "\(directory.path)/\(file.name)"
            let descriptor = open(path, O_RDONLY | O_CLOEXEC)
            if descriptor < 0, errno == ENOENT { continue }
            guard descriptor >= 0 else { throw LogError(path: path, errno: errno) }
            defer { close(descriptor) }
            var status = stat()
            fstat(descriptor, &status)
            let inode = UInt64(status.st_ino)
            last = Place(file: file, inode: inode, offset: 0, skip: 0)
            var end = Int64(lseek(descriptor, 0, SEEK_END))
            if count == 0 { return Place(file: file, inode: inode, offset: end, skip: 0) }
            // Bytes from `end` on that belong to a record beginning before it.
            var head: [UInt8] = []
            while end > 0 {
                let length = min(Int64(Self.blockBytes), end)
                var block = [UInt8](repeating: 0, count: Int(length))
                let got = pread(descriptor, &block, block.count, off_t(end - length))
                guard got == block.count else { throw LogError(path: path, errno: got < 0 ? errno : EIO) }
                block += head
                end -= length
                var recordEnd = block.count
                var index = block.count - 1
                while index >= 0 {
                    let isStart = index == 0 ? end == 0 : block[index - 1] == UInt8(ascii: "\n")
                    if isStart {
                        if scan.take(block[index..<recordEnd]) {
                            let skip = scan.found - scan.wanted
                            return Place(file: file, inode: inode, offset: end + Int64(index), skip: skip)
                        }
                        recordEnd = index
                    }
                    index -= 1
                }
                head = Array(block[..<recordEnd])
                if head.count > LogJoiner.lineBytesMax { head = [] }
            }
        }
        last.skip = max(0, scan.found - scan.wanted)
        return last
    }

    /// Counts line ends backwards until the wanted lines are found with all their parts.
    private struct Scan {
        let wanted: Int
        var found = 0
        private var searched: Int64 = 0
        /// Streams with a wanted line whose first part may lie further back.
        private var open: Set<LogLine.Stream> = []

        init(wanted: Int) { self.wanted = wanted }

        /// True when reading forward from this record on shows every wanted line whole.
        mutating func take(_ record: ArraySlice<UInt8>) -> Bool {
            // A record without its line end is still being written.
            guard record.last == UInt8(ascii: "\n"), let tag = LogRecord.tag(record) else { return false }
            if found >= wanted { searched += Int64(record.count) }
            if !tag.isPartial {
                found += 1
                if found <= wanted { open.insert(tag.stream) } else { open.remove(tag.stream) }
            }
            return found > wanted && (open.isEmpty || searched > LogTail.searchBytesMax)
        }
    }
}
