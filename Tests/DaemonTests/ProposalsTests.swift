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
