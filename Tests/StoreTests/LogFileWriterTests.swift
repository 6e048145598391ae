// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Glibc
internal import Raft
internal import Synchronization
internal import TestSupport
internal import Testing

@testable internal import Store

/// What a writer reported, readable from any thread.
final class LogReports: Sendable {
    struct Seen {
        var receipts: [Receipt] = []
        /// Of each report, the rounds its unlocked heartbeats carry: tests number them.
        var unlocked: [[UInt64]] = []
        var errors: [LogError] = []
        var isShort: [Bool] = []
    }

    private let state = Mutex(Seen())

    func take(_ report: LogWriter.Report) {
        state.withLock { seen in
            switch report {
            case .persisted(let receipt, let unlocked):
                seen.receipts.append(receipt)
                seen.unlocked.append(unlocked.compactMap { numberOf($0) })
            case .noSpace(let error), .failed(let error): seen.errors.append(error)
            case .space(let isShort): seen.isShort.append(isShort)
            }
        }
    }

    var seen: Seen { state.withLock { $0 } }
    /// Highest index reported durable.
    var last: UInt64 { seen.receipts.compactMap { $0.last?.index }.max() ?? 0 }
    var count: Int { seen.receipts.count }
    var errors: [LogError] { seen.errors }
}

/// A message to be told from others by its number.
func message(numbered number: UInt64) -> Message {
    Message(from: 1, to: 2, term: 1, body: .heartbeatReply(round: number))
}

func numberOf(_ message: Message) -> UInt64? {
    if case .heartbeatReply(let round) = message.body { round } else { nil }
}

/// Waits for another thread without giving up this one: the tests beside it may take long turns.
func waitUntil(_ what: String, _ condition: () throws -> Bool) throws {
    let deadline = ContinuousClock.now + .seconds(60)
    while try !condition() {
        guard ContinuousClock.now < deadline else { throw TestFailure("not within a minute: \(what)") }
        usleep(1_000)
    }
}

private func withTemporaryLog<Value>(_ body: (POSIXLogDirectory) throws -> Value) throws -> Value {
    let path = FileManager.default.temporaryDirectory.appending(path: "hivemind-log-\(UUID().uuidString)").path
    defer {
        do { try FileManager.default.removeItem(atPath: path) } catch { Issue.record("\(error)") }
    }
    return try body(try POSIXLogDirectory(path: path))
}

@Suite struct LogFileWriterTests {
    @Test func `the queue holds all that a follower takes in while its disk stands still`() throws {
        let own = RaftNode.Configuration(id: 7)
        var node = RaftNode(
            configuration: own, hardState: HardState(term: 1), log: LogExtent(), termStarts: [], appliedIndex: 0,
            configurations: [ConfigurationPoint(index: 0, membership: Membership(voters: [1, 2, 7]))])
        var bytes = 0
        var last = LogPosition.origin
        /// Appends one entry; false when the node takes no more.
        func append(payloadBytes: Int) -> Bool {
            let entry = Entry(
                index: last.index + 1, term: 1, kind: .command, payload: [UInt8](repeating: 0, count: payloadBytes))
            let append = Append(previous: last, entries: [entry], commit: 0)
            guard let write = node.step(.message(Message(from: 1, to: 7, term: 1, body: .append(append)))).write,
                !write.entries.isEmpty
            else { return false }
            bytes += LogFile.payloadBytes(of: write)
            last = entry.position
            return true
        }
        while bytes < 31 << 20 { try #require(append(payloadBytes: 1 << 20)) }
        // The largest that may come last.
        try #require(append(payloadBytes: MessageCodec.messageBytesMax - 100))
        while append(payloadBytes: 1 << 20) {}
        #expect(bytes > 32 << 20 && bytes <= LogWriter.queueBytesMax, "\(bytes)")
    }

    @Test func `writes that come together share a sync, all are durable after shutdown`() throws {
        try withTemporaryLog { directory in
            let reports = LogReports()
            let options = LogFile.Options.segments(64 << 10)
            let log = try LogFile(directory: directory, minimumIndex: 0, options: options)
            let writer = try LogWriter(log: log) { reports.take($0) }
            let entries = commands(from: 1, count: 3_000, bytes: 100)
            try writer.submit(Write(hardState: HardState(term: 1, vote: 5)))
            for entry in entries { try writer.submit(Write(entries: [entry])) }
            let read = Mutex<[Entry]>([])
            writer.read(10..<20, bytesMax: .max) { result in
                read.withLock { $0 = (try? result.get()) ?? [] }
            }
            writer.shutdown()
            #expect(reports.last == 3_000 && reports.errors.isEmpty)
            #expect(reports.count < 3_000, "\(reports.count) syncs for 3001 writes")
            #expect(read.withLock { $0 } == Array(entries[9..<19]))
            #expect { try writer.submit(Write(entries: [entries[0]])) } throws: { ($0 as? LogError)?.code == .closed }

            let again = try LogFile(directory: directory, minimumIndex: 3_000, options: options)
            #expect(again.recovered.hardState == HardState(term: 1, vote: 5))
            #expect(try allEntries(again) == entries)
        }
    }

    @Test func `a write larger than a record is divided and compaction runs in between`() throws {
        try withTemporaryLog { directory in
            let reports = LogReports()
            let options = LogFile.Options.segments(16 << 10)
            let log = try LogFile(directory: directory, minimumIndex: 0, options: options)
            let writer = try LogWriter(log: log) { reports.take($0) }
            let entries = commands(from: 1, count: 500, bytes: 200)
            try writer.submit(Write(hardState: HardState(term: 1), entries: entries))
            try writer.compact(through: 400)
            #expect { try writer.submit(Write(entries: commands(from: 501, count: 1, bytes: 20_000))) } throws: {
                ($0 as? LogError)?.code == .tooLarge
            }
            writer.shutdown()
            #expect(reports.last == 500 && reports.errors.isEmpty)
            let again = try LogFile(directory: directory, minimumIndex: 400, options: options)
            #expect(again.extent.base.index > 200 && again.extent.base.index <= 400)
            #expect(try allEntries(again) == Array(entries[Int(again.extent.base.index)...]))
        }
    }

