// SPDX-License-Identifier: Apache-2.0
import Orchestrator
import Raft
import Store
import Testing

@testable import Daemon

@Suite struct ProposalsTests {
    private func applied(_ index: UInt64, term: UInt64) -> NodeCore.AppliedEntry {
        NodeCore.AppliedEntry(position: LogPosition(index: index, term: term), result: nil)
    }

    private func isLost(_ outcome: Proposals.Outcome) -> Bool { if case .lost = outcome { true } else { false } }

    @Test func `a change of a leader of the past is given up when the log goes on without it`() async {
        let proposals = Proposals()
        proposals.applied([applied(4, term: 1)])
        let waiting = Task { await proposals.result(at: LogPosition(index: 9, term: 1), deadline: .max) }
        let other = Task { await proposals.result(at: LogPosition(index: 7, term: 2), deadline: .max) }
        #expect(await eventually { proposals.waiting == 2 })
        proposals.applied([applied(5, term: 1)])
        #expect(proposals.waiting == 2)
        // The next leader's first entry: whatever stands at 9 one day, it is not of term 1.
        proposals.applied([applied(6, term: 2)])
        #expect(isLost(await waiting.value))
        #expect(isLost(await proposals.result(at: LogPosition(index: 8, term: 1), deadline: .max)))
        // What the new one has placed goes on waiting.
        #expect(proposals.waiting == 1)
        proposals.close()
        _ = await other.value
    }

    @Test func `results of the newest entries are found, whatever came before them`() async {
        let proposals = Proposals()
        func outcome(_ index: UInt64) async -> Proposals.Outcome {
            await proposals.result(at: LogPosition(index: index, term: 1), deadline: .max)
        }
        // Begins anywhere, jumps over what a snapshot held, and goes once around.
        let first: UInt64 = 70_003
        proposals.applied((first..<first + 10).map { applied($0, term: 1) })
        #expect(isLost(await outcome(first + 3)), "an entry without a result")
        #expect(isInDoubt(await outcome(first - 1)), "not of this run")
        proposals.replaced(through: first + 500)
        #expect(isInDoubt(await outcome(first + 3)))
        let next = first + 501
        let last = next + UInt64(Proposals.recentMax) + 5
        proposals.applied((next...last).map { applied($0, term: 1) })
        #expect(isInDoubt(await outcome(next + 5)), "another took its place")
        #expect(isLost(await outcome(next + 6)))
        #expect(isLost(await outcome(last)))
        // A change of the term it was not agreed in lies before it, too.
        proposals.replaced(through: 40, isOtherHistory: true)
        proposals.applied([applied(41, term: 1)])
        #expect(isLost(await outcome(41)))
    }

    private func isInDoubt(_ outcome: Proposals.Outcome) -> Bool { if case .inDoubt = outcome { true } else { false } }

    @Test func `the largest change that is taken fits a message and the log`() throws {
        let entry = Entry(
            index: 1, term: 1, kind: .command, payload: [UInt8](repeating: 1, count: CoreOwner.entryBytesMax))
        let append = Append(previous: .origin, entries: [entry], commit: 0)
        #expect(
            MessageCodec.encodedBytes(of: Message(from: 1, to: 2, term: 1, body: .append(append)))
                <= MessageCodec.messageBytesMax)
        try OfflineTests.withDirectory { path in
            let log = try LogFile(directory: try POSIXLogDirectory(path: path + "/log"), minimumIndex: 0)
            let writer = try LogWriter(log: log) { _ in }
            #expect(throws: Never.self) { try writer.submit(Write(sequence: 1, entries: [entry])) }
            writer.shutdown()
        }
    }
}
