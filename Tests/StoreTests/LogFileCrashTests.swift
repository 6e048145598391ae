// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport
internal import Testing

@testable internal import Store

/// One seed: several lives of a log on a disk that stops at a random operation.
private struct CrashRun {
    var random: SeededRandom
    let disk: SimulatedDisk
    let segmentBytes: Int
    var durable = LogModel()
    var inFlight: Write?
    /// Durable in the state: at most what is durable in the log.
    var minimum: UInt64 = 0
    var cuts = 0
    var crashes = 0
    var segmentsSeen = 1

    init(seed: UInt64) {
        random = SeededRandom(seed: seed)
        disk = SimulatedDisk(seed: seed &* 7919)
        segmentBytes = [1 << 10, 2 << 10, 4 << 10][Int(seed % 3)]
    }

    mutating func run() throws {
        for life in 0..<4 {
            // The last life ends well, so that every seed is checked to the end.
            if life < 3 { disk.crashAfter = Int.random(in: 1...(life == 0 ? 20 : 60), using: &random) }
            do {
                try live()
            } catch {
                guard disk.isCrashed else { throw error }
            }
            crashes += disk.isCrashed ? 1 : 0
            disk.crash()
        }
        _ = try openAndCheck()
    }

    private mutating func live() throws {
        let log = try openAndCheck()
        for _ in 0..<20 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<6: try append(log)
            case 6: if log.wantsPreparation { try log.prepare() }
            case 7:
                minimum = max(minimum, durable.hardState.commit)
                try log.compact(through: minimum)
                #expect(log.extent.base.index <= minimum)
            case 8:
                let first = log.extent.firstIndex
                if first <= log.extent.last.index {
                    let from = UInt64.random(in: first...log.extent.last.index, using: &random)
                    let found = try log.entries(from..<log.extent.last.index + 1, bytesMax: 600)
                    #expect(!found.isEmpty)
                    #expect(found == Array(durable.entries[Int(from) - 1..<Int(from) - 1 + found.count]))
                }
            default: break
            }
        }
        segmentsSeen = max(segmentsSeen, disk.fileNames.count)
    }

    private mutating func append(_ log: LogFile) throws {
        var write = Write()
        var last = UInt64(durable.entries.count)
        let committed = max(durable.hardState.commit, minimum)
        var term = max(durable.hardState.term, 1)
        if random.oneIn(8), last > committed {
            let from = UInt64.random(in: committed + 1...last, using: &random)
            write.truncateFrom = from
            last = from - 1
            term += 1
        }
        if durable.hardState.term < term || random.oneIn(4) {
            let commit = UInt64.random(
                in: committed...max(committed, min(last, UInt64(durable.entries.count))), using: &random)
            write.hardState = HardState(term: term, vote: Bool.random(using: &random) ? 7 : nil, commit: commit)
        }
        let count = Int.random(in: 0...3, using: &random)
        let bytes = Int.random(in: 0...200, using: &random)
        write.entries = commands(from: last + 1, count: count, term: term, bytes: bytes)
        guard write != Write() else { return }
        inFlight = write
        try log.append(write)
        try log.sync()
        durable.apply(write)
        inFlight = nil
    }

    private mutating func openAndCheck() throws -> LogFile {
        let log = try LogFile(
            directory: SimulatedLogDirectory(disk),
            minimumIndex: minimum,
            options: .segments(segmentBytes)
        )
        cuts += log.recovered.cutTornTail ? 1 : 0
        var whole = durable
        if let inFlight { whole.apply(inFlight) }
        let first = log.extent.firstIndex
        try #require(first <= minimum + 1)
        let found = try allEntries(log)
        let matches = [durable, whole].first { model in
            model.hardState == log.recovered.hardState && found == Array(model.entries.dropFirst(Int(first) - 1))
        }
        try #require(matches != nil, "log holds neither what was synced nor that with the write under way")
        durable = matches ?? durable
        inFlight = nil
        return log
    }
}

@Suite struct LogFileCrashTests {
    @Test(arguments: 0..<16)
    func `no crash loses a synced write, and one under way is there whole or not at all`(part: UInt64) throws {
        var cuts = 0
        var crashes = 0
        var segments = 0
        for seed in part * 125..<(part + 1) * 125 {
            var run = CrashRun(seed: seed)
            do { try run.run() } catch { Issue.record("seed \(seed): \(error)") }
            cuts += run.cuts
            crashes += run.crashes
            segments = max(segments, run.segmentsSeen)
        }
        // A simulation that never tears or rotates would prove nothing.
        #expect(cuts > 3 && crashes > 150 && segments >= 3, "\(cuts) cuts, \(crashes) crashes, \(segments) segments")
    }
}
