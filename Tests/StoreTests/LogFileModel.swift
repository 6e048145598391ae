// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport

@testable internal import Store

/// What a log must hold, in the simplest way: everything since the beginning or the last reset.
struct LogModel: Equatable {
    /// The position the log was reset to last.
    var floor = LogPosition.origin
    var entries: [Entry] = []
    var hardState = HardState()

    var last: LogPosition { entries.last?.position ?? floor }

    func holds(_ position: LogPosition) -> Bool { position == floor || entries.contains { $0.position == position } }

    mutating func apply(_ write: Write) {
        if let from = write.truncateFrom { entries.removeSubrange(Int(from - floor.index) - 1..<entries.count) }
        entries += write.entries
        if let state = write.hardState { hardState = state }
    }

    mutating func reset(to position: LogPosition) {
        floor = position
        entries = []
        hardState.commit = position.index
        if hardState.term < position.term { hardState = HardState(term: position.term, commit: position.index) }
    }

    /// What opening must find if the log begins after `base`; nil when it cannot begin there.
    func recovered(after base: LogPosition, cutTornTail: Bool) -> LogFile.Recovered? {
        guard base.index >= floor.index, base.index <= last.index else { return nil }
        let live = entries.dropFirst(Int(base.index - floor.index))
        let before = entries.prefix(Int(base.index - floor.index)).last?.position ?? floor
        guard before == base else { return nil }
        var starts: [LogPosition] = []
        var term = base.term
        for entry in live where entry.term != term {
            term = entry.term
            starts.append(entry.position)
        }
        let configurations = live.compactMap { entry -> ConfigurationPoint? in
            guard entry.kind == .configuration, let membership = Membership(decoding: entry.payload) else { return nil }
            return ConfigurationPoint(index: entry.index, membership: membership)
        }
        return LogFile.Recovered(
            hardState: hardState,
            extent: LogExtent(base: base, last: last),
            termStarts: starts,
            configurations: configurations,
            cutTornTail: cutTornTail
        )
    }

    /// Whether the log, just opened, is exactly this.
    func matches(_ log: LogFile) throws -> Bool {
        let base = log.extent.base
        guard recovered(after: base, cutTornTail: log.recovered.cutTornTail) == log.recovered else { return false }
        return try allEntries(log) == Array(entries.dropFirst(Int(base.index - floor.index)))
    }
}

/// What happens to a log in one run, decided before the run: so that it can be repeated with a crash at every place.
struct LogScript {
    enum Step {
        case write(Write)
        case compact(through: UInt64)
        /// The state gave way to a snapshot that ends there.
        case reset(LogPosition)
        case prepare
        case reopen
    }

    var steps: [Step] = []

    init(seed: UInt64, count: Int) {
        var random = SeededRandom(seed: seed)
        var model = LogModel()
        var sequence: UInt64 = 0
        for _ in 0..<count {
            switch Int.random(in: 0..<20, using: &random) {
            case 0: steps.append(.reopen)
            case 1, 2: steps.append(.prepare)
            case 3, 4:
                steps.append(.compact(through: model.hardState.commit))
            case 5:
                let index = model.hardState.commit + UInt64.random(in: 1...8, using: &random)
                var position = LogPosition(index: index, term: max(1, model.last.term) + (random.oneIn(2) ? 1 : 0))
                // A log that holds the position is kept, not reset.
                if model.holds(position) { position.term += 1 }
                steps.append(.reset(position))
                model.reset(to: position)
            default:
                sequence += 1
                let write = Self.write(after: model, sequence: sequence, random: &random)
                steps.append(.write(write))
                model.apply(write)
            }
        }
    }

    /// As a follower writes: sometimes over a tail that lost, now and then with a membership.
    private static func write(after model: LogModel, sequence: UInt64, random: inout SeededRandom) -> Write {
        var write = Write(sequence: sequence)
        var last = model.last.index
        var term = max(model.hardState.term, 1)
        let commit = model.hardState.commit
        if random.oneIn(4), last > commit {
            let from = UInt64.random(in: commit + 1...last, using: &random)
            write.truncateFrom = from
            last = from - 1
            term += 1
        }
        if model.hardState.term < term || random.oneIn(4) {
            write.hardState = HardState(
                term: term, vote: Bool.random(using: &random) ? 7 : nil,
                commit: UInt64.random(in: commit...max(commit, last), using: &random))
        }
        let count = Int.random(in: 0...3, using: &random)
        write.entries = commands(
            from: last + 1, count: count, term: term, bytes: Int.random(in: 0...160, using: &random))
        if random.oneIn(5) {
            let members = (1...UInt64.random(in: 1...5, using: &random)).map { $0 }
            write.entries.append(
                Entry(
                    index: last + UInt64(count) + 1, term: term, kind: .configuration,
                    payload: Membership(voters: members).encoded()))
        }
        return write
    }
}
