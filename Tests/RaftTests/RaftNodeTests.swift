// SPDX-License-Identifier: Apache-2.0

internal import Testing

@testable internal import Raft

func makeNode(
    hardState: HardState = HardState(),
    log: LogExtent = LogExtent(),
    termStarts: [LogPosition] = [],
    applied: UInt64 = 0,
    _ change: (inout RaftNode.Configuration) -> Void = { _ in }
) -> RaftNode {
    var configuration = RaftNode.Configuration(id: 7)
    change(&configuration)
    return RaftNode(
        configuration: configuration,
        hardState: hardState,
        log: log,
        termStarts: termStarts,
        appliedIndex: applied,
        configurations: [ConfigurationPoint(index: 0, membership: Membership(voters: [7]))]
    )
}

@Suite struct RaftNodeTests {
    /// A leader whose no-op is committed and applied.
    func makeLeader(_ change: (inout RaftNode.Configuration) -> Void = { _ in }) throws -> RaftNode {
        var node = makeNode(change)
        let vote = try #require(node.step(.tick).write)
        let noop = try #require(node.step(.persisted(vote.receipt)).write)
        _ = node.step(.persisted(noop.receipt))
        _ = node.step(.applied(1))
        return node
    }

    func proposal(_ token: UInt64, bytes: Int = 3) -> Proposal {
        Proposal(token: token, payload: [UInt8](repeating: 1, count: bytes))
    }

    @Test func `the only voter stands at the first tick and leads when its vote is durable`() throws {
        var node = makeNode()
        let candidacy = node.step(.tick)
        #expect(candidacy.write == Write(sequence: 1, hardState: HardState(term: 1, vote: 7)))
        #expect(candidacy.roleChange == RoleChange(role: .candidate, term: 1, leader: nil, isReady: false))
        #expect(node.step(.tick).write == nil && node.role == .candidate)

        let victory = node.step(.persisted(try #require(candidacy.write).receipt))
        #expect(victory.write?.entries == [Entry(index: 1, term: 1, kind: .noop)])
        #expect(victory.roleChange == RoleChange(role: .leader(firstIndex: 1), term: 1, leader: 7, isReady: false))
        #expect(victory.committed == nil && !node.isReady)

        let ready = node.step(.persisted(try #require(victory.write).receipt))
        #expect(ready.committed?.entries == [Entry(index: 1, term: 1, kind: .noop)])
        #expect(node.isReady && node.commitIndex == 1)
    }

    @Test func `a receipt for an earlier write does not elect`() throws {
        var node = makeNode(hardState: HardState(term: 4, vote: 7))
        let write = try #require(node.step(.tick).write)
        #expect(node.step(.persisted(Receipt(sequence: write.sequence - 1))).write == nil)
        #expect(node.role == .candidate)
    }

    @Test func `entries of earlier terms commit only with one of its own term`() throws {
        let log = LogExtent(base: LogPosition(index: 2, term: 1), last: LogPosition(index: 9, term: 3))
        var node = makeNode(
            hardState: HardState(term: 3, vote: 7, commit: 5), log: log,
            termStarts: [LogPosition(index: 6, term: 3)], applied: 4)
        let start = node.step(.tick)
        // The hint names what was committed before: that much may be applied at once.
        #expect(start.committed == Committed(fromLog: 5..<6, entries: []))
        let victory = node.step(.persisted(try #require(start.write).receipt))
        #expect(node.durableIndex == 9 && node.commitIndex == 5 && victory.committed == nil)
        let ready = node.step(.persisted(try #require(victory.write).receipt))
        #expect(ready.committed == Committed(fromLog: 6..<10, entries: [Entry(index: 10, term: 4, kind: .noop)]))
        #expect(ready.committed?.indexes == 6..<11)
    }

    @Test func `a receipt with another term at the index, or beyond the log, counts for nothing`() throws {
        var node = try makeLeader()
        _ = node.step(.propose([proposal(1), proposal(2)]))
        for stale in [(2, 0), (3, 2), (4, 1), (99, 1)] as [(UInt64, UInt64)] {
            let receipt = Receipt(last: LogPosition(index: stale.0, term: stale.1))
            #expect(node.step(.persisted(receipt)).committed == nil, "\(receipt)")
        }
        #expect(node.commitIndex == 1)
        let first = node.step(.persisted(Receipt(last: LogPosition(index: 2, term: 1))))
        #expect(first.committed?.indexes == 2..<3)
        #expect(node.step(.persisted(Receipt(last: LogPosition(index: 2, term: 1)))).committed == nil)
    }

    @Test func `proposals before leadership are refused`() {
        var node = makeNode()
        let output = node.step(.propose([proposal(5)]))
        #expect(output.refused == [Refused(token: 5, reason: .notLeader(leader: nil))])
        #expect(output.write == nil && output.accepted.isEmpty)
    }

    @Test func `bounds refuse with their reason and open again when entries are applied`() throws {
        var node = try makeLeader {
            $0.unappliedEntriesMax = 2
            $0.unappliedBytesMax = 300
            $0.entryBytesMax = 150
        }
        let tooLarge = node.step(.propose([proposal(1, bytes: 151)]))
        #expect(tooLarge.refused == [Refused(token: 1, reason: .tooLarge(bytes: 151, limit: 150))])
        let output = node.step(.propose([proposal(2, bytes: 150), proposal(3, bytes: 150), proposal(4), proposal(5)]))
        #expect(output.accepted.map(\.token) == [2, 4])
        #expect(
            output.refused == [
                Refused(token: 3, reason: .busyBytes(limit: 300)), Refused(token: 5, reason: .busyEntries(limit: 2)),
            ]
        )
        let write = try #require(output.write)
        #expect(write.entries.map(\.index) == [2, 3])
        _ = node.step(.persisted(write.receipt))
        #expect(node.step(.propose([proposal(6)])).accepted.isEmpty)
        _ = node.step(.applied(3))
        #expect(node.step(.propose([proposal(7, bytes: 150)])).accepted.map(\.token) == [7])
    }

    @Test func `the commit hint rides along with the next entries`() throws {
        var node = try makeLeader()
        let write = try #require(node.step(.propose([proposal(1)])).write)
        #expect(write.hardState == HardState(term: 1, vote: 7, commit: 1))
        #expect(node.step(.propose([proposal(2)])).write?.hardState == nil)
    }
}
