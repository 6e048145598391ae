// SPDX-License-Identifier: Apache-2.0
import NIOCore
import NIOSSL
import Raft
import TestSupport
import Testing

@testable import Daemon

/// Whoever does not belong here is told so, and is said once in the log.
@Suite(.serialized, .enabled(if: TestAuthority.isAvailable, "needs openssl"))
struct PeerRefusalTests {
    /// A member `a` that knows `b` by name, and somebody with certificate and hello of the test's choice.
    private func knock(
        _ world: PeerWorld, _ a: TestMember, as certificate: TestAuthority.Issued?, _ bytes: [UInt8]
    ) async throws -> RawPeer {
        let raw = try await RawPeer.dial(a.transport.port, RawPeer.Credentials(world.authority, certificate))
        try await raw.send(bytes)
        return raw
    }

    private func knowing(_ world: PeerWorld, removed: Set<MemberID> = []) async throws -> TestMember {
        let a = try await world.member(1, "a")
        let b = Peer(id: 2, name: "b", address: PeerAddress(host: "127.0.0.1", port: 1))
        a.transport.replacePeers([b], removed: removed)
        return a
    }

    @Test func `a member with everything right is welcome`() async throws {
        try await withPeers { world in
            let a = try await knowing(world)
            let raw = try await knock(world, a, as: world.authority.issue("b"), hello(2, to: 1))
            let welcome = try await eventually("a welcome") {
                raw.frames.first { $0.kind == .welcome }.flatMap { Welcome(decoding: $0.payload.array[...]) }
            }
            #expect(welcome.from == 1 && welcome.clusterID == "test" && welcome.version == 1)
        }
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var hello: [UInt8]
        var code: PeerRefusal.Code
        var says: String
        var certificate = "b"
        var testDescription: String { name }
    }

    static let cases = [
        Case(
            name: "another cluster", hello: hello(2, to: 1, clusterID: "other"), code: .otherCluster,
            says: "cluster `other` speaks to cluster `test`"),
        Case(name: "an unknown member", hello: hello(5, to: 1), code: .notMember, says: "member id 5 is not a member"),
        Case(name: "a removed member", hello: hello(9, to: 1), code: .removed, says: "you were removed"),
        Case(
            name: "a version of the future", hello: hello(2, to: 1, versions: 7...9), code: .version,
            says: "protocol versions 7 to 9 are offered, this member speaks 1 to 1"),
        Case(
            name: "somebody else's certificate", hello: hello(2, to: 1), code: .certificate,
            says: "names `c`, but member id 2 is `b`", certificate: "c"),
        Case(name: "a wrong address", hello: hello(2, to: 3), code: .notYou, says: "but this is `a`, member id 1"),
        Case(
            name: "a hello that says nothing", hello: frame(.hello) { $0.put(UInt8(1)) }, code: .malformed,
            says: "cannot be read"),
        Case(
            name: "an unknown stream",
            hello: frame(.hello) {
                for number in [UInt16(1), 1] { $0.put(number) }
                $0.put(UInt8(99))
                for number in [UInt64(2), 1, 77] { $0.put(number) }
                $0.putShort("test")
            }, code: .malformed, says: "cannot be read"),
    ]

    @Test(arguments: cases)
    func `who does not belong here is told why`(_ item: Case) async throws {
        try await withPeers { world in
            let a = try await knowing(world, removed: [9])
            let certificate = try await world.authority.issue(item.certificate)
            let raw = try await knock(world, a, as: certificate, item.hello)
            let refusal = try await raw.refused(item.name)
            #expect(refusal.code == item.code && refusal.text.contains(item.says), "\(refusal)")
            try await eventually("it is hung up on") { raw.isClosed }
            try await eventually("it is in the log") { a.recorder.logged(item.says) }
            // Again and again: one line in the log.
            for _ in 0..<3 {
                let again = try await knock(world, a, as: certificate, item.hello)
                _ = try await again.refused(item.name)
                try await eventually("it is hung up on") { again.isClosed }
            }
            #expect(a.recorder.log.count { $0.contains(item.says) } == 1)
        }
    }

