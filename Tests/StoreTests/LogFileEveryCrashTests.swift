// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport
internal import Testing

@testable internal import Store

/// A log lives through a script on a disk that stops in the middle of one chosen operation.
private struct ScriptedLife {
    struct Mismatch: Error, CustomStringConvertible {
        var description: String
    }

    let script: LogScript
    let disk: SimulatedDisk
    let options = LogFile.Options.segments(1 << 10)
    private(set) var durable = LogModel()
    /// What the log holds if the step under way took effect.
    private(set) var underWay: LogModel?
    /// What the state holds durably.
    private(set) var minimum: UInt64 = 0
    /// As the shell's durable marker says.
    private(set) var installing: LogPosition?
    private(set) var cuts = 0

    init(script: LogScript, disk: SimulatedDisk) {
        self.script = script
        self.disk = disk
    }

    /// Until the end or the crash.
    mutating func run() throws {
        do {
            var log = try open()
            for step in script.steps { try carryOut(step, &log) }
        } catch let error as LogError {
            guard disk.isCrashed || disk.failingSync != nil && error.code == .failed else { throw error }
            return
        }
        if disk.failingSync != nil { throw Mismatch(description: "a sync failed and nobody noticed") }
    }

    /// After a failed sync the process starts again, and sees what memory holds; then the power goes. What the start
    /// found must be there.
    mutating func restartAfterFailedSync() throws {
        _ = try open()
        disk.crash()
        _ = try open()
        try goOn()
    }

    mutating func open() throws -> LogFile {
        let log = try LogFile(
            directory: SimulatedLogDirectory(disk), minimumIndex: minimum, installing: installing, options: options)
        cuts += log.recovered.cutTornTail ? 1 : 0
        let allowed = installing == nil ? [durable, underWay].compactMap { $0 } : [underWay].compactMap { $0 }
        guard let found = try allowed.first(where: { try $0.matches(log) }) else {
            throw Mismatch(description: "found \(log.recovered), allowed \(allowed)")
        }
        guard log.extent.base.index <= minimum else {
            throw Mismatch(description: "the log begins after \(log.extent.base), the state ends at \(minimum)")
        }
        durable = found
        underWay = nil
        installing = nil
        return log
    }

    private mutating func carryOut(_ step: LogScript.Step, _ log: inout LogFile) throws {
        switch step {
        case .write(let write):
            var next = durable
            next.apply(write)
            underWay = next
            try log.append(write)
            try log.sync()
            durable = next
            underWay = nil
        case .compact(let index):
            minimum = max(minimum, index)
            try log.compact(through: index)
        case .reset(let position):
            minimum = position.index
            installing = position
            var next = durable
            next.reset(to: position)
            underWay = next
            try log.reset(to: position)
            durable = next
            underWay = nil
            installing = nil
            guard log.extent == LogExtent(base: position, last: position), log.hardState == next.hardState else {
                throw Mismatch(description: "reset to \(position) left \(log.extent), \(log.hardState)")
            }
        case .prepare:
            if log.wantsPreparation { try log.prepare() }
        case .reopen:
            log = try open()
        }
    }

    /// After a crash: a start that crashes too, one that does not, and life goes on.
    mutating func restart(crashAgainAfter operations: Int) throws {
        disk.crash()
        disk.crashAfter = operations
        do {
            _ = try open()
        } catch let error as LogError {
            guard disk.isCrashed else { throw error }
        }
        disk.crash()
        try goOn()
    }

    private mutating func goOn() throws {
        let log = try open()
        let next = durable.last.index + 1
        let write = Write(
            hardState: HardState(term: max(durable.hardState.term, 1) + 1, commit: durable.hardState.commit),
            entries: commands(from: next, count: 2, term: max(durable.hardState.term, 1) + 1, bytes: 150))
        var whole = durable
        whole.apply(write)
        try log.append(write)
        try log.sync()
        durable = whole
        _ = try open()
    }
}

@Suite struct LogFileEveryCrashTests {
    @Test(arguments: UInt64(0)..<16)
    func `a crash at any operation leaves the log before or after the step, and a second one changes nothing`(
        part: UInt64
    ) throws {
        var crashes = 0
        var cuts = 0
        for seed in part * 3..<part * 3 + 3 {
            let script = LogScript(seed: seed, count: 24)
            var whole = ScriptedLife(script: script, disk: SimulatedDisk(seed: seed))
            try whole.run()
            let operations = whole.disk.operations
            try #require(operations > 40)
            for place in 1...operations {
                let disk = SimulatedDisk(seed: seed &* 10_007 &+ UInt64(place))
                disk.crashAfter = place - 1
                var life = ScriptedLife(script: script, disk: disk)
                do {
                    try life.run()
                    crashes += disk.isCrashed ? 1 : 0
                    try life.restart(crashAgainAfter: place % 13)
                } catch {
                    Issue.record("seed \(seed), crash at operation \(place): \(error)")
                    return
                }
                cuts += life.cuts
            }
        }
        #expect(crashes > 150 && cuts > 0, "\(crashes) crashes, \(cuts) torn tails")
    }

    @Test(arguments: UInt64(0)..<16)
    func `what a start finds after a failed sync is still there after a power cut`(part: UInt64) throws {
        for seed in part * 3..<part * 3 + 3 {
            let script = LogScript(seed: seed, count: 24)
            var whole = ScriptedLife(script: script, disk: SimulatedDisk(seed: seed))
            try whole.run()
            try #require(whole.disk.syncs > 10)
            for number in 1...whole.disk.syncs {
                let disk = SimulatedDisk(seed: seed &* 10_007 &+ UInt64(number))
                disk.failingSync = number
                var life = ScriptedLife(script: script, disk: disk)
                do {
                    try life.run()
                    try life.restartAfterFailedSync()
                } catch {
                    Issue.record("seed \(seed), sync \(number) failed: \(error)")
                    return
                }
            }
        }
    }
}
