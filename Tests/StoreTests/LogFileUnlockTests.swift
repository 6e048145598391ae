// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Raft
internal import Synchronization
internal import TestSupport
internal import Testing

@testable internal import Store

/// Holds the log thread in a report until it is opened.
///
/// `@unchecked Sendable`: the semaphore lives at a fixed address and is made for many threads.
private final class Gate: @unchecked Sendable {
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init() { sem_init(semaphore, 0, 0) }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    func open() { sem_post(semaphore) }

    func pass() {
        while sem_wait(semaphore) != 0 {}
    }
}

/// Random writes as a follower makes them, numbered, with what the log must hold after each.
private struct NumberedWrites {
    var writes: [Write] = []
    /// After the write of that sequence; element 0 before the first.
    var after: [(last: UInt64, hardState: HardState)] = [(0, HardState())]

    init(seed: UInt64, count: Int, bytesMax: Int) {
        var random = SeededRandom(seed: seed)
        var last: UInt64 = 0
        var hardState = HardState()
        for sequence in 1...UInt64(count) {
            var write = Write(sequence: sequence, unlocks: [message(numbered: sequence)])
            switch sequence == 1 ? 1 : Int.random(in: 0..<6, using: &random) {
            case 0: break
            case 1:
                hardState = HardState(term: hardState.term + 1, vote: 3)
                write.hardState = hardState
            case 2 where last > 0:
                let from = UInt64.random(in: 1...last, using: &random)
                hardState.term += 1
                write.hardState = hardState
                write.truncateFrom = from
                write.entries = commands(from: from, count: 2, term: hardState.term)
                last = from + 1
            default:
                let added = Int.random(in: 1...4, using: &random)
                let bytes = random.oneIn(5) ? bytesMax : Int.random(in: 0...100, using: &random)
                write.entries = commands(from: last + 1, count: added, term: hardState.term, bytes: bytes)
                last += UInt64(added)
            }
            writes.append(write)
            after.append((last, hardState))
        }
    }
}

@Suite struct LogFileUnlockTests {
    @Test(arguments: UInt64(1)...8)
    func `messages leave once, in order, and only when all they wait for is durable`(seed: UInt64) throws {
        let disk = SimulatedDisk(seed: seed)
        // Four entries of 900 bytes fit no record: such writes are divided.
        let options = LogFile.Options.segments(2 << 10)
        let numbered = NumberedWrites(seed: seed, count: 150, bytesMax: 900)
        let log = try LogFile(directory: SimulatedLogDirectory(disk), minimumIndex: 0, options: options)
        let reports = LogReports()
        let gate = Gate()
        let writer = try LogWriter(log: log) { report in
            if case .persisted(let receipt, let unlocked) = report, let newest = unlocked.compactMap(numberOf).max() {
                #expect(newest == receipt.sequence)
                do {
                    let survivor = SimulatedLogDirectory(disk.durableCopy())
                    let again = try LogFile(directory: survivor, minimumIndex: 0, options: options)
                    let expected = numbered.after[Int(newest)]
                    #expect(again.extent.last.index >= expected.last, "seed \(seed) write \(newest)")
                    #expect(again.hardState == expected.hardState, "seed \(seed) write \(newest)")
                } catch {
                    Issue.record("seed \(seed) write \(newest): \(error)")
                }
            }
            let isFirst = reports.count == 0
            reports.take(report)
            if isFirst { gate.pass() }
        }
        for write in numbered.writes { try writer.submit(write) }
        gate.open()
        writer.shutdown()
        let seen = reports.seen
        #expect(seen.unlocked.flatMap { $0 } == Array(1...150), "seed \(seed)")
        #expect(seen.unlocked.contains { $0.count > 1 }, "no writes merged: nothing is shown")
        #expect(seen.receipts.map(\.sequence) == seen.receipts.map(\.sequence).sorted())
        #expect(seen.errors.isEmpty)
    }

    @Test func `a write without content costs no disk work and waits its turn`() throws {
        let disk = SimulatedDisk(seed: 7)
        let log = try LogFile(directory: SimulatedLogDirectory(disk), minimumIndex: 0, options: .segments(2 << 10))
        while log.wantsPreparation { try log.prepare() }
        let before = disk.operations
        let reports = LogReports()
        let gate = Gate()
        let writer = try LogWriter(log: log) { report in
            let isFirst = reports.count == 0
            reports.take(report)
            if isFirst { gate.pass() }
        }
        try writer.submit(Write(sequence: 1, unlocks: [message(numbered: 1)]))
        try writer.submit(Write(sequence: 2, unlocks: [message(numbered: 2)]))
        try writer.submit(Write(sequence: 3, unlocks: [message(numbered: 3)]))
        gate.open()
        writer.shutdown()
        #expect(disk.operations == before)
        #expect(reports.seen.unlocked.flatMap { $0 } == [1, 2, 3])
        #expect(reports.seen.receipts.last == Receipt(sequence: 3))
    }

    @Test func `nothing leaves after a sync failed`() throws {
        let disk = SimulatedDisk(seed: 8)
        let log = try LogFile(directory: SimulatedLogDirectory(disk), minimumIndex: 0, options: .segments(2 << 10))
        while log.wantsPreparation { try log.prepare() }
        disk.failingSyncs = 1
        let reports = LogReports()
        let writer = try LogWriter(log: log) { reports.take($0) }
        try writer.submit(Write(sequence: 1, hardState: HardState(term: 1), unlocks: [message(numbered: 1)]))
        writer.shutdown()
        #expect(reports.seen.unlocked.isEmpty && reports.errors.map(\.code) == [.failed])
    }
}
