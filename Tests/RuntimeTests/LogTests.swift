// SPDX-License-Identifier: Apache-2.0
import Glibc
import Model
import Synchronization
import Testing

@testable import ContainerRuntime

/// Runs the real log writer with pipes on its descriptors.
private struct Writer {
    let process: ChildProcess
    private let stdout: Int32
    private let stderr: Int32

    static var program: String {
        // Beside the test bundle.
        let parts = CommandLine.arguments[0].split(separator: "/").dropLast()
        return "/" + parts.joined(separator: "/") + "/hivemind-log"
    }

    init(_ arguments: [String]) throws {
        let (out, err, ready) = try (ChildProcess.pipe(), ChildProcess.pipe(), ChildProcess.pipe())
        process = try ChildProcess(Self.program, arguments, descriptors: [3: out[0], 4: err[0], 5: ready[1]])
        for descriptor in [out[0], err[0], ready[1]] { close(descriptor) }
        (stdout, stderr) = (out[1], err[1])
        var byte: UInt8 = 0
        guard read(ready[0], &byte, 1) == 1 else { throw TestFailure("the log writer did not become ready") }
        close(ready[0])
    }

    func out(_ text: String) { put(text, stdout) }
    func err(_ text: String) { put(text, stderr) }

    private func put(_ text: String, _ descriptor: Int32) {
        let bytes = Array(text.utf8)
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress.map { $0 + done }, $0.count - done) }
            guard count > 0 else { return }
            done += count
        }
    }

    func finish() -> Int32 {
        close(stdout)
        close(stderr)
        return process.wait()
    }
}

private func collect(_ store: LogStore, _ query: LogQuery) async throws -> [LogLine] {
    var lines: [LogLine] = []
    for try await line in store.logs(query) { lines.append(line) }
    return lines
}

struct LogWriterTests {
    @Test
    func `lines of both streams are stamped and the last one needs no line end`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/a/b/0.log"
        let writer = try Writer(["files", "3", "path", path, "max_bytes", "100000"])
        writer.out("one\n")
        writer.err("two\n")
        writer.out("\nlast")
        #expect(writer.finish() == 0)
        let lines = String(decoding: try #require(readFile(path)), as: UTF8.self).split(separator: "\n")
        #expect(lines.count == 4)
        #expect(lines.allSatisfy { LogRecord(Array($0.utf8)[...]) != nil })
        #expect(lines.filter { $0.contains(" stdout F ") }.map { $0.dropFirst(40) } == ["one", "", "last"])
        #expect(lines.filter { $0.hasSuffix(" stderr F two") }.count == 1)
        var status = stat()
        #expect(stat(path, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o640)
    }

    @Test
    func `a long line is cut into parts that join to the same text`() async throws {
        let directory = try TemporaryDirectory()
        let writer = try Writer(["path", directory.path + "/t/0.log"])
        let long = String(repeating: "0123456789", count: 10_000)
        writer.out(long + "\n" + String(repeating: "x", count: 16384) + "\nshort\n")
        #expect(writer.finish() == 0)
        let bytes = try #require(readFile(directory.path + "/t/0.log"))
        #expect(bytes.split(separator: UInt8(ascii: "\n")).allSatisfy { $0.count <= 16384 + 40 })
        let lines = try await collect(LogStore(directory: directory.path), LogQuery(task: "t"))
        #expect(lines.map(\.text) == [long, String(repeating: "x", count: 16384), "short"])
    }

    @Test
    func `rotation keeps the newest lines in a bounded number of files and loses none between them`() async throws {
        let directory = try TemporaryDirectory()
        let writer = try Writer(["max_bytes", "8192", "path", directory.path + "/t/0.log", "files", "3"])
        for number in 0..<2000 { writer.out("line \(number)\n") }
        #expect(writer.finish() == 0)
        #expect(readFile(directory.path + "/t/0.log.3") == nil)
        for name in ["0.log", "0.log.1", "0.log.2"] {
            #expect(try #require(readFile("\(directory.path)/t/\(name)")).count <= 8192)
        }
        let lines = try await collect(LogStore(directory: directory.path), LogQuery(task: "t")).map(\.text)
        #expect(lines.last == "line 1999")
        let first = try #require(lines.first?.split(separator: " ").last.flatMap { Int($0) })
        #expect(lines == (first..<2000).map { "line \($0)" })
        #expect(lines.count > 250)
    }

