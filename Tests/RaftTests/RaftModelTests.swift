// SPDX-License-Identifier: Apache-2.0

internal import TestSupport
internal import Testing

@testable internal import Raft

/// One voter, a disk and a state machine, driven at random: writes become durable in order but receipts come late,
/// partially, repeated or not at all; crashes lose what is not durable.
private struct World {
    var random: SeededRandom
    var node: RaftNode
    /// The durable log (from index 1) and hard state.
    var disk: [Entry] = []
    var hardState = HardState()
    /// Written, not yet durable.
    var queue: [Write] = []
    /// Of durable writes, not yet told.
    var receipts: [Receipt] = []
    /// What the state machine holds, in memory and durably (it may fall back to the latter).
    var applied: [Entry] = []
    var handedOut: [Entry] = []
    var durableApplied = 0
    /// Every entry ever given out as committed: these must never change.
    var committed: [Entry] = []
    var nextToken: UInt64 = 1
    var openTokens: Set<UInt64> = []
    var elections: UInt64 = 0

    init(seed: UInt64) {
        random = SeededRandom(seed: seed)
        node = makeNode()
    }

    mutating func step(_ input: Input) {
        let output = node.step(input)
        if let write = output.write {
            let last = queue.last { !$0.entries.isEmpty }?.entries.last?.index ?? UInt64(disk.count)
            #expect(write.entries.map(\.index) == (0..<UInt64(write.entries.count)).map { last + 1 + $0 })
            #expect(write.truncateFrom == nil)
            queue.append(write)
        }
        for accepted in output.accepted { #expect(openTokens.remove(accepted.token) != nil) }
        for refused in output.refused { #expect(openTokens.remove(refused.token) != nil) }
        if let batch = output.committed {
            #expect(batch.indexes.lowerBound == UInt64(handedOut.count) + 1)
            let fromLog = batch.fromLog.map { disk[Int($0) - 1] }
            for entry in fromLog + batch.entries {
                #expect(entry.index <= UInt64(disk.count), "committed \(entry.position) before it was durable")
                #expect(disk[Int(entry.index) - 1] == entry)
                if entry.index <= UInt64(committed.count) {
                    #expect(committed[Int(entry.index) - 1] == entry, "a committed entry changed")
                } else {
                    committed.append(entry)
                }
                handedOut.append(entry)
            }
        }
        if case .leader = output.roleChange?.role {
            #expect(hardState.term == node.term && hardState.vote == 7, "leads on a vote that is not durable")
            elections += 1
        }
        #expect(node.commitIndex <= UInt64(disk.count) && node.appliedIndex <= node.commitIndex)
    }

    mutating func act() {
        switch Int.random(in: 0..<12, using: &random) {
        case 0: step(.tick)
        case 1...4:
            let proposals = (0..<Int.random(in: 1...3, using: &random)).map { _ -> Proposal in
                defer { nextToken += 1 }
                openTokens.insert(nextToken)
                return Proposal(token: nextToken, payload: Array("\(nextToken)".utf8))
            }
            step(.propose(proposals))
            #expect(openTokens.isEmpty)
        case 5, 6: persistOne()
        case 7, 8:
            guard !receipts.isEmpty else { return }
            // Any receipt, in any order, some of them more than once or never.
            let receipt = receipts[Int.random(in: receipts.indices, using: &random)]
            step(.persisted(receipt))
        case 9:
            guard applied.count < handedOut.count else { return }
            let count = Int.random(in: applied.count + 1...handedOut.count, using: &random)
            applied = Array(handedOut.prefix(count))
            step(.applied(UInt64(count)))
        case 10: durableApplied = Int.random(in: durableApplied...max(durableApplied, applied.count), using: &random)
        default: if random.oneIn(6) { crash() }
        }
    }

    mutating func persistOne() {
        guard !queue.isEmpty else { return }
        let write = queue.removeFirst()
        if let state = write.hardState { hardState = state }
        disk += write.entries
        receipts.append(write.receipt)
    }

    mutating func crash() {
        // A write may have reached the disk although nobody was told.
        if Bool.random(using: &random) { persistOne() }
        #expect(Array(disk.prefix(committed.count)) == committed, "an acknowledged entry is lost")
        queue = []
        receipts = []
        applied = Array(applied.prefix(durableApplied))
        handedOut = applied
        let last = disk.last?.position ?? .origin
        var starts: [LogPosition] = []
        for entry in disk where entry.term != starts.last?.term { starts.append(entry.position) }
        node = makeNode(
            hardState: hardState, log: LogExtent(last: last), termStarts: starts, applied: UInt64(applied.count))
    }

    /// Without faults everything accepted is committed.
    mutating func settle() {
        step(.tick)
        if let receipt = receipts.last { step(.persisted(receipt)) }
        while !queue.isEmpty {
            persistOne()
            if let receipt = receipts.last { step(.persisted(receipt)) }
        }
        #expect(node.isReady && handedOut.count == disk.count)
        #expect(handedOut.map(\.index) == (0..<UInt64(disk.count)).map { $0 + 1 })
        applied = handedOut
        step(.applied(UInt64(applied.count)))
        #expect(node.appliedIndex == node.lastPosition.index)
    }
}

@Suite struct RaftModelTests {
    @Test
    func `in any order of receipts and crashes no acknowledged entry is lost and none commits before it is durable`() {
        var elections: UInt64 = 0
        var committed = 0
        for seed in UInt64(1)...1_000 {
            var world = World(seed: seed)
            for _ in 0..<200 { world.act() }
            world.settle()
            elections += world.elections
            committed += world.committed.count
        }
        // A run in which nothing happens would prove nothing.
        #expect(elections > 2_000 && committed > 20_000, "\(elections) elections, \(committed) entries")
    }

    @Test func `the same seed gives the same run`() {
        func run() -> [Entry] {
            var world = World(seed: 11)
            for _ in 0..<300 { world.act() }
            return world.committed
        }
        #expect(run() == run())
    }
}