    @Test func `a queue at its bound refuses, a failed disk is reported once`() throws {
        let disk = SimulatedDisk(seed: 3)
        let reports = LogReports()
        let log = try LogFile(directory: SimulatedLogDirectory(disk), minimumIndex: 0, options: .segments(4 << 10))
        disk.failingSyncs = 1
        let writer = try LogWriter(log: log, queueBytesMax: 2_000) { reports.take($0) }
        #expect(throws: LogError.self) {
            for index in UInt64(1)... {
                try writer.submit(
                    Write(hardState: HardState(term: 1), entries: commands(from: index, count: 1, bytes: 900)))
            }
        }
        writer.shutdown()
        #expect(reports.errors.map(\.code) == [.failed])
        #expect(reports.last == 0)
    }

    @Test func `writes wait out a full disk`() throws {
        let disk = SimulatedDisk(seed: 4)
        let reports = LogReports()
        let log = try LogFile(directory: SimulatedLogDirectory(disk), minimumIndex: 0, options: .segments(4 << 10))
        // The thread's first try to prepare a segment meets the first one.
        disk.failingWrites = 2
        let writer = try LogWriter(log: log) { reports.take($0) }
        try writer.submit(Write(hardState: HardState(term: 1), entries: commands(from: 1, count: 1, bytes: 1_500)))
        try waitUntil("the write") { reports.last == 1 }
        writer.shutdown()
        #expect(reports.last == 1 && reports.errors.map(\.code) == [.noSpace])
    }

    @Test func `a picture shows what is on disk and how long syncs take`() throws {
        try withTemporaryLog { directory in
            let reports = LogReports()
            let log = try LogFile(directory: directory, minimumIndex: 0, options: .segments(4 << 10))
            let writer = try LogWriter(log: log) { reports.take($0) }
            #expect(writer.picture.syncLatency == nil && writer.picture.extent == LogExtent())
            for index in UInt64(1)...40 {
                try writer.submit(
                    Write(
                        sequence: index, hardState: HardState(term: 1),
                        entries: commands(from: index, count: 1, bytes: 300)))
                try waitUntil("write \(index)") { reports.last == index }
            }
            let picture = writer.picture
            #expect(picture.extent.last.index == 40 && picture.fileBytes >= 5 * 4 << 10 && !picture.isShortOfSpace)
            let latency = try #require(picture.syncLatency)
            #expect(latency.samples == 40 && latency.medianMilliseconds > 0)
            #expect(latency.medianMilliseconds <= latency.highMilliseconds)
            try writer.compact(through: 40)
            writer.shutdown()
            #expect(writer.picture.extent.base.index > 20 && writer.picture.fileBytes < picture.fileBytes)
        }
    }
}
