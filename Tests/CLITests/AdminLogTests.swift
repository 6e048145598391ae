// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Glibc
import Raft
import Store
import TestSupport
import Testing

@testable import CLI

struct AdminLogTests {
    /// Runs the words on a data directory with a small log; its path reads `DIR` in the transcript.
    private func run(
        _ words: [String], spoil: (String) throws -> Void = { _ in }
    ) async throws -> RunResult {
        try await withTemporaryDirectory("adm") { directory in
            try Self.makeLog(in: directory.file("log"))
            try spoil(directory.file("log"))
            let fake = FakeTerminal()
            let status = await Terminal.$current.withValue(
                fake.terminal(FakeDaemon(), .init(environment: ["HIVEMIND_DATA_DIR": directory.path]))
            ) { await Hivemind.execute(["admin", "log"] + words) }
            let result = fake.result(status)
            return RunResult(
                status: result.status, out: result.out.replacing(directory.path, with: "DIR"),
                err: result.err.replacing(directory.path, with: "DIR"))
        }
    }

    private static func makeLog(in path: String) throws {
        var options = LogFile.Options()
        options.segmentBytes = 1 << 10
        let log = try LogFile(directory: try POSIXLogDirectory(path: path), minimumIndex: 0, options: options)
        func command(_ index: UInt64, _ term: UInt64) -> Entry {
            Entry(index: index, term: term, kind: .command, payload: [UInt8](repeating: 7, count: 250))
        }
        let membership = Membership(voters: [1, 2, 3], learners: [4], removed: [9])
        try log.append(
            Write(
                hardState: HardState(term: 1, vote: 1),
                entries: [Entry(index: 1, term: 1, kind: .configuration, payload: membership.encoded())]))
        for index in UInt64(2)...4 { try log.append(Write(entries: [command(index, 1)])) }
        try log.append(Write(hardState: HardState(term: 3, commit: 2), truncateFrom: 4, entries: [command(4, 3)]))
        try log.sync()
    }

    private static func flip(_ name: String, _ offset: UInt64) -> (String) throws -> Void {
        { directory in
            let file = open("\(directory)/\(name)", O_RDWR)
            try #require(file >= 0)
            defer { close(file) }
            var byte: UInt8 = 0
            try #require(pread(file, &byte, 1, off_t(offset)) == 1)
            byte ^= 1
            try #require(pwrite(file, &byte, 1, off_t(offset)) == 1)
        }
    }

    @Test(arguments: [
        ["inspect", "--records", "4"], ["inspect", "-o", "json"], ["inspect", "-o", "name"], ["verify"],
        ["verify", "-o", "name"],
    ])
    func `a whole log is shown as reviewed`(words: [String]) async throws {
        let result = try await run(words)
        #expect(result.status == 0)
        let name = words.map { $0.filter { $0 != "-" } }.joined(separator: "_")
        try expectGolden(result.transcript, "output/admin_log_\(name).txt")
    }

    @Test(arguments: [["inspect"], ["verify"]])
    func `damage is named by segment and byte, and fails only the check`(words: [String]) async throws {
        let result = try await run(words, spoil: Self.flip("00000000000000000001.log", 300))
        #expect(result.status == (words == ["verify"] ? 1 : 0))
        try expectGolden(result.transcript, "output/admin_log_\(words[0])_damaged.txt")
    }

    @Test func `what is no log is refused`() async throws {
        try await withTemporaryDirectory("adm") { directory in
            for verb in ["inspect", "verify"] {
                let nothing = await hivemind("admin", "log", verb, "--data-dir", directory.file("nothing"))
                #expect(nothing.status == 6 && nothing.err.contains("is no data directory"))
            }
            try #require(mkdir(directory.file("log"), 0o700) == 0)
            let empty = await hivemind("admin", "log", "verify", "--data-dir", directory.path)
            #expect(empty.status == 6 && empty.err.contains("holds no log"))
        }
    }

    @Test func `a log in use is refused`() async throws {
        try await withTemporaryDirectory("adm") { directory in
            try Self.makeLog(in: directory.file("log"))
            let lock = open(directory.file("lock"), O_RDWR | O_CREAT, 0o600)
            try #require(lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0)
            let used = await hivemind("admin", "log", "verify", "--data-dir", directory.path)
            #expect(used.status == 7 && used.err.contains("a daemon uses"))
            close(lock)
            #expect(await hivemind("admin", "log", "verify", "--data-dir", directory.path).status == 0)
        }
    }
}
