// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport
internal import Testing

@testable internal import Store

/// A small log of one or two segments and what it holds.
private struct SmallLog {
    let disk = SimulatedDisk(seed: 1)
    var entries: [Entry] = []
    static let segmentBytes = 1 << 10

    init(batches: Int) throws {
        let log = try open()
        for batch in 0..<batches {
            let added = commands(from: UInt64(entries.count + 1), count: 1 + batch % 2, bytes: 30)
            let hardState = batch == 0 ? HardState(term: 1, vote: 9) : nil
            try log.append(Write(hardState: hardState, entries: added))
            try log.sync()
            entries += added
        }
    }

    func open(minimum: UInt64 = 0) throws(LogError) -> LogFile {
        try LogFile(
            directory: SimulatedLogDirectory(disk),
            minimumIndex: minimum,
            options: .segments(Self.segmentBytes)
        )
    }

    /// Opens with `name` replaced, puts the files back, and says how many entries were found; nil when it is refused.
    func entriesFound(_ name: String, replacedBy bytes: [UInt8]?, minimum: UInt64) throws -> Int? {
        let before = disk.fileNames.map { ($0, disk.content($0)) }
        defer {
            for name in disk.fileNames { disk.replace(name, with: nil) }
            for (name, content) in before { disk.replace(name, with: content) }
        }
        disk.replace(name, with: bytes)
        do throws(LogError) {
            let log = try open(minimum: minimum)
            let found = try log.entries(1..<log.extent.last.index + 1, bytesMax: .max)
            #expect(found == Array(entries.prefix(found.count)))
            return found.count
        } catch {
            // A log that begins later may be whole, and the state an old one.
            #expect(error.code == .damaged || error.code == .stateBehind, "\(error)")
            return nil
        }
    }
}

@Suite struct LogFileDamageTests {
    @Test(arguments: [3, 16])
    func `no flipped byte shortens what was synced`(batches: Int) throws {
        let small = try SmallLog(batches: batches)
        for name in small.disk.fileNames {
            let content = try #require(small.disk.content(name))
            for offset in content.indices {
                for mask in [UInt8(0x01), 0xFF] {
                    var flipped = content
                    flipped[offset] ^= mask
                    let found = try small.entriesFound(name, replacedBy: flipped, minimum: 0)
                    #expect(found == nil || found == small.entries.count, "\(name) byte \(offset) mask \(mask)")
                }
            }
        }
    }

    @Test(arguments: [3, 16])
    func `a file cut at any length is damage`(batches: Int) throws {
        let small = try SmallLog(batches: batches)
        for name in small.disk.fileNames {
            let content = try #require(small.disk.content(name))
            for length in content.indices {
                let found = try small.entriesFound(name, replacedBy: Array(content.prefix(length)), minimum: 1)
                #expect(found == nil, "\(name) cut to \(length)")
            }
        }
    }

    @Test func `zeroes from any place on lose at most the last record, and none that is known to be committed`() throws
    {
        let small = try SmallLog(batches: 5)
        let name = try #require(small.disk.fileNames.last)
        let content = try #require(small.disk.content(name))
        for offset in stride(from: 0, to: content.count, by: 1) {
            let zeroed = Array(content.prefix(offset)) + [UInt8](repeating: 0, count: content.count - offset)
            let known = UInt64(small.entries.count)
            let found = try small.entriesFound(name, replacedBy: zeroed, minimum: known)
            #expect(found == nil || found == small.entries.count, "zero from \(offset)")
        }
    }

    @Test func `a missing segment, an empty directory and a gap before the log are refused`() throws {
        let small = try SmallLog(batches: 40)
        let names = small.disk.fileNames
        try #require(names.count >= 3)
        for name in names.dropLast() {
            #expect(try small.entriesFound(name, replacedBy: nil, minimum: 1) == nil, "without \(name)")
        }
        let empty = SimulatedLogDirectory(SimulatedDisk(seed: 2))
        #expect(throws: LogError.self) { try LogFile(directory: empty, minimumIndex: 5) }
    }

    @Test func `a record torn at a sector is cut off, and the next append takes its place`() throws {
        let small = try SmallLog(batches: 1)
        let name = try #require(small.disk.fileNames.first)
        let before = try #require(small.disk.content(name))
        let log = try small.open()
        let added = commands(from: UInt64(small.entries.count + 1), count: 1, bytes: 500)
        try log.append(Write(entries: added))
        try log.sync()
        let after = try #require(small.disk.content(name))
        small.disk.replace(name, with: Array(after.prefix(512)) + Array(before.dropFirst(512)))

        let again = try small.open()
        #expect(again.recovered.cutTornTail)
        #expect(again.extent.last.index == UInt64(small.entries.count))
        try again.append(Write(entries: added))
        try again.sync()
        #expect(try allEntries(try small.open(minimum: 2)) == small.entries + added)
    }
}
