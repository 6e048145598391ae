// SPDX-License-Identifier: Apache-2.0
import Logging
import Model
import Raft
import Store
import Synchronization
import TestSupport
import Testing

@testable import Daemon

/// What a member tells those who follow its log from outside.
@Suite struct EntryFeedTests {
    /// A log of its own, filled without consensus. It ticks as its owner would, so that no question waits for ever.
    private final class Source: Sendable {
        let writer: LogWriter
        let proposals = Proposals()
        let feed: EntryFeed
        private let ticks: Task<Void, Never>

        init(_ path: String, base: LogPosition = .origin, entries: [Entry]) async throws {
            let log = try LogFile(directory: try POSIXLogDirectory(path: path), minimumIndex: 0)
            if base != .origin { try log.reset(to: base) }
            writer = try LogWriter(log: log) { _ in }
            feed = EntryFeed(writer: writer, proposals: proposals)
            ticks = Task { [proposals] in
                while !Task.isCancelled {
                    proposals.expire(now: Clock.monotonic())
                    try? await Task.sleep(for: .milliseconds(20))
                }
            }
            if !entries.isEmpty {
                try writer.submit(Write(sequence: 1, hardState: HardState(term: 9), entries: entries))
            }
        }

        deinit { ticks.cancel() }
    }

    private static func entries(_ indexes: ClosedRange<UInt64>, term: UInt64 = 4, bytes: Int = 8) -> [Entry] {
        indexes.map {
            Entry(index: $0, term: term, kind: .command, payload: [UInt8](repeating: UInt8($0 % 251), count: bytes))
        }
    }

    private func at(_ index: UInt64, _ term: UInt64 = 4) -> LogPosition { LogPosition(index: index, term: term) }

