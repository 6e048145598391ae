// SPDX-License-Identifier: Apache-2.0
import Foundation
import NIOCore
import Raft
import Synchronization
import TestSupport
import Testing

@testable import Daemon

/// What no honest member does must not cost this one more than a connection.
@Suite(.serialized, .enabled(if: TestAuthority.isAvailable, "needs openssl"))
struct PeerHostileTests {
    private static let peer = Peer(id: 2, name: "b", address: PeerAddress(host: "127.0.0.1", port: 1))

    private func knowing(_ world: PeerWorld, limits: PeerLimits = PeerWorld.quick) async throws -> TestMember {
        let a = try await world.member(1, "a", limits: limits)
        a.transport.replacePeers([Self.peer], removed: [])
        return a
    }

    /// A connection as member 2, welcomed.
    private func greeted(
        _ world: PeerWorld, _ a: TestMember, _ certificate: TestAuthority.Issued, _ stream: StreamKind = .raft
    ) async throws -> RawPeer {
        let raw = try await RawPeer.dial(a.transport.port, RawPeer.Credentials(world.authority, certificate))
        try await raw.send(hello(2, to: 1, stream))
        try await eventually("a welcome") { raw.frames.contains { $0.kind == .welcome } }
        return raw
    }

    struct Bytes: Sendable, CustomTestStringConvertible {
        var name: String
        var bytes: [UInt8]
        var says: String
        var stream = StreamKind.raft
        var testDescription: String { name }
    }

    private static let gibibyte: UInt32 = 1 << 30

    @Test(arguments: [
        Bytes(name: "1 GiB hello", bytes: frame(1, length: gibibyte), says: "hello frame of 1073741824 bytes"),
        Bytes(name: "message before the hello", bytes: frame(16, length: 10), says: "a message frame where none may"),
        Bytes(name: "kind nobody knows", bytes: frame(200, length: 10), says: "frame of kind 200, unknown"),
        Bytes(name: "HTTP inside TLS", bytes: Array("GET / HTTP/1.1\r\n\r\n".utf8), says: "unknown to this build"),
    ])
    func `before the greeting only a hello is read`(_ item: Bytes) async throws {
        try await withPeers { world in
            let a = try await knowing(world)
            let certificate = try await world.authority.issue("b")
            let raw = try await RawPeer.dial(a.transport.port, RawPeer.Credentials(world.authority, certificate))
            raw.push(item.bytes)
            try await eventually("it is hung up on") { raw.isClosed }
            try await eventually("it is in the log") { a.recorder.logged(item.says) }
        }
    }

    @Test(arguments: [
        Bytes(
            name: "1 GiB message", bytes: frame(16, length: gibibyte),
            says: "message frame of 1073741824 bytes, at most 4194304"),
        Bytes(name: "second hello", bytes: hello(2, to: 1), says: "a hello frame where none may come"),
        Bytes(name: "no message", bytes: frame(.message) { $0.put(UInt64(9)) }, says: "sends what is no message"),
        Bytes(
            name: "message of somebody else",
            bytes: frame(.message) { MessageCodec.encode(heartbeat(3, 1), into: &$0) },
            says: "sends a message from 3 to 1"),
        Bytes(
            name: "message for somebody else",
            bytes: frame(.message) { MessageCodec.encode(heartbeat(2, 3), into: &$0) },
            says: "sends a message from 2 to 3"),
        Bytes(name: "request on the raft stream", bytes: frame(32, length: 12), says: "a request frame where none"),
        Bytes(
            name: "1 GiB request", bytes: frame(32, length: gibibyte), says: "request frame of 1073741824 bytes",
            stream: .forward),
        Bytes(
            name: "request without header", bytes: frame(32, length: 4) + [1, 2, 3, 4], says: "without its header",
            stream: .forward),
        Bytes(
            name: "1 GiB chunk", bytes: frame(50, length: gibibyte), says: "snapshotChunk frame of 1073741824 bytes",
            stream: .snapshot),
        Bytes(
            name: "chunk without offer", bytes: frame(50, length: 13) + [UInt8](repeating: 0, count: 13),
            says: "without an offer", stream: .snapshot),
        Bytes(name: "no offer", bytes: frame(48, length: 3) + [1, 2, 3], says: "cannot be read", stream: .snapshot),
    ])
    func `a frame that may not be ends the connection, and that only`(_ item: Bytes) async throws {
        try await withPeers { world in
            let a = try await knowing(world)
            let certificate = try await world.authority.issue("b")
            let before = try resident()
            let raw = try await greeted(world, a, certificate, item.stream)
            raw.push(item.bytes)
            try await eventually("it is hung up on") { raw.isClosed }
            try await eventually("it is in the log") { a.recorder.logged(item.says) }
            #expect(a.recorder.messages.isEmpty)
            #expect(try resident() < before + 100 << 20, "a header made the member reserve what it announced")
            // The next one is served.
            let honest = try await greeted(world, a, certificate)
            try await honest.send(frame(.message) { MessageCodec.encode(heartbeat(2, 1), into: &$0) })
            try await eventually("it is heard") { a.recorder.messages == [heartbeat(2, 1)] }
        }
    }

