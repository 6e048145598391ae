// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport
internal import Testing

@testable internal import Store

@Suite struct LogFileTests {
    let disk = SimulatedDisk(seed: 42)

    func open(minimum: UInt64 = 0, segmentBytes: Int = 1 << 10) throws(LogError) -> LogFile {
        try LogFile(
            directory: SimulatedLogDirectory(disk),
            minimumIndex: minimum,
            options: .segments(segmentBytes)
        )
    }

    func write(_ log: LogFile, _ entries: [Entry], hardState: HardState? = nil) throws {
        try log.append(Write(hardState: hardState, entries: entries))
        try log.sync()
    }

    @Test func `checksums agree with RFC 3720`() {
        #expect(CRC32C.of([UInt8](repeating: 0, count: 32)[...]) == 0x8A91_36AA)
        #expect(CRC32C.of([UInt8](repeating: 0xFF, count: 32)[...]) == 0x62A8_AB43)
        #expect(CRC32C.of([UInt8](0..<32)[...]) == 0x46DD_794E)
        #expect(CRC32C.of(Array("123456789".utf8)[...]) == 0xE306_9283)
    }

    @Test func `an empty directory becomes an empty log`() throws {
        let log = try open()
        let nothing = LogFile.Recovered(
            hardState: HardState(), extent: LogExtent(), termStarts: [], configurations: [], cutTornTail: false)
        #expect(log.recovered == nothing)
        #expect(try log.entries(1..<1, bytesMax: 100).isEmpty)
        #expect(throws: LogError.self) { try log.entries(1..<2, bytesMax: 100) }
    }

    @Test func `entries and hard state survive many segments, and reads may start anywhere`() throws {
        let entries = commands(from: 1, count: 100, bytes: 90)
        let log = try open()
        try write(log, [], hardState: HardState(term: 1, vote: 3))
        for entry in entries { try write(log, [entry]) }
        #expect(disk.fileNames.count > 10)

        let again = try open(minimum: 100)
        #expect(again.recovered.hardState == HardState(term: 1, vote: 3))
        #expect(again.extent == LogExtent(last: LogPosition(index: 100, term: 1)))
        for first in 1...100 {
            #expect(try again.entries(UInt64(first)..<101, bytesMax: .max) == Array(entries[(first - 1)...]))
        }
        #expect(try again.entries(1..<101, bytesMax: 2 * (90 + 64)) == Array(entries.prefix(2)))
        #expect(try again.entries(1..<101, bytesMax: 0) == Array(entries.prefix(1)))
    }

    @Test func `compaction removes whole segments only and keeps the hard state`() throws {
        let entries = commands(from: 1, count: 60, bytes: 90)
        let log = try open()
        try write(log, [], hardState: HardState(term: 1, vote: 3, commit: 0))
        for entry in entries { try write(log, [entry]) }
        try log.compact(through: 40)
        let first = log.extent.firstIndex
        #expect(first > 30 && first <= 41)
        #expect(throws: LogError.self) { try log.entries(first - 1..<first, bytesMax: 1) }

        let again = try open(minimum: 40)
        #expect(again.recovered.extent == log.extent)
        #expect(again.recovered.hardState == HardState(term: 1, vote: 3))
        #expect(try allEntries(again) == Array(entries[(Int(first) - 1)...]))
        #expect(throws: LogError.self) { try open(minimum: first - 2) }
    }

    @Test func `truncation across segments survives restart and compaction`() throws {
        let log = try open()
        try write(log, [], hardState: HardState(term: 1, vote: 3))
        let old = commands(from: 1, count: 20, bytes: 90)
        for entry in old { try write(log, [entry]) }
        let new = commands(from: 8, count: 20, term: 2, bytes: 90)
        try log.append(Write(hardState: HardState(term: 2), truncateFrom: 8, entries: [new[0]]))
        for entry in new.dropFirst() { try write(log, [entry]) }
        #expect(try allEntries(log) == Array(old.prefix(7)) + new)
        #expect(try allEntries(try open()) == Array(old.prefix(7)) + new)

        let again = try open()
        try again.compact(through: 10)
        let first = again.extent.firstIndex
        #expect(first == 8)
        let last = try open(minimum: 10)
        #expect(last.extent == again.extent)
        #expect(last.extent.base == LogPosition(index: 7, term: 1))
        #expect(try allEntries(last) == new)
    }

    @Test func `reads pass over entries a truncation without replacement made void`() throws {
        let log = try open(segmentBytes: 8 << 10)
        try write(log, commands(from: 1, count: 6), hardState: HardState(term: 1))
        try log.append(Write(truncateFrom: 4))
        let new = commands(from: 4, count: 3, term: 1, bytes: 25)
        try write(log, new)
        #expect(try allEntries(log) == commands(from: 1, count: 3) + new)
        #expect(try allEntries(try open(segmentBytes: 8 << 10)) == commands(from: 1, count: 3) + new)
    }

    @Test func `a full disk refuses the append and leaves the log usable`() throws {
        disk.capacityBytes = 2_500
        let log = try open()
        var entries: [Entry] = []
        func fill() throws -> LogError? {
            while true {
                let entry = commands(from: UInt64(entries.count + 1), count: 1, bytes: 200)
                do throws(LogError) {
                    try log.append(Write(hardState: HardState(term: 1), entries: entry))
                    try log.sync()
                    entries += entry
                } catch {
                    return error
                }
            }
        }
        #expect(try fill()?.code == .noSpace)
        #expect(log.isShortOfSpace && entries.count >= 3)
        #expect(try allEntries(log) == entries)
        disk.capacityBytes = 5_500
        let before = entries.count
        #expect(try fill()?.code == .noSpace)
        #expect(entries.count > before)
        disk.capacityBytes = .max
        #expect(try allEntries(try open(minimum: UInt64(entries.count))) == entries)
    }

