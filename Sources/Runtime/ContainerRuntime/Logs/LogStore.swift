// SPDX-License-Identifier: Apache-2.0
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import Glibc
public import Model

/// The logs of all tasks of a node, as `hivemind-log` writes them: `<directory>/<task>/<attempt>.log[.n]`.
public struct LogStore: Sendable {
    public let directory: String

    public init(directory: String) { self.directory = directory }

    /// Where the writer of a container's log puts its lines.
    public func path(task: TaskID, attempt: Int) -> String { "\(directory)/\(task.raw)/\(attempt).log" }

    /// Lines of all attempts and rotations, oldest first, parts of a long line joined (cut at 1 MiB).
    ///
    /// Without `follow` the stream ends with what was written when it began. With it, new lines come within 100 ms until
    /// the consumer lets go or the task's logs are removed; a task without logs yet is waited for. Files are read on a
    /// thread of their own, only as fast as lines are taken. Throws `LogError`.
    public func logs(_ query: LogQuery) -> AsyncThrowingStream<LogLine, any Error> {
        guard let directory = taskDirectory(query.task) else { return AsyncThrowingStream { nil } }
        let follower = LogFollower(reader: LogReader(directory: directory, query: query, now: Self.now()))
        return AsyncThrowingStream { try await follower.next() }
    }

    /// The last lines of a task, for an error's context.
    public func tail(task: TaskID, lines: Int) async throws -> [LogLine] {
        var all: [LogLine] = []
        for try await line in logs(LogQuery(task: task, tail: lines)) { all.append(line) }
        return all
    }

    /// Deletes the logs of a task; no error when there are none. Those who follow them come to their end.
    public func remove(task: TaskID) async throws(LogError) {
        guard let directory = taskDirectory(task) else { return }
        let failure = await Blocking.run { () -> LogError? in
            // A writer that still drains may make a file while we look: a second pass takes it.
            for _ in 0..<3 {
                guard let entries = Self.entries(of: directory.path) else { return nil }
                for name in entries { unlink("\(directory.path)/\(name)") }
                if rmdir(directory.path) == 0 || errno == ENOENT { return nil }
            }
            return LogError(path: directory.path, errno: errno)
        }
        if let failure { throw failure }
    }

    /// Tasks that have logs here, sorted.
    public func tasks() async -> [TaskID] {
        await Blocking.run { (Self.entries(of: directory) ?? []).sorted().map { TaskID($0) } }
    }

    /// Deletes the logs of old attempts, so that a task that restarts for ever does not fill the disk.
    /// - Parameter count: how many of the newest attempts stay, at least 1.
    public func prune(task: TaskID, keepingAttempts count: Int) async {
        guard let directory = taskDirectory(task) else { return }
        await Blocking.run {
            let files = directory.files() ?? []
            guard let newest = files.last?.attempt else { return }
            for file in files where file.attempt <= newest - max(1, count) {
                unlink("\(directory.path)/\(file.name)")
            }
        }
    }

    private func taskDirectory(_ task: TaskID) -> LogDirectory? {
        // An id from outside must not lead out of the directory.
        let isSafe = !task.raw.isEmpty && task.raw.utf8.allSatisfy { $0 != UInt8(ascii: "/") && $0 != 0 }
        guard isSafe, task.raw != ".", task.raw != ".." else { return nil }
        return LogDirectory(path: "\(directory)/\(task.raw)")
    }

    private static func entries(of path: String) -> [String]? {
        guard let directory = opendir(path) else { return nil }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    private static func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(milliseconds: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000)
    }
}

/// Hands out the lines of one reader one by one. One consumer.
private actor LogFollower {
    private let reader: ReaderBox
    private var lines: [LogLine] = []
    private var index = 0

    /// The reader is used by one blocking call at a time: the actor awaits each before the next.
    private final class ReaderBox: @unchecked Sendable {
        let reader: LogReader
        init(_ reader: LogReader) { self.reader = reader }
    }

    init(reader: sending LogReader) { self.reader = ReaderBox(reader) }

    func next() async throws -> LogLine? {
        while index == lines.count {
            let box = reader
            let (batch, isAtEnd) = try await Blocking.run { () -> Result<([LogLine], Bool), LogError> in
                do throws(LogError) {
                    let lines = try box.reader.next()
                    return .success((lines, box.reader.isAtEnd))
                } catch {
                    return .failure(error)
                }
            }.get()
            (lines, index) = (batch, 0)
            if lines.isEmpty {
                if isAtEnd { return nil }
                try await Task.sleep(for: .milliseconds(50))
            }
        }
        defer { index += 1 }
        return lines[index]
    }
}

/// A log file that cannot be read or removed.
public struct LogError: ReasonError, Sendable {
    public var reason: Reason

    init(path: String, errno number: Int32) {
        let text = String(cString: strerror(number))
        reason = Reason(
            number == ENOSPC ? .noSpace : .internal, "log \(path): \(text)", hint: "check the rights of that directory")
    }
}
