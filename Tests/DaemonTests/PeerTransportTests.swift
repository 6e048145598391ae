// SPDX-License-Identifier: Apache-2.0
import Foundation
import NIOCore
import Raft
import Store
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

    @Test func `what is committed, told alone, arrives all the same, and before what was sent after it`() async throws {
        try await withPeers { world in
            let (a, b) = (try await world.member(1, "a"), try await world.member(2, "b"))
            try world.introduce(a, b)
            try await connected(a, b)
            var sent: [Message] = []
            for round in UInt64(1)...30 {
                // Alone, one after the other, with something behind it, and to one that has just asked.
                var next = [Message(from: 1, to: 2, term: 1, body: .commit(round))]
                if round % 3 == 0 { next.append(Message(from: 1, to: 2, term: 1, body: .commit(round + 1))) }
                if round % 5 == 0 { next.append(heartbeat(1, 2, round: round)) }
                if round % 7 == 0 { _ = try await b.transport.forward([1], to: 1, deadline: .seconds(20)) }
                for message in next { a.transport.send([message]) }
                sent += next
                if round % 2 == 0 { try await eventually("they arrive") { b.recorder.messages.count == sent.count } }
            }
            try await eventually("all arrive") { b.recorder.messages.count >= sent.count }
            #expect(b.recorder.messages == sent)
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

    // MARK: - Connections that come and go

    @Test func `a member that restarts is connected again, and its loss was told`() async throws {
        try await withPeers { world in
            let (a, b) = (try await world.member(1, "a"), try await world.member(2, "b"))
            try world.introduce(a, b)
            try await connected(a, b)
            let port = try #require(b.transport.port)
            await b.transport.stop()
            try await eventually("the loss is told") { a.recorder.disconnected.contains(2) }
            #expect(a.transport.status().allSatisfy { !$0.isHeard })
            // While it is away the newest few messages are kept, the others are lost and counted.
            a.transport.send((1...200).map { heartbeat(1, 2, round: $0) })
            #expect(a.transport.status()[0].messagesDropped >= 100)
            let again = try await world.member(2, "b", port: port)
            again.transport.replacePeers([try a.peer()], removed: [])
            try await connected(a, again)
            a.transport.send([heartbeat(1, 2, round: 1_000)])
            try await eventually("messages flow") { again.recorder.messages.last == heartbeat(1, 2, round: 1_000) }
            let rounds = again.recorder.messages.compactMap { message -> UInt64? in
                if case .heartbeat(let heartbeat) = message.body { heartbeat.round } else { nil }
            }
            #expect(rounds == rounds.sorted())
        }
    }

    @Test func `a peer that does not answer pings is given up`() async throws {
        try await withPeers { world in
            let a = try await world.member(1, "a")
            let raw = RawPeer { heard in
                guard heard.kind == .hello else { return [] }
                return frame(.welcome) {
                    Welcome(version: 1, from: 2, incarnation: 5, clusterID: "test").encode(into: &$0)
                }
            }
            let (port, listener) = try await raw.listen(
                RawPeer.Credentials(world.authority, world.authority.issue("b")))
            defer { listener.close(promise: nil) }
            a.transport.replacePeers(
                [Peer(id: 2, name: "b", address: PeerAddress(host: "127.0.0.1", port: port))], removed: [])
            try await eventually("it is connected") { a.transport.status()[0].isConnected }
            try await eventually("it is given up") { a.recorder.disconnected.contains(2) }
            #expect(a.recorder.logged("nothing was heard for 4 pings"))
            #expect(raw.frames.contains { $0.kind == .ping })
        }
    }

    @Test func `addresses and members change while it runs`() async throws {
        try await withPeers { world in
            let (a, b) = (try await world.member(1, "a"), try await world.member(2, "b"))
            a.transport.replacePeers([try b.peer(port: 1)], removed: [])
            b.transport.replacePeers([try a.peer()], removed: [])
            try await eventually("b reaches a") { b.transport.status()[0].isConnected }
            #expect(!a.transport.status()[0].isConnected)
            a.transport.replacePeers([try b.peer()], removed: [])
            try await connected(a, b)
            let c = try await world.member(3, "c")
            try world.introduce(a, b, c)
            try await connected(a, b, c)
            #expect(a.recorder.disconnected.isEmpty && b.recorder.disconnected.isEmpty)
        }
    }

    @Test func `new certificates are used for new connections`() async throws {
        try await withPeers { world in
            let issued = try await world.authority.issue("a")
            let a = try await world.member(1, "a", certificate: issued)
            let before = a.transport.certificateExpiry
            // Not good: what is in use stays.
            try "nothing".write(toFile: issued.certificate, atomically: true, encoding: .utf8)
            await #expect(throws: DaemonError.self) { try await a.transport.reloadCertificates() }
            #expect(a.transport.certificateExpiry == before)
            _ = try await world.authority.issue("a", validTo: 999_999)
            try await a.transport.reloadCertificates()
            #expect(a.transport.certificateExpiry > before)
            let b = try await world.member(2, "b")
            try world.introduce(a, b)
            try await connected(a, b)
        }
    }

    // MARK: - Requests

    @Test func `a request that cannot be sent says that nothing was done`() async throws {
        try await withPeers { world in
            let a = try await world.member(1, "a")
            a.transport.replacePeers(
                [Peer(id: 2, name: "b", address: PeerAddress(host: "127.0.0.1", port: 1))], removed: [])
            let refused = await #expect(throws: PeerError.self) {
                try await a.transport.forward([1], to: 2, deadline: .seconds(10))
            }
            #expect(refused?.code == .notConnected && refused?.isWithoutEffect == true)
            let stranger = await #expect(throws: PeerError.self) {
                try await a.transport.forward([1], to: 9, deadline: .seconds(10))
            }
            #expect(stranger?.code == .unknownPeer)
            let large = await #expect(throws: PeerError.self) {
                try await a.transport.forward(Array(repeating: 0, count: 8 << 20 + 1), to: 2, deadline: .seconds(1))
            }
            #expect(large?.code == .tooLarge)
        }
    }

    @Test func `a request ends by its deadline, by its caller, or with the connection`() async throws {
        try await withPeers { world in
            let begun = Mutex(0)
            let cancelled = Mutex(0)
            let a = try await world.member(1, "a")
            let b = try await world.member(2, "b") { events in
                events.request = { _, _ in
                    begun.withLock { $0 += 1 }
                    // Until it is cancelled.
                    try? await Task.sleep(for: .seconds(600))
                    cancelled.withLock { $0 += 1 }
                    return []
                }
            }
            try world.introduce(a, b)
            // The first connection is made within it.
            let late = await #expect(throws: PeerError.self) {
                try await a.transport.forward([1], to: 2, deadline: .seconds(3))
            }
            #expect(late?.code == .timeout && late?.isWithoutEffect == false)
            try await eventually("the work ends, too") { cancelled.withLock { $0 } == 1 }

            let task = Task { try await a.transport.forward([1], to: 2, deadline: .seconds(600)) }
            try await eventually("it is begun") { begun.withLock { $0 } == 2 }
            task.cancel()
            let given = await #expect(throws: PeerError.self) { try await task.value }
            #expect(given?.code == .cancelled)

            let lost = Task { try await a.transport.forward([1], to: 2, deadline: .seconds(600)) }
            try await eventually("it is begun") { begun.withLock { $0 } == 3 }
            await b.transport.stop()
            let unknown = await #expect(throws: PeerError.self) { try await lost.value }
            #expect(unknown?.code == .connectionLost && unknown?.isWithoutEffect == false)
            try await eventually("no work is left") { cancelled.withLock { $0 } == 3 }
        }
    }

    @Test func `requests beyond the bounds are refused as busy, here and there`() async throws {
        try await withPeers { world in
            var limits = PeerWorld.quick
            limits.requestsMax = 5
            limits.servedMax = 3
            let release = AsyncStream.makeStream(of: Void.self)
            let running = Mutex(0)
            let a = try await world.member(1, "a", limits: limits)
            let b = try await world.member(2, "b", limits: limits) { events in
                events.request = { _, bytes in
                    running.withLock { $0 += 1 }
                    for await _ in release.stream {}
                    return bytes
                }
            }
            try world.introduce(a, b)
            let codes = try await withThrowingTaskGroup(of: PeerError.Code?.self) { group in
                for number in 0..<5 {
                    group.addTask {
                        do {
                            _ = try await a.transport.forward([UInt8(number)], to: 2, deadline: .seconds(30))
                            return nil
                        } catch let error as PeerError {
                            return error.code
                        }
                    }
                }
                var codes: [PeerError.Code?] = []
                // Two of five are refused there.
                for _ in 0..<2 { if let code = try await group.next() { codes.append(code) } }
                try await eventually("three are worked on") { running.withLock { $0 } == 3 }
                release.continuation.finish()
                while let code = try await group.next() { codes.append(code) }
                return codes
            }
            #expect(codes == [.busy, .busy, nil, nil, nil])
        }
    }

    // MARK: - Snapshots

    @Test func `a snapshot goes on where an earlier attempt ended`() async throws {
        try await withPeers { world in
            let content = (0..<700_000).map { UInt8(truncatingIfNeeded: $0 >> 2) }
            let sink = SnapshotSink(resume: Array(content.prefix(SnapshotChunk.bytesMax * 2)))
            let a = try await world.member(1, "a")
            let b = try await world.member(2, "b") { $0.snapshot = { _, offer in sink.begin(offer) } }
            try world.introduce(a, b)
            let read = Mutex<[UInt64]>([])
            var source = SnapshotSource.of(content)
            let inner = source.read
            source.read = { offset in
                read.withLock { $0.append(offset) }
                return try await inner(offset)
            }
            #expect(try await a.transport.sendSnapshot(source, to: 2) == .accepted)
            #expect(sink.bytes == content)
            #expect(read.withLock { $0 } == [UInt64(SnapshotChunk.bytesMax * 2)])
            // All of it was there already.
            let whole = SnapshotSink(resume: content)
            let c = try await world.member(3, "c") { $0.snapshot = { _, offer in whole.begin(offer) } }
            try world.introduce(a, b, c)
            #expect(try await a.transport.sendSnapshot(.of(content), to: 3) == .accepted)
            #expect(whole.state.withLock { $0.finished } == 1)
        }
    }

    @Test func `a receiver says no, before or after`() async throws {
        try await withPeers { world in
            let sink = SnapshotSink(verdict: .refused("the digest is wrong"))
            let a = try await world.member(1, "a")
            let b = try await world.member(2, "b")
            let c = try await world.member(3, "c") { $0.snapshot = { _, offer in sink.begin(offer) } }
            try world.introduce(a, b, c)
            let content = [UInt8](repeating: 3, count: 100_000)
            #expect(
                try await a.transport.sendSnapshot(.of(content), to: 2) == .refused("this member takes no snapshots"))
            #expect(try await a.transport.sendSnapshot(.of(content), to: 3) == .refused("the digest is wrong"))
        }
    }

    @Test func `a snapshot that stalls or breaks is given up on both sides`() async throws {
        try await withPeers { world in
            var limits = PeerWorld.quick
            limits.snapshotStall = .milliseconds(400)
            let sink = SnapshotSink()
            let a = try await world.member(1, "a", limits: limits)
            let b = try await world.member(2, "b", limits: limits) { $0.snapshot = { _, offer in sink.begin(offer) } }
            try world.introduce(a, b)
            var stalling = SnapshotSource.of([UInt8](repeating: 1, count: 2_000_000))
            let inner = stalling.read
            stalling.read = { offset in
                if offset > 1_000_000 { try await Task.sleep(for: .seconds(2)) }
                return try await inner(offset)
            }
            let stalled = await #expect(throws: PeerError.self) {
                try await a.transport.sendSnapshot(stalling, to: 2)
            }
            #expect(stalled != nil)
            try await eventually("the receiver knows") { sink.state.withLock { $0.aborted } == 1 }
            var broken = SnapshotSource.of([UInt8](repeating: 1, count: 2_000_000))
            broken.read = { _ in throw TestFailure("the disk is gone") }
            await #expect(throws: TestFailure.self) { try await a.transport.sendSnapshot(broken, to: 2) }
            try await eventually("the receiver knows") { sink.state.withLock { $0.aborted } == 2 }
            // Nothing of either holds a place: the next ones go through.
            for _ in 0..<3 {
                #expect(try await a.transport.sendSnapshot(.of([1, 2, 3]), to: 2) == .accepted)
            }
        }
    }

    @Test func `two snapshots go out at once, a third is refused`() async throws {
        try await withPeers { world in
            let release = AsyncStream.makeStream(of: Void.self)
            let a = try await world.member(1, "a")
            let sink = SnapshotSink()
            let b = try await world.member(2, "b") { $0.snapshot = { _, offer in sink.begin(offer) } }
            try world.introduce(a, b)
            let begun = Mutex(0)
            var waiting = SnapshotSource.of([1, 2, 3])
            let inner = waiting.read
            waiting.read = { offset in
                begun.withLock { $0 += 1 }
                for await _ in release.stream {}
                return try await inner(offset)
            }
            let source = waiting
            let running = (0..<2).map { _ in Task { try await a.transport.sendSnapshot(source, to: 2) } }
            try await eventually("two are under way") { begun.withLock { $0 } == 2 }
            let third = await #expect(throws: PeerError.self) { try await a.transport.sendSnapshot(source, to: 2) }
            #expect(third?.code == .busy)
            release.continuation.finish()
            for task in running { #expect(try await task.value == .accepted) }
        }
    }

    /// The reason for streams of their own.
    @Test func `heartbeats are not delayed while 50 MB of a snapshot stream`() async throws {
        try await withPeers { world in
            let arrived = Mutex<[UInt64: ContinuousClock.Instant]>([:])
            let counter = CountingSink()
            let a = try await world.member(1, "a")
            let b = try await world.member(2, "b") { events in
                events.snapshot = { _, _ in counter }
                events.messages = { messages in
                    let now = ContinuousClock.now
                    for case .heartbeat(let heartbeat) in messages.map(\.body) {
                        arrived.withLock { $0[heartbeat.round] = now }
                    }
                }
            }
            try world.introduce(a, b)
            try await connected(a, b)
            let chunk = [UInt8](repeating: 9, count: SnapshotChunk.bytesMax)
            var source = SnapshotSource.of([])
            source.offer.bytes = 50_000_000
            source.read = { offset in
                SnapshotChunk(offset: offset, bytes: Array(chunk.prefix(Int(min(50_000_000 - offset, 262_144)))))
            }
            let snapshot = source
            let began = ContinuousClock.now
            let stream = Task { try await a.transport.sendSnapshot(snapshot, to: 2) }
            var sent: [UInt64: ContinuousClock.Instant] = [:]
            var round: UInt64 = 0
            while counter.bytes.withLock({ $0 }) < 50_000_000 {
                round += 1
                sent[round] = ContinuousClock.now
                a.transport.send([heartbeat(1, 2, round: round)])
                try await ContinuousClock().sleep(for: .milliseconds(5))
                guard ContinuousClock.now - began < .seconds(60) else {
                    throw TestFailure("the snapshot takes too long")
                }
            }
            #expect(try await stream.value == .accepted)
            let last = round
            try await eventually("all arrive") { arrived.withLock { $0.count } == Int(last) }
            let delays = sent.compactMap { round, at in arrived.withLock { $0[round] }.map { $0 - at } }.sorted()
            let p99 = delays[delays.count * 99 / 100]
            #expect(delays.count > 50)
            #expect(p99 < .milliseconds(250), "p50 \(delays[delays.count / 2]), p99 \(p99)")
            // Paced: 20 MB a second.
            #expect(ContinuousClock.now - began > .seconds(2))
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
                return SnapshotChunk(offset: offset, bytes: Array(content[Int(offset)..<end]))
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
        guard chunk.isIntact else { throw TestFailure("checksum") }
        state.withLock { $0.bytes += chunk.bytes }
    }

    func finish() async throws -> SnapshotVerdict {
        state.withLock { $0.finished += 1 }
        return verdict
    }

    func abort() async { state.withLock { $0.aborted += 1 } }
}

/// Counts what comes and forgets it.
final class CountingSink: SnapshotReception {
    let bytes = Mutex(0)
    var resumeOffset: UInt64 { 0 }
    func write(_ chunk: SnapshotChunk) async throws { bytes.withLock { $0 += chunk.bytes.count } }
    func finish() async throws -> SnapshotVerdict { .accepted }
    func abort() async {}
}