    @Test
    func `sigterm does not end it while output goes on`() throws {
        let directory = try TemporaryDirectory()
        let writer = try Writer(["path", directory.path + "/t/0.log"])
        writer.out("before\n")
        writer.process.signal(SIGTERM)
        writer.process.signal(SIGHUP)
        writer.out("after\n")
        #expect(writer.finish() == 0)
        let text = String(decoding: try #require(readFile(directory.path + "/t/0.log")), as: UTF8.self)
        #expect(text.contains("before") && text.contains("after"))
    }

    @Test(.enabled(if: getuid() == 0, "needs root to mount a small file system"))
    func `a full disk neither blocks nor is hidden`() async throws {
        let directory = try TemporaryDirectory()
        let disk = directory.path + "/disk"
        mkdir(disk, 0o755)
        guard mount("hivemind-test", disk, "tmpfs", 0, "size=64k") == 0 else { throw TestFailure("no tmpfs") }
        defer { umount2(disk, Int32(MNT_DETACH)) }
        let writer = try Writer(["path", disk + "/t/0.log", "max_bytes", "1000000"])
        let filler = String(repeating: "f", count: 100)
        for _ in 0..<3000 { writer.out(filler + "\n") }
        // Everything was taken although most of it had no place.
        let path = disk + "/t/0.log"
        #expect(try await eventually { (readFile(path)?.count ?? 0) > 30_000 })
        // What is still on its way may fill the place again, so it is made again and again.
        var text = ""
        #expect(
            try await eventually {
                text += String(decoding: readFile(path) ?? [], as: UTF8.self)
                if text.contains("again") { return true }
                truncate(path, 0)
                writer.err("again\n")
                return false
            })
        #expect(writer.finish() == 0)
        #expect(text.contains(" lines were lost: No space left on device]"))
    }

    @Test(arguments: [
        ["path"], ["path", "relative"], ["path", "/tmp/x", "what", "1"], ["path", "/tmp/x", "files", "0"], [],
    ])
    func `wrong arguments end it with code 2`(arguments: [String]) throws {
        #expect(try ChildProcess.run(Writer.program, arguments) == 2)
    }
}

struct LogStoreTests {
    private func record(_ second: Int, _ text: String, _ tag: String = "F", stream: String = "stdout") -> [UInt8] {
        let digits = String(second + 100).dropFirst()
        return Array("2026-03-01T12:30:\(digits).000000000Z \(stream) \(tag) \(text)\n".utf8)
    }

    private func make() throws -> (TemporaryDirectory, LogStore) {
        let directory = try TemporaryDirectory()
        mkdir(directory.path + "/t", 0o755)
        return (directory, LogStore(directory: directory.path))
    }

    @Test
    func `attempts and rotations are read in the order written`() async throws {
        let (directory, store) = try make()
        _ = try directory.write("t/0.log.1", record(1, "a") + record(2, "b1", "P"))
        _ = try directory.write("t/0.log", record(3, "x", stream: "stderr") + record(3, "b2"))
        _ = try directory.write("t/10.log", record(6, "d") + record(7, "open", "P"))
        _ = try directory.write("t/2.log", record(4, "c") + Array("garbage\n".utf8))
        _ = try directory.write("t/2.log.next", record(4, "no"))
        let all = try await collect(store, LogQuery(task: "t"))
        #expect(all.map(\.text) == ["a", "x", "b1b2", "c", "d", "open"])
        #expect(all.map(\.stream) == [.stdout, .stderr, .stdout, .stdout, .stdout, .stdout])
        let since = try await collect(store, LogQuery(task: "t", since: Timestamp("2026-03-01T12:30:04Z")))
        #expect(since.map(\.text) == ["c", "d", "open"])
    }

