// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc

/// Pages of the program's files that are mapped into this process.
///
/// A start touches much of a large program once: metadata is searched, libraries are bound. The kernel takes such pages
/// back only when memory is short, and until then they count as ours.
enum ProgramPages {
    struct Mapping: Hashable, Sendable {
        var start: UInt
        var bytes: Int
    }

    /// Unmaps the pages that are as they stand in their files; the first use of one maps it again from the page cache.
    ///
    /// - Returns: the bytes of the mappings it went over.
    @discardableResult
    static func release() -> Int {
        guard let data = FileManager.default.contents(atPath: "/proc/self/smaps") else { return 0 }
        var bytes = 0
        for mapping in unchanged(in: String(decoding: data, as: UTF8.self)) {
            guard let start = UnsafeMutableRawPointer(bitPattern: mapping.start),
                madvise(start, mapping.bytes, MADV_DONTNEED) == 0
            else { continue }
            bytes += mapping.bytes
        }
        return bytes
    }

    /// Private mappings of files that nobody can write and nobody wrote. A page relocated by the loader is changed though
    /// it is read-only afterwards, and would be lost.
    /// - Parameter smaps: as proc(5) describes `/proc/PID/smaps`.
    static func unchanged(in smaps: some StringProtocol) -> [Mapping] {
        var found: [Mapping] = []
        var candidate: Mapping?
        for line in smaps.split(separator: "\n") {
            let words = line.split(separator: " ", omittingEmptySubsequences: true)
            guard let first = words.first else { continue }
            if !first.hasSuffix(":") {
                candidate = nil
                let ends = first.split(separator: "-").compactMap { UInt($0, radix: 16) }
                guard ends.count == 2, ends[0] < ends[1], words.count >= 6, words[1].hasPrefix("r-"),
                    words[1].hasSuffix("p"), words[5].hasPrefix("/")
                else { continue }
                candidate = Mapping(start: ends[0], bytes: Int(ends[1] - ends[0]))
            } else if first == "Anonymous:", words.count >= 2, words[1] == "0", let mapping = candidate {
                found.append(mapping)
            }
        }
        return found
    }
}
