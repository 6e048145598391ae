// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport
internal import Testing

@testable internal import Store

/// A log with a past on disk, closed, and what opening it finds.
struct PastLog {
    enum Kind: String, CaseIterable, Sendable {
        /// Many segments, with truncations and memberships.
        case segments
        /// Its oldest segments are gone.
        case compacted
        /// Begins after a snapshot.
        case reset
        /// A crash came before a reset had removed the segments before it.
        case resetHalfWay
    }

    let disk = SimulatedDisk(seed: 11)
    /// Applied by the state, thus known to be committed.
    var minimum: UInt64 = 0
    private(set) var recovered: LogFile.Recovered
    private(set) var entries: [Entry] = []
    static let options = LogFile.Options.segments(1 << 10)

    init(_ kind: Kind) throws {
        let directory = SimulatedLogDirectory(disk)
        let log = try LogFile(directory: directory, minimumIndex: 0, options: Self.options)
        recovered = log.recovered
        try log.append(Write(hardState: HardState(term: 1, vote: 9), entries: commands(from: 1, count: 4)))
        try log.append(Write(entries: commands(from: 5, count: 3, bytes: 150)))
        try log.append(
            Write(
                hardState: HardState(term: 2, vote: 7, commit: 4), truncateFrom: 6,
                entries: [
                    Entry(
                        index: 6, term: 2, kind: .configuration, payload: Membership(voters: [1, 2, 3]).encoded())
                ]))
        for index in UInt64(7)...13 {
            try log.append(Write(entries: commands(from: index, count: 1, term: 2, bytes: 130)))
        }
        try log.append(Write(hardState: HardState(term: 3, vote: nil, commit: 9)))
        try log.sync()
        minimum = 9
        switch kind {
        case .segments: break
        case .compacted: try log.compact(through: 9)
        case .reset, .resetHalfWay:
            let before = disk.fileNames.map { ($0, disk.content($0)) }
            try log.reset(to: LogPosition(index: 20, term: 3))
            minimum = 20
            if kind == .resetHalfWay {
                for (name, content) in before where disk.content(name) == nil { disk.replace(name, with: content) }
            }
            try log.append(Write(entries: commands(from: 21, count: 2, term: 3)))
            try log.sync()
        }
        try log.prepare()
        let copy = disk.durableCopy()
        let again = try LogFile(
            directory: SimulatedLogDirectory(copy), minimumIndex: minimum, options: Self.options)
        recovered = again.recovered
        entries = try allEntries(again)
    }

    enum Outcome: Equatable {
        case same, damaged
        /// A prefix of it, with less hard state perhaps.
        case shorter(last: UInt64)
        case different(String)
    }

    /// Opens a copy with the file replaced (nil: removed), all else as it is.
    func outcome(_ name: String, _ bytes: [UInt8]?, minimum known: UInt64? = nil) -> Outcome {
        let copy = disk.durableCopy()
        copy.replace(name, with: bytes)
        let verdict = Result { try LogInspector.inspect(SimulatedLogDirectory(copy)).verdict }
        let outcome = open(copy, minimum: known ?? minimum)
        switch verdict {
        // Looking and opening agree.
        case .success(.clean) where copy.fileNames.count > 1 && outcome != .same && bytes != nil:
            return .different("inspected as clean, opened as \(outcome)")
        case .success(.damaged(let place)) where outcome != .damaged:
            return .different("inspected as \(place), opened as \(outcome)")
        default: return outcome
        }
    }

    private func open(_ copy: SimulatedDisk, minimum: UInt64) -> Outcome {
        do throws(LogError) {
            let log = try LogFile(
                directory: SimulatedLogDirectory(copy), minimumIndex: minimum, options: Self.options)
            let found = try log.entries(log.extent.firstIndex..<log.extent.last.index + 1, bytesMax: .max)
            // Stray bytes after the last record are cut off like a record that was never finished.
            var whole = recovered
            whole.cutTornTail = log.recovered.cutTornTail
            if log.recovered == whole, found == entries { return .same }
            if log.recovered.cutTornTail, log.recovered.extent.base == recovered.extent.base,
                found == Array(entries.prefix(found.count))
            {
                return .shorter(last: log.extent.last.index)
            }
            return .different("\(log.recovered)")
        } catch {
            return error.code == .damaged ? .damaged : .different("\(error)")
        }
    }
}