    @Test func `garbage and silence instead of TLS are hung up on`() async throws {
        try await withPeers { world in
            var limits = PeerWorld.quick
            limits.handshake = .milliseconds(500)
            let a = try await knowing(world, limits: limits)
            let garbage = try await RawPeer.dial(a.transport.port, nil)
            garbage.push(Array("\u{0}\u{1}garbage instead of a handshake\n".utf8))
            let silent = try await RawPeer.dial(a.transport.port, nil)
            // TLS, and then nothing.
            let mute = try await RawPeer.dial(
                a.transport.port, RawPeer.Credentials(world.authority, world.authority.issue("b")))
            for raw in [garbage, silent, mute] { try await eventually("it is hung up on") { raw.isClosed } }
            try await eventually("both are in the log") {
                a.recorder.logged("does not speak TLS") && a.recorder.logged("did not finish its greeting in time")
            }
        }
    }

    @Test func `a frame cut anywhere gives nothing, and nothing breaks`() async throws {
        try await withPeers { world in
            let a = try await knowing(world)
            let certificate = try await world.authority.issue("b")
            let entry = Entry(index: 1, term: 1, kind: .command, payload: [1, 2, 3])
            let whole = frame(.message) {
                MessageCodec.encode(
                    Message(
                        from: 2, to: 1, term: 1, body: .append(Append(previous: .origin, entries: [entry], commit: 0))),
                    into: &$0)
            }
            for length in stride(from: 0, to: whole.count, by: 7) {
                let raw = try await greeted(world, a, certificate)
                try await raw.send(Array(whole[..<length]))
                raw.close()
                try await eventually("it is gone") { raw.isClosed }
            }
            #expect(a.recorder.messages.isEmpty)
            let raw = try await greeted(world, a, certificate)
            for byte in whole { try await raw.send([byte]) }
            try await eventually("byte for byte it arrives") { a.recorder.messages.count == 1 }
        }
    }

    @Test func `more strangers than may be greeted wait outside`() async throws {
        try await withPeers { world in
            var limits = PeerWorld.quick
            limits.greetingMax = 4
            limits.handshake = .seconds(2)
            let a = try await knowing(world, limits: limits)
            var raws: [RawPeer] = []
            for _ in 0..<12 { raws.append(try await RawPeer.dial(a.transport.port, nil)) }
            try await eventually("eight are hung up on") { raws.count { $0.isClosed } >= 8 }
            try await eventually("the others, too, in time") { raws.allSatisfy { $0.isClosed } }
            _ = try await greeted(world, a, world.authority.issue("b"))
        }
    }

    // MARK: - Peers that do not read

    @Test func `messages for a peer that stops reading are dropped at the bound`() async throws {
        try await withPeers { world in
            var limits = PeerWorld.quick
            limits.raftBytesMax = 4 << 20
            limits.ping = .seconds(60)
            let a = try await world.member(1, "a", limits: limits)
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
            try await eventually("a is connected") { a.transport.status()[0].isConnected }
            try await raw.stopReading()
            let before = try resident()
            // Payloads of their own: what is queued twice is not stored twice.
            for number in 0..<400 {
                let entry = Entry(
                    index: 1, term: 1, kind: .command, payload: Array(repeating: UInt8(number & 255), count: 1 << 20))
                a.transport.send([
                    Message(
                        from: 1, to: 2, term: 1, body: .append(Append(previous: .origin, entries: [entry], commit: 0)))
                ])
            }
            let status = a.transport.status()[0]
            #expect(status.messagesDropped > 300)
            #expect(status.waitingBytes <= 4 << 20)
            #expect(try resident() < before + 100 << 20, "400 MiB were queued")
            raw.close()
            try await eventually("the loss is noticed") { a.recorder.disconnected == [2] }
        }
    }

    @Test func `a peer that asks on and reads no answers is stopped`() async throws {
        try await withPeers { world in
            var limits = PeerWorld.quick
            limits.ping = .seconds(60)
            limits.servedMax = 64
            let a = try await world.member(1, "a", limits: limits) { events in
                events.request = { _, bytes in bytes }
            }
            a.transport.replacePeers([Self.peer], removed: [])
            let raw = try await greeted(world, a, world.authority.issue("b"), .forward)
            try await raw.stopReading()
            let before = try resident()
            let payload = [UInt8](repeating: 1, count: 64 << 10)
            for id in 1...500 where !raw.isClosed {
                let request = frame(.request) {
                    $0.put(UInt64(id))
                    $0.put(UInt32(60_000))
                    $0.put(payload)
                }
                raw.push(request)
            }
            try await eventually("it is stopped", within: .seconds(30)) {
                a.recorder.logged("sends requests and reads no answers")
            }
            // The raw side holds what it could not send; of 31 MiB the member kept a few.
            #expect(try resident() < before + 100 << 20)
            raw.close()
        }
    }
}

/// Memory of this process, in bytes.
private func resident() throws -> Int {
    let fields = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
    guard fields.count > 1, let pages = Int(fields[1]) else { throw TestFailure("cannot read /proc/self/statm") }
    return pages * 4096
}
