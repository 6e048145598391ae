// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Name of a task's link on the node: `hm` and the task id.
///
/// The kernel takes 15 bytes and libnl cuts longer names without a word, so a name is checked before it is used. The
/// same text is a file name and part of a rule, hence the narrow alphabet.
struct LinkName: Hashable, Comparable, Sendable, CustomStringConvertible {
    static let prefix = "hm"
    static let taskBytesMax = 12

    let task: TaskID
    var description: String { Self.prefix + task.raw }

    /// - Throws: `.invalid` unless the id is 1...12 characters of `a`–`z`, `0`–`9` and `-`.
    init(_ task: TaskID) throws(NetworkError) {
        guard Self.isLegal(task.raw) else {
            throw NetworkError(
                .invalid,
                "task id `\(task)` cannot name a link",
                hint: "use 1 to \(Self.taskBytesMax) characters of a-z, 0-9 and -"
            )
        }
        self.task = task
    }

    /// Nil for a link that is not of this kind.
    init?(link: String) {
        guard link.hasPrefix(Self.prefix), Self.isLegal(String(link.dropFirst(Self.prefix.count))) else { return nil }
        task = TaskID(String(link.dropFirst(Self.prefix.count)))
    }

    static func < (left: Self, right: Self) -> Bool { left.task < right.task }

    static func isLegal(_ text: String) -> Bool {
        (1...taskBytesMax).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || $0 == UInt8(ascii: "-")
            }
    }
}