    @Test func `pieces of a record that met a full disk are gone before the next one`() throws {
        let log = try open(segmentBytes: 8 << 10)
        try write(log, commands(from: 1, count: 1), hardState: HardState(term: 1))
        let entries = commands(from: 2, count: 4, bytes: 600)
        disk.failingWrites = 3
        for _ in 0..<3 {
            #expect { try log.append(Write(entries: entries)) } throws: { ($0 as? LogError)?.code == .noSpace }
        }
        try write(log, commands(from: 2, count: 1, bytes: 10))
        #expect(try allEntries(try open(minimum: 2, segmentBytes: 8 << 10)).count == 2)
    }

    @Test func `a failed sync is final, and what memory showed after it is made durable at open`() throws {
        let log = try open()
        try write(log, commands(from: 1, count: 1), hardState: HardState(term: 1))
        disk.failingSyncs = 1
        try log.append(Write(entries: commands(from: 2, count: 1)))
        #expect { try log.sync() } throws: { ($0 as? LogError)?.code == .failed }
        #expect { try log.sync() } throws: { ($0 as? LogError)?.code == .failed }
        #expect { try log.append(Write(entries: commands(from: 3, count: 1))) } throws: {
            ($0 as? LogError)?.code == .failed
        }
        // The process restarts: memory still shows entry 2, the disk does not hold it.
        #expect(try open(minimum: 1).extent.last.index == 2)
        // The machine restarts: what open reported must be there.
        disk.crash()
        #expect(try open(minimum: 1).extent.last.index == 2)
    }

    @Test func `a record larger than a segment is refused`() throws {
        let log = try open()
        #expect { try log.append(Write(entries: commands(from: 1, count: 1, bytes: 2_000))) } throws: {
            ($0 as? LogError)?.code == .tooLarge
        }
        try write(log, commands(from: 1, count: 1), hardState: HardState(term: 1))
        #expect(log.extent.last.index == 1)
    }

    @Test func `a log that holds the snapshot's end is kept when the install is finished at start`() throws {
        let entries = commands(from: 1, count: 20, bytes: 90)
        let log = try open()
        for entry in entries { try write(log, [entry], hardState: HardState(term: 1, vote: 3)) }
        for installing in [LogPosition(index: 12, term: 1), LogPosition(index: 20, term: 1)] {
            let again = try LogFile(
                directory: SimulatedLogDirectory(disk), minimumIndex: installing.index, installing: installing,
                options: .segments(4 << 10))
            #expect(try allEntries(again) == entries)
        }
        // One that holds something else there, or nothing, is not.
        let other = LogPosition(index: 15, term: 2)
        let reset = try LogFile(
            directory: SimulatedLogDirectory(disk), minimumIndex: 15, installing: other, options: .segments(4 << 10))
        #expect(reset.recovered.extent == LogExtent(base: other, last: other))
        #expect(reset.recovered.hardState == HardState(term: 2, vote: nil, commit: 15))
        try write(reset, commands(from: 16, count: 2, term: 2))
        let again = try LogFile(
            directory: SimulatedLogDirectory(disk), minimumIndex: 15, installing: other, options: .segments(4 << 10))
        #expect(again.extent.last.index == 17)
    }

    @Test func `a log that must exist is missed and not made anew`() throws {
        var options = LogFile.Options.segments(1 << 10)
        options.mustExist = true
        #expect {
            try LogFile(directory: SimulatedLogDirectory(disk), minimumIndex: 0, options: options)
        } throws: { ($0 as? LogError)?.code == .missing }
        // What was applied is a promise, too.
        #expect { try open(minimum: 1) } throws: { ($0 as? LogError)?.code == .missing }
        #expect(try SimulatedLogDirectory(disk).list() == [])
        let log = try open()
        try write(log, commands(from: 1, count: 3), hardState: HardState(term: 1))
        _ = try LogFile(directory: SimulatedLogDirectory(disk), minimumIndex: 0, options: options)
    }

    @Test func `a log that begins after what the state holds is whole and waits for another state`() throws {
        let log = try open()
        try log.reset(to: LogPosition(index: 9, term: 2))
        try write(log, commands(from: 10, count: 2, term: 2))
        for index in [0, 5, 8] as [UInt64] {
            #expect { try open(minimum: index) } throws: { ($0 as? LogError)?.code == .stateBehind }
        }
        #expect(try open(minimum: 9).extent.last.index == 11)
    }

    @Test func `a log that ends before what the state holds is damage`() throws {
        let options = LogFile.Options.segments(1 << 10)
        let log = try open()
        try write(log, commands(from: 1, count: 3), hardState: HardState(term: 1))
        // The state neither reached the snapshot nor says it is being installed.
        #expect { try open(minimum: 9) } throws: { ($0 as? LogError)?.code == .damaged }
        #expect {
            try LogFile(
                directory: SimulatedLogDirectory(disk), minimumIndex: 2, installing: LogPosition(index: 9, term: 1),
                options: options)
        } throws: { ($0 as? LogError)?.code == .damaged }
    }
}