    @Test(arguments: [0, 1, 2, 3, 5, 500, 3999, 4000, 9000])
    func `the last lines are found over files`(count: Int) async throws {
        let (directory, store) = try make()
        var lines: [String] = []
        for (file, range) in [("t/0.log.1", 0..<1500), ("t/0.log", 1500..<1501), ("t/1.log", 1501..<4000)] {
            var bytes: [UInt8] = []
            for number in range {
                let text = "\(number) " + String(repeating: "y", count: number % 97)
                lines.append(text)
                bytes +=
                    number % 10 == 0
                    ? record(1, "\(text.prefix(2))", "P") + record(1, "\(text.dropFirst(2))") : record(1, text)
            }
            _ = try directory.write(file, bytes)
        }
        #expect(try await store.tail(task: "t", lines: count).map(\.text) == lines.suffix(count))
    }

    @Test
    func `the tail of interleaved partial lines is whole`() async throws {
        let (directory, store) = try make()
        _ = try directory.write(
            "t/0.log",
            record(1, "old") + record(2, "A", "P") + record(2, "err", stream: "stderr") + record(3, "B"))
        #expect(try await store.tail(task: "t", lines: 1).map(\.text) == ["AB"])
        #expect(try await store.tail(task: "t", lines: 2).map(\.text) == ["err", "AB"])
    }

    @Test
    func `following goes over rotation and new attempts and ends with the logs`() async throws {
        let (directory, store) = try make()
        _ = try directory.write("t/0.log", record(1, "0"))
        let seen = Mutex<[String]>([])
        let reader = Task {
            for try await line in store.logs(LogQuery(task: "t", follow: true)) {
                seen.withLock { $0.append(line.text) }
            }
        }
        #expect(try await eventually { seen.withLock { $0 } == (0..<1).map(String.init) })
        _ = try directory.write("t/0.log", record(1, "1"))
        #expect(try await eventually { seen.withLock { $0 } == (0..<2).map(String.init) })
        for number in 2..<6 {
            rename(directory.path + "/t/0.log", directory.path + "/t/0.log.1")
            _ = try directory.write("t/0.log", record(1, "\(number)"))
            #expect(try await eventually { seen.withLock { $0 } == (0..<number + 1).map(String.init) })
        }
        _ = try directory.write("t/1.log", record(1, "6"))
        #expect(try await eventually { seen.withLock { $0 } == (0..<7).map(String.init) })
        try await store.remove(task: "t")
        _ = try await reader.value
        #expect(try await collect(store, LogQuery(task: "t")).isEmpty)
        try await store.remove(task: "t")
    }

    @Test
    func `following waits for the first line and stops when cancelled`() async throws {
        let (directory, store) = try make()
        let reader = Task { try await store.logs(LogQuery(task: "later", follow: true)).first { _ in true }?.text }
        mkdir(directory.path + "/later", 0o755)
        _ = try directory.write("later/0.log", record(1, "hello"))
        #expect(try await reader.value == "hello")
        let other = Task { try await store.logs(LogQuery(task: "never", follow: true)).first { _ in true } }
        other.cancel()
        _ = await other.result
    }

    @Test
    func `old attempts are pruned and ids cannot leave the directory`() async throws {
        let (directory, store) = try make()
        for attempt in 0..<6 { _ = try directory.write("t/\(attempt).log", record(attempt, "\(attempt)")) }
        await store.prune(task: "t", keepingAttempts: 2)
        #expect(try await collect(store, LogQuery(task: "t")).map(\.text) == ["4", "5"])
        for id in ["..", ".", "", "../t", "a/b"] {
            #expect(try await collect(store, LogQuery(task: TaskID(id))).isEmpty)
            try await store.remove(task: TaskID(id))
        }
        #expect(readFile(directory.path + "/t/5.log") != nil)
    }
}