    @Test func `a member that came back empty is refused, the one known is not`() async throws {
        try await withPeers { world in
            let a = try await knowing(world)
            let certificate = try await world.authority.issue("b")
            let first = try await knock(world, a, as: certificate, hello(2, to: 1, incarnation: 1))
            try await eventually("the first is welcome") { first.frames.contains { $0.kind == .welcome } }
            let second = try await knock(world, a, as: certificate, hello(2, to: 1, incarnation: 2))
            let refusal = try await second.refused("another incarnation")
            #expect(refusal.code == .incarnation)
            #expect(
                refusal.text == "member id 2 (`b`) came back with an empty data directory: its votes are forgotten; "
                    + "remove it and add it anew")
            // Over a restart of `a`, too: it is on disk.
            await a.transport.stop()
            let again = try await world.member(1, "a")
            again.transport.replacePeers(
                [Peer(id: 2, name: "b", address: PeerAddress(host: "127.0.0.1", port: 1))], removed: [])
            let third = try await knock(world, again, as: certificate, hello(2, to: 1, incarnation: 2))
            #expect(try await third.refused("another incarnation").code == .incarnation)
            let fourth = try await knock(world, again, as: certificate, hello(2, to: 1, incarnation: 1))
            try await eventually("the known one is welcome") { fourth.frames.contains { $0.kind == .welcome } }
        }
    }

    @Test func `both sides say why they do not come together`() async throws {
        try await withPeers { world in
            let a = try await world.member(1, "a")
            let b = try await world.member(2, "b", clusterID: "other")
            try world.introduce(a, b)
            for member in [a, b] {
                try await eventually("`\(member.name)` says so") {
                    member.recorder.log.contains {
                        $0.hasPrefix("error peer cannot be reached") && $0.contains("cluster")
                    }
                        && member.recorder.logged("connection is not taken")
                }
                #expect(member.recorder.refused.contains(.otherCluster))
                #expect(member.transport.status().allSatisfy { !$0.isConnected && !$0.isHeard })
            }
        }
    }

    @Test func `a removed member is cut off and told`() async throws {
        try await withPeers { world in
            let (a, b) = (try await world.member(1, "a"), try await world.member(2, "b"))
            try world.introduce(a, b)
            try await connected(a, b)
            a.transport.replacePeers([], removed: [2])
            try await eventually("b knows") { b.recorder.refused.contains(.removed) }
            try await eventually("b hears nothing") {
                b.transport.status().allSatisfy { !$0.isConnected && !$0.isHeard }
            }
            #expect(b.recorder.logged("you were removed"))
            #expect(a.transport.status().isEmpty)
        }
    }

    // MARK: - Certificates

    struct Certificate: Sendable, CustomTestStringConvertible {
        var name: String
        var says: [String]
        var testDescription: String { name }
    }

    @Test(arguments: [
        Certificate(name: "expired", says: ["not accepted", "expired"]),
        Certificate(name: "not yet valid", says: ["not accepted", "expired"]),
        Certificate(name: "of another authority", says: ["not accepted", "authority"]),
        Certificate(name: "not for clients", says: ["not accepted", "made for this use"]),
        Certificate(name: "absent", says: ["shows no certificate"]),
        Certificate(name: "over TLS 1.2", says: ["older TLS"]),
    ])
    func `a certificate that is not good opens nothing`(_ item: Certificate) async throws {
        try await withPeers { world in
            let a = try await knowing(world)
            var shown: TestAuthority.Issued?
            var maximum: TLSVersion?
            switch item.name {
            case "expired": shown = try await world.authority.issue("b", validFrom: -7_200, validTo: -3_600)
            case "not yet valid": shown = try await world.authority.issue("b", validFrom: 3_600)
            case "of another authority":
                shown = try await TestAuthority(in: world.directory.path, name: "rogue").issue("b")
            case "not for clients": shown = try await world.authority.issue("b", usage: "serverAuth")
            case "over TLS 1.2":
                shown = try await world.authority.issue("b")
                maximum = .tlsv12
            default: break
            }
            let raw = try await RawPeer.dial(
                a.transport.port, RawPeer.Credentials(world.authority, shown, maximum: maximum))
            raw.push(hello(2, to: 1))
            try await eventually("it is hung up on") { raw.isClosed }
            try await eventually("it is in the log") {
                a.recorder.log.contains { line in item.says.allSatisfy { line.contains($0) } }
            }
            #expect(!raw.frames.contains { $0.kind == .welcome })
            #expect(a.transport.status().allSatisfy { !$0.isHeard })
        }
    }

    @Test(arguments: ["expired", "rogue", "wrong name"])
    func `who answers in a peer's place is not spoken to`(_ kind: String) async throws {
        try await withPeers { world in
            let a = try await world.member(1, "a")
            var authority = world.authority
            if kind == "rogue" { authority = try await TestAuthority(in: world.directory.path, name: "rogue") }
            let shown = try await authority.issue(
                kind == "wrong name" ? "c" : "b", validFrom: -7_200, validTo: kind == "expired" ? -3_600 : 86_400)
            let raw = RawPeer()
            let (port, listener) = try await raw.listen(RawPeer.Credentials(world.authority, shown))
            defer { listener.close(promise: nil) }
            a.transport.replacePeers(
                [Peer(id: 2, name: "b", address: PeerAddress(host: "127.0.0.1", port: port))], removed: [])
            try await eventually("it is in the log") {
                a.recorder.log.contains {
                    $0.hasPrefix("error peer cannot be reached")
                        && $0.contains(kind == "wrong name" ? "names `c`, but member id 2 is `b`" : "not accepted")
                }
            }
            // No hello: an impostor does not learn who is here.
            #expect(!raw.frames.contains { $0.kind == .hello })
        }
    }
}
