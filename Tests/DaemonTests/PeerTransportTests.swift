// SPDX-License-Identifier: Apache-2.0
import NIOCore
import Raft
import Synchronization
import TestSupport
import Testing

@testable import Daemon

@Suite(.serialized, .enabled(if: TestAuthority.isAvailable, "needs openssl"))
struct PeerTransportTests {
    @Test func `messages arrive in order, both ways`() async throws {
        try await withPeers { world in
            let (a, b) = (try await world.member(1, "a"), try await world.member(2, "b"))
            try world.introduce(a, b)
            try await connected(a, b)
            a.transport.send((1...500).map { heartbeat(1, 2, round: $0) })
            b.transport.send([heartbeat(2, 1, round: 7)])
            try await eventually("everything arrives") {
                b.recorder.messages.count == 500 && a.recorder.messages.count == 1
            }
            #expect(b.recorder.messages == (1...500).map { heartbeat(1, 2, round: $0) })
            #expect(a.recorder.messages == [heartbeat(2, 1, round: 7)])
            // Together, not one by one.
            #expect(b.recorder.seen.withLock { $0.batches } < 50)
            let status = a.transport.status()[0]
            #expect(status.messagesSent == 500 && status.messagesDropped == 0 && status.waitingBytes == 0)
            try await eventually("a ping was answered") { a.transport.status()[0].roundTripMicroseconds != nil }
        }
    }

    @Test func `a message as large as one may be arrives`() async throws {
        try await withPeers { world in
            let (a, b) = (try await world.member(1, "a"), try await world.member(2, "b"))
            try world.introduce(a, b)
            try await connected(a, b)
            let entry = Entry(index: 1, term: 1, kind: .command, payload: Array(repeating: 7, count: 1 << 20))
            let message = Message(
                from: 1, to: 2, term: 1, body: .append(Append(previous: .origin, entries: [entry], commit: 0)))
            a.transport.send([message, heartbeat(1, 2)])
            try await eventually("both arrive") { b.recorder.messages.count == 2 }
            #expect(b.recorder.messages[0] == message)
        }
    }

    @Test func `requests are answered, each with its own answer`() async throws {
        try await withPeers { world in
            let (a, b) = (try await world.member(1, "a"), try await world.member(2, "b"))
            try world.introduce(a, b)
            let answers = try await withThrowingTaskGroup(of: (Int, [UInt8]).self) { group in
                for number in 0..<200 {
                    group.addTask {
                        (
                            number,
                            try await a.transport.forward(
                                Array("\(number)".utf8), to: 2, deadline: .seconds(10))
                        )
                    }
                }
                return try await group.reduce(into: [:]) { $0[$1.0] = String(decoding: $1.1, as: UTF8.self) }
            }
            #expect(answers.count == 200)
            for (number, answer) in answers { #expect(answer == "1:\(number)") }
            let large = [UInt8](repeating: 1, count: 8 << 20)
            await #expect(throws: Never.self) {
                // The answer is longer than the request, and than what may be sent.
                _ = try? await a.transport.forward(large, to: 2, deadline: .seconds(20))
                let back = try await b.transport.forward(Array(large.dropLast(8)), to: 1, deadline: .seconds(20))
                #expect(back.count == large.count - 6)
            }
        }
    }

    @Test func `a snapshot arrives whole and is acknowledged`() async throws {
        try await withPeers { world in
            let sink = SnapshotSink()
            let a = try await world.member(1, "a")
            let b = try await world.member(2, "b") { $0.snapshot = { _, offer in sink.begin(offer) } }
            try world.introduce(a, b)
            let content = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
            let verdict = try await a.transport.sendSnapshot(.of(content), to: 2)
            #expect(verdict == .accepted)
            #expect(sink.bytes == content)
            #expect(sink.offers == [SnapshotSource.of(content).offer])
        }
    }
}

extension SnapshotSource {
    static func of(_ content: [UInt8]) -> SnapshotSource {
        let meta = SnapshotMeta(
            position: LogPosition(index: 10, term: 2),
            configuration: ConfigurationPoint(index: 3, membership: Membership(voters: [1, 2], removed: [9])))
        return SnapshotSource(
            offer: SnapshotOffer(term: 3, meta: meta, bytes: UInt64(content.count), manifest: Array("manifest".utf8)),
            read: { offset in
                let end = min(content.count, Int(offset) + SnapshotChunk.bytesMax)
                return SnapshotChunk(offset: offset, checksum: UInt32(offset), bytes: Array(content[Int(offset)..<end]))
            })
    }
}

/// Takes snapshots into memory.
final class SnapshotSink: SnapshotReception {
    struct State {
        var offers: [SnapshotOffer] = []
        var bytes: [UInt8] = []
        var aborted = 0
        var finished = 0
    }

    let state = Mutex(State())
    let resumeOffset: UInt64
    let verdict: SnapshotVerdict

    init(resume: [UInt8] = [], verdict: SnapshotVerdict = .accepted) {
        resumeOffset = UInt64(resume.count)
        self.verdict = verdict
        state.withLock { $0.bytes = resume }
    }

    var offers: [SnapshotOffer] { state.withLock { $0.offers } }
    var bytes: [UInt8] { state.withLock { $0.bytes } }

    func begin(_ offer: SnapshotOffer) -> SnapshotSink {
        state.withLock { $0.offers.append(offer) }
        return self
    }

    func write(_ chunk: SnapshotChunk) async throws {
        guard chunk.checksum == UInt32(chunk.offset) else { throw TestFailure("checksum") }
        state.withLock { $0.bytes += chunk.bytes }
    }

    func finish() async throws -> SnapshotVerdict {
        state.withLock { $0.finished += 1 }
        return verdict
    }

    func abort() async { state.withLock { $0.aborted += 1 } }
}