    @Test func `only what is applied is told, in pieces of bounded size`() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let all = Self.entries(1...9, bytes: 400_000)
        let source = try await Source(directory.path + "/log", entries: all)
        defer { source.writer.shutdown() }
        source.proposals.replaced(through: 7)
        var followed: [Entry] = []
        var pieces = 0
        while followed.count < 7, pieces < 10 {
            let outcome = await source.feed.outcome(after: followed.last?.position ?? .origin, waitMilliseconds: 0)
            guard case .entries(let entries) = outcome, !entries.isEmpty else {
                Issue.record("\(outcome)")
                return
            }
            #expect(entries.reduce(0) { $0 + $1.footprintBytes } <= EntryFeed.answerBytesMax)
            followed += entries
            pieces += 1
        }
        #expect(followed == Array(all.prefix(7)) && pieces == 4)
        // Two more are in the log and may yet be lost.
        #expect(await source.feed.outcome(after: at(3), waitMilliseconds: 0) == .entries(Array(all[3..<5])))
    }

    @Test func `an entry above the size of an answer comes alone`() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let all = Self.entries(1...3, bytes: EntryFeed.answerBytesMax + 1)
        let source = try await Source(directory.path + "/log", entries: all)
        defer { source.writer.shutdown() }
        source.proposals.replaced(through: 3)
        #expect(await source.feed.outcome(after: at(1), waitMilliseconds: 0) == .entries([all[1]]))
    }

    @Test func `a question waits until something is applied`() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let all = Self.entries(1...3)
        let source = try await Source(directory.path + "/log", entries: all)
        defer { source.writer.shutdown() }
        source.proposals.replaced(through: 2)
        async let asked = source.feed.outcome(after: at(2), waitMilliseconds: 2_000)
        source.proposals.replaced(through: 3)
        #expect(await asked == .entries([all[2]]))
        // Nothing comes: the owner's tick ends the wait.
        async let late = source.feed.outcome(after: at(3), waitMilliseconds: .max)
        let proposals = source.proposals
        let over = Clock.monotonic() + Int64(EntryFeed.waitMillisecondsMax) + 1_000
        let ticks = Task {
            while !Task.isCancelled {
                proposals.expire(now: over)
                await Task.yield()
            }
        }
        #expect(await late == .entries([]))
        async let ahead = source.feed.outcome(after: at(5), waitMilliseconds: 1)
        #expect(await ahead == .behind)
        ticks.cancel()
    }

    @Test func `a follower from before the log's beginning, or of another history, needs a snapshot`() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let all = Self.entries(101...105, term: 7)
        let source = try await Source(directory.path + "/log", base: at(100, 6), entries: all)
        defer { source.writer.shutdown() }
        source.proposals.replaced(through: 105)
        #expect(await source.feed.outcome(after: .origin, waitMilliseconds: 0) == .compacted)
        #expect(await source.feed.outcome(after: at(99, 6), waitMilliseconds: 0) == .compacted)
        #expect(await source.feed.outcome(after: at(100, 6), waitMilliseconds: 0) == .entries(all))
        #expect(await source.feed.outcome(after: at(100, 5), waitMilliseconds: 0) == .diverged)
        #expect(await source.feed.outcome(after: at(103, 6), waitMilliseconds: 0) == .diverged)
        // Also one that has all there is.
        #expect(await source.feed.outcome(after: at(105, 6), waitMilliseconds: 2_000) == .diverged)
        #expect(await source.feed.outcome(after: at(.max, 7), waitMilliseconds: 2_000) == .behind)
    }

    @Test func `an answer is read only as an answer to its question`() throws {
        let entries = Self.entries(6...8)
        let answer = EntryAnswer(.entries(entries), term: 9, leader: 3, appliedIndex: 8)
        let bytes = answer.encoded()
        #expect(EntryAnswer(decoding: bytes, after: at(5)) == answer)
        #expect(EntryAnswer(decoding: bytes, after: at(4)) == nil, "a gap")
        #expect(EntryAnswer(decoding: bytes, after: at(5, 5)) == nil, "terms that fall")
        #expect(EntryAnswer(decoding: bytes, after: at(.max)) == nil)
        let early = EntryAnswer(.entries(entries), term: 9, leader: nil, appliedIndex: 7)
        #expect(EntryAnswer(decoding: early.encoded(), after: at(5)) == nil, "more than is applied")
        for outcome in [EntryAnswer.Outcome.compacted, .diverged, .behind, .entries([])] {
            let plain = EntryAnswer(outcome, term: 1, leader: nil, appliedIndex: 2)
            #expect(EntryAnswer(decoding: plain.encoded(), after: .origin) == plain)
        }
        // Whole entries may be missing at the end, nothing else.
        let whole = Set([25, 25 + 29, 25 + 58])
        for length in 0..<bytes.count {
            let part = EntryAnswer(decoding: Array(bytes.prefix(length)), after: at(5))
            #expect((part != nil) == whole.contains(length), "\(length)")
        }
        let request = PeerRequest.entries(after: at(5), waitMilliseconds: 700)
        #expect(PeerRequest(decoding: request.encoded()) == request)
        for length in 0..<request.encoded().count {
            #expect(PeerRequest(decoding: Array(request.encoded().prefix(length))) != request)
        }
    }

    @Test func `a state made of the answers of a real member equals the member's`() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let membership = Membership(voters: [1])
        let state = try StateMachine(path: directory.path + "/state.sqlite", initialMembership: membership)
        let core = try CoreOwner(
            node: NodeID("nodea"), member: 1, state: state, dataDirectory: directory.path, hasLog: false, seed: 1,
            log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let failed = Mutex<String?>(nil)
        core.start(
            CoreOwner.Sinks(
                perform: { _ in }, publish: { _, _ in }, inForce: { _ in }, release: { _ in }, nodes: {},
                fail: { error in failed.withLock { $0 = error.message } }))
        defer { core.stop() }
        // Tests beside it may hold all threads of tasks for ten seconds and more.
        try await eventually("a leader", within: .seconds(60)) { core.status.consensus.isReady }
        for number in 0..<20 {
            let config = ObjectKey(namespace: "default", name: "c\(number)")
            _ = try await core.propose(
                .putConfig(PutConfig(config: config, data: "\(number)", condition: .none)), deadline: .seconds(5))
        }
        let copy = try StateMachine(path: nil, initialMembership: membership)
        var position = LogPosition.origin
        let goal = core.proposals.appliedIndex
        while position.index < goal {
            let request = PeerRequest.entries(after: position, waitMilliseconds: 1_000).encoded()
            let bytes = try #require(await core.answer(request, from: 77, call: { _ in [] }, node: { _ in [] }))
            let answer = try #require(EntryAnswer(decoding: bytes, after: position))
            #expect(answer.leader == 1 && answer.term > 0)
            guard case .entries(let entries) = answer.outcome, let last = entries.last else {
                Issue.record("\(answer)")
                return
            }
            _ = try copy.apply(try entries.map { try StateMachine.Input($0) })
            position = last.position
        }
        @Sendable func all(_ view: StateView) throws -> (MetaRow, [ConfigView]) {
            (try view.meta(), try view.configs(namespace: nil, prefix: ""))
        }
        let (ours, theirs) = (try await copy.read { try all($0) }, try await state.read { try all($0) })
        #expect(ours.0 == theirs.0 && ours.1 == theirs.1 && ours.1.count == 20)
        #expect(failed.withLock { $0 } == nil)
    }
}
