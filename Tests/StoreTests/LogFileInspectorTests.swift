// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport
internal import Testing

@testable internal import Store

@Suite struct LogFileInspectorTests {
    /// As on a disk: names and contents.
    private func files(_ disk: SimulatedDisk) -> [String: [UInt8]] {
        disk.fileNames.reduce(into: [:]) { $0[$1] = disk.content($1) }
    }

    @Test func `a log is described as it is opened, and not a byte changes`() throws {
        let past = try PastLog(.segments)
        let before = files(past.disk)
        let found = try LogInspector.inspect(SimulatedLogDirectory(past.disk), records: 1_000)
        #expect(files(past.disk) == before)
        #expect(found.verdict == .clean && found.recovered == past.recovered)
        #expect(found.segments.map(\.file) == past.disk.fileNames)
        #expect(found.segments.map(\.state).dropLast(2).allSatisfy { $0 == .sealed })
        #expect(found.segments.map(\.state).suffix(2) == [.open, .spare])
        #expect(found.segments.map(\.entries).reduce(0, +) == 15)
        #expect(found.segments.first?.indexes == 1...7 && found.segments.first?.terms == 1...1)
        #expect(
            found.records.count == found.recordsFound
                && found.recordsFound == found.segments.map(\.records).reduce(0, +))
        #expect(found.records.filter { $0.kind == .batch }.map(\.entries).reduce(0, +) == 15)
        #expect(found.records.compactMap(\.truncateFrom) == [6])
        #expect(found.records.last?.hardState == HardState(term: 3, vote: nil, commit: 9))
        let newest = try LogInspector.inspect(SimulatedLogDirectory(past.disk), records: 3)
        #expect(newest.records == Array(found.records.suffix(3)))
    }

    @Test func `a reset and the segments it voids are named`() throws {
        let past = try PastLog(.resetHalfWay)
        let found = try LogInspector.inspect(SimulatedLogDirectory(past.disk))
        #expect(found.verdict == .clean && found.recovered == past.recovered && found.records.isEmpty)
        #expect(found.segments.first?.state == .void)
        #expect(found.segments.first { $0.state == .open }?.isReset == true)
    }

    @Test func `damage is named by segment and byte, and what comes before it is shown`() throws {
        let past = try PastLog(.segments)
        let whole = try LogInspector.inspect(SimulatedLogDirectory(past.disk), records: 1_000)
        let record = try #require(whole.records.last { $0.segment == 2 && $0.kind == .batch })
        let name = SegmentName.of(2)
        var bytes = try #require(past.disk.content(name))
        bytes[record.offset + 60] ^= 4
        past.disk.replace(name, with: bytes)
        let found = try LogInspector.inspect(SimulatedLogDirectory(past.disk), records: 1_000)
        #expect(found.verdict == .damaged(LogPlace(segment: 2, offset: record.offset, problem: "checksum differs")))
        #expect(found.records == Array(whole.records.prefix { $0 != record }))
        #expect(found.segments.map(\.state).prefix(3) == [.sealed, .damaged, .unread])
        #expect(found.recovered?.extent.last.index == record.firstIndex - 1)
    }

    @Test func `a torn tail is no damage`() throws {
        let past = try PastLog(.reset)
        let open = try #require(
            try LogInspector.inspect(SimulatedLogDirectory(past.disk)).segments.first { $0.state == .open })
        var bytes = try #require(past.disk.content(open.file))
        // The first piece of a record whose rest never reached the disk.
        let record = Record.encode(
            .batch, term: 3, firstIndex: 23, previousSum: 0, payloadBytes: 600
        ) { $0.put(repeatElement(7, count: 600)) }
        let part = min(record.bytes.count, 512 - open.usedBytes % 512)
        bytes.replaceSubrange(open.usedBytes..<open.usedBytes + part, with: record.bytes.prefix(part))
        past.disk.replace(open.file, with: bytes)
        let found = try LogInspector.inspect(SimulatedLogDirectory(past.disk))
        guard case .tornTail(let place) = found.verdict else {
            Issue.record("\(found.verdict)")
            return
        }
        #expect(place.segment == open.sequence && place.offset == open.usedBytes)
        #expect(found.recovered?.cutTornTail == true && found.recovered?.extent == past.recovered.extent)
    }

    @Test func `a directory without a log is refused`() {
        #expect { try LogInspector.inspect(SimulatedLogDirectory(SimulatedDisk(seed: 1))) } throws: {
            ($0 as? LogError)?.code == .notAvailable
        }
    }
}