@Suite struct LogFileEveryByteTests {
    @Test(arguments: PastLog.Kind.allCases, 0..<4)
    func `a flipped byte anywhere is found, or lies where nothing is kept`(kind: PastLog.Kind, file: Int) throws {
        let past = try PastLog(kind)
        var counts: [Int] = [0, 0]
        for name in past.disk.fileNames.dropFirst(file).prefix(1) {
            let content = try #require(past.disk.content(name))
            for offset in content.indices {
                var flipped = content
                flipped[offset] ^= offset % 2 == 0 ? 0xFF : 1 << UInt8(offset / 2 % 8)
                let outcome = past.outcome(name, flipped)
                #expect(outcome == .same || outcome == .damaged, "\(name) byte \(offset): \(outcome)")
                counts[outcome == .same ? 0 : 1] += 1
            }
        }
        #expect(file > 0 || kind == .resetHalfWay || counts[1] > 200, "\(counts)")
    }

    @Test(arguments: PastLog.Kind.allCases, 0..<4)
    func `a file cut to any length, or removed, is found unless nothing is kept there`(
        kind: PastLog.Kind, file: Int
    ) throws {
        let past = try PastLog(kind)
        let names = past.disk.fileNames
        for (place, name) in names.enumerated() where place == file {
            let content = try #require(past.disk.content(name))
            let isSpare = content[...].isZero
            let isVoid = kind == .resetHalfWay && place < names.count - 2
            for length in content.indices {
                let outcome = past.outcome(name, Array(content.prefix(length)))
                let expected: PastLog.Outcome = isSpare || isVoid ? .same : .damaged
                #expect(outcome == expected, "\(name) cut to \(length): \(outcome)")
            }
            let removed = past.outcome(name, nil)
            switch place {
            // Only the hard state and entries the state holds anyway were in it: nothing tells it from compaction.
            case 0 where kind == .segments: #expect(removed != .same)
            default:
                #expect(
                    removed == (isSpare || isVoid ? .same : .damaged) || place == 0, "\(name) removed: \(removed)")
            }
        }
    }

    @Test(arguments: PastLog.Kind.allCases)
    func `a sector that was never written shortens the log by the last record at most`(
        kind: PastLog.Kind
    ) throws {
        let past = try PastLog(kind)
        for name in past.disk.fileNames {
            let content = try #require(past.disk.content(name))
            for sector in 0..<content.count / 512 {
                var lost = content
                lost.replaceSubrange(sector * 512..<(sector + 1) * 512, with: repeatElement(0, count: 512))
                switch past.outcome(name, lost) {
                case .same, .damaged: break
                case .shorter(let last):
                    #expect(last >= past.minimum, "\(name) sector \(sector)")
                    #expect(past.outcome(name, lost, minimum: past.recovered.extent.last.index) == .damaged)
                case .different(let text): Issue.record("\(name) sector \(sector): \(text)")
                }
            }
        }
    }

    @Test func `an old copy of a segment does not pass for the newer one`() throws {
        let disk = SimulatedDisk(seed: 3)
        let directory = SimulatedLogDirectory(disk)
        let log = try LogFile(directory: directory, minimumIndex: 0, options: .segments(1 << 10))
        try log.append(Write(hardState: HardState(term: 1), entries: commands(from: 1, count: 1, bytes: 200)))
        try log.sync()
        let name = SegmentName.of(1)
        let old = try #require(disk.content(name))
        for index in UInt64(2)...6 {
            try log.append(Write(entries: commands(from: index, count: 1, bytes: 200)))
        }
        try log.sync()
        disk.replace(name, with: old)
        #expect { try LogFile(directory: directory, minimumIndex: 1, options: .segments(1 << 10)) } throws: {
            ($0 as? LogError)?.code == .damaged
        }
    }

    @Test func `bytes of any kind open as damage and never as a log`() throws {
        var random = SeededRandom(seed: 77)
        let past = try PastLog(.segments)
        let name = try #require(past.disk.fileNames.first)
        let content = try #require(past.disk.content(name))
        for round in 0..<400 {
            var bytes = content
            // Noise over a piece, a copy of one piece over another, or nothing but noise.
            let start = Int.random(in: 0..<bytes.count, using: &random)
            let length = Int.random(in: 1...bytes.count - start, using: &random)
            switch round % 3 {
            case 0:
                for offset in start..<start + length { bytes[offset] = UInt8.random(in: 0...255, using: &random) }
            case 1:
                let from = Int.random(in: 0...bytes.count - length, using: &random)
                bytes.replaceSubrange(start..<start + length, with: content[from..<from + length])
            default: bytes = (0..<content.count).map { _ in UInt8.random(in: 0...255, using: &random) }
            }
            let outcome = past.outcome(name, bytes)
            #expect(outcome == .damaged || bytes == content || outcome == .same, "round \(round): \(outcome)")
        }
    }
}
