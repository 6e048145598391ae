// SPDX-License-Identifier: Apache-2.0
import Foundation
import NIOCore
import Raft
import Store
import TestSupport
import Testing

@testable import Daemon

@Suite struct PeerConfigurationTests {
    private static func list(
        members: String =
            #"{"id": 1, "name": "a", "address": "10.0.0.1:4484"}, {"id": 2, "name": "b", "address": "10.0.0.2"}"#,
        more: String = ""
    ) -> String {
        """
        {"cluster_id": "prod", \(more) "members": [\(members)],
         "ca": "ca.pem", "certificate": "/etc/a.pem", "key": "a.key"}
        """
    }

    private func parse(_ text: String, node: String = "a") throws -> PeerConfiguration {
        try PeerConfiguration.parse(Data(text.utf8), path: "/x/peers.json", directory: "/x/", nodeName: node)
    }

    @Test func `a list is read, paths are relative to it, the port may be left out`() throws {
        let configuration = try parse(Self.list())
        #expect(configuration.clusterID == "prod")
        #expect(configuration.own == Peer(id: 1, name: "a", address: PeerAddress(host: "10.0.0.1", port: 4484)))
        #expect(configuration.members.map(\.id) == [1, 2])
        #expect(configuration.members[1].address == PeerAddress(host: "10.0.0.2", port: 4484))
        #expect(configuration.listen == configuration.own.address)
        #expect(
            configuration.files
                == CertificateFiles(authority: "/x/ca.pem", certificate: "/etc/a.pem", key: "/x/a.key"))
        let other = try parse(Self.list(more: #""self": "b", "listen": "[::]:5000","#))
        #expect(other.own.id == 2 && other.listen == PeerAddress(host: "::", port: 5000))
        let wide = try parse(Self.list(members: #"{"id": 18446744073709551615, "name": "a", "address": "h:1"}"#))
        #expect(wide.own.id == MemberID.max)
    }

    @Test(arguments: [
        (#"{"id": 0, "name": "a", "address": "h"}"#, "member 1 (`a`) has id 0"),
        (
            #"{"id": 1, "name": "a", "address": "h"}, {"id": 1, "name": "b", "address": "i"}"#,
            "`a` and `b` both have id 1"
        ),
        (
            #"{"id": 1, "name": "a", "address": "h"}, {"id": 2, "name": "A", "address": "i"}"#,
            "two members are named `A`"
        ),
        (
            #"{"id": 1, "name": "a", "address": "h"}, {"id": 2, "name": "b", "address": "h:4484"}"#,
            "`a` and `b` both are at h:4484"
        ),
        (#"{"id": 1, "name": "a", "address": "h:0"}"#, "`h:0` is no address"),
        (#"{"id": 1, "name": "a", "address": "h:70000"}"#, "`h:70000` is no address"),
        (#"{"id": 1, "name": "a", "address": ""}"#, "`` is no address"),
        (#"{"id": 1, "name": "a b", "address": "h"}"#, "a name has 1 to 63 letters"),
        (#"{"id": 1, "name": "b", "address": "h"}"#, "no member is named `a`, as this node is"),
        (#"{"id": -1, "name": "a", "address": "h"}"#, "cannot be used"),
        (#"{"id": 1, "address": "h"}"#, "`name` is missing at `members.[0]`"),
        ("", "it has 0 members"),
    ])
    func `what is wrong is named`(_ members: String, _ says: String) {
        let error = #expect(throws: DaemonError.self) { try parse(Self.list(members: members)) }
        #expect(error?.message.contains(says) == true, "\(error?.message ?? "")")
        #expect(error?.message.hasPrefix("the peer list `/x/peers.json` cannot be used: ") == true)
    }

    @Test(arguments: ["", "[]", "{", "null", "{\"cluster_id\": 1}", "\u{0}"])
    func `what is no list at all is refused with an example`(_ text: String) {
        let error = #expect(throws: DaemonError.self) { try parse(text) }
        #expect(error?.hint?.contains("cluster_id") == true)
    }

    @Test func `a file that is not there is named`() {
        let error = #expect(throws: DaemonError.self) {
            try PeerConfiguration.load(path: "/nowhere/peers.json", nodeName: "a")
        }
        #expect(error?.message.hasPrefix("cannot read the peer list `/nowhere/peers.json`: No such file") == true)
    }

    @Test(
        arguments: [
            ("10.0.0.1:4484", "10.0.0.1:4484"), ("host", "host:4484"), ("[fd00::1]:99", "[fd00::1]:99"),
            ("[fd00::1]", "[fd00::1]:4484"), ("fd00::1", "[fd00::1]:4484"), (":1", nil), ("h:", nil), ("h:1x", nil),
            ("h:65536", nil), ("[::1", nil), ("[::1]x", nil), ("a b", nil), ("h:+1", nil),
        ] as [(String, String?)])
    func `addresses`(_ text: String, _ expected: String?) {
        #expect(PeerAddress(text)?.description == expected)
    }
}

@Suite(.enabled(if: TestAuthority.isAvailable, "needs openssl")) struct PeerCertificateFileTests {
    private func error(
        _ authority: TestAuthority, _ issued: TestAuthority.Issued, key: String? = nil, name: String = "a"
    ) async -> DaemonError? {
        await #expect(throws: DaemonError.self) {
            try await PeerCertificates.load(
                CertificateFiles(
                    authority: authority.certificate, certificate: issued.certificate, key: key ?? issued.key),
                name: name)
        }
    }

    @Test func `certificates that cannot work are named before anything listens`() async throws {
        try await withTemporaryDirectory("certs") { directory in
            let authority = try await TestAuthority(in: directory.path)
            let rogue = try await TestAuthority(in: directory.path, name: "rogue")
            let good = try await authority.issue("a")
            let expired = try await authority.issue("a", validFrom: -7_200, validTo: -3_600, as: "expired")
            #expect(await error(authority, expired)?.message.contains("expired.pem` expired at 20") == true)
            let future = try await authority.issue("a", validFrom: 3_600, as: "future")
            #expect(await error(authority, future)?.message.contains("is not valid before 20") == true)
            #expect(
                await error(authority, try await rogue.issue("a", as: "foreign"))?.message.contains(
                    "is not signed by the authority") == true)
            #expect(
                await error(authority, good, name: "b")?.message.contains("names `a`, but this member is `b`") == true)
            let nameless = try await authority.issue("a", dnsNames: [], as: "nameless")
            #expect(await error(authority, nameless)?.message.contains("names no DNS name") == true)
            let oneWay = try await authority.issue("a", usage: "serverAuth", as: "one-way")
            #expect(await error(authority, oneWay)?.hint?.contains("clientAuth") == true)
            #expect(
                await error(authority, good, key: expired.key)?.message.contains("does not belong to the certificate")
                    == true)
            #expect(await error(authority, good, key: good.certificate)?.message.contains("no private key") == true)
            #expect(
                await error(authority, good, key: "/nowhere")?.message
                    == "cannot read `/nowhere`: No such file or directory")
            try directory.write("nothing", to: "empty.pem")
            let empty = TestAuthority.Issued(certificate: directory.file("empty.pem"), key: good.key)
            #expect(await error(authority, empty)?.message.contains("holds no certificate") == true)
        }
    }

    @Test func `a key others can read is warned of`() async throws {
        try await withTemporaryDirectory("certs") { directory in
            let authority = try await TestAuthority(in: directory.path)
            let issued = try await authority.issue("a", dnsNames: ["other", "A"])
            let files = CertificateFiles(
                authority: authority.certificate, certificate: issued.certificate, key: issued.key)
            try await Shell.run(["chmod", "644", issued.key]).checked()
            #expect(try await PeerCertificates.load(files, name: "a").current.warnings.count == 1)
            try await Shell.run(["chmod", "600", issued.key]).checked()
            #expect(try await PeerCertificates.load(files, name: "a").current.warnings.isEmpty)
        }
    }
}

@Suite struct KnownIncarnationTests {
    @Test func `the first incarnation seen counts, over a restart too`() async throws {
        try await withTemporaryDirectory("known") { directory in
            let first = try KnownIncarnations(dataDirectory: directory.path)
            #expect(first.isKnown(2, incarnation: 5) == nil)
            #expect(try first.admit(2, incarnation: 5))
            #expect(try first.admit(2, incarnation: 5))
            #expect(try !first.admit(2, incarnation: 6))
            let second = try KnownIncarnations(dataDirectory: directory.path)
            #expect(second.own == first.own && first.own != 0)
            #expect(second.isKnown(2, incarnation: 5) == true && second.isKnown(2, incarnation: 6) == false)
            try directory.write("{", to: "peers.json")
            #expect(throws: DaemonError.self) { try KnownIncarnations(dataDirectory: directory.path) }
        }
    }
}

/// Decoders of everything a peer sends before and beside messages.
@Suite struct PeerDecoderTests {
    @Test func `any bytes give a value or nothing`() {
        let seed = TestRandom.fromEnvironment().seed
        var random = SeededRandom(seed: seed)
        let offer = SnapshotSource.of([1, 2, 3]).offer
        func encoded(_ body: (inout ByteWriter) -> Void) -> [UInt8] {
            var writer = ByteWriter()
            body(&writer)
            return writer.bytes
        }
        let greeting = Hello(versions: 1...3, stream: .forward, from: 1, to: 2, incarnation: 3, clusterID: "test")
        let welcome = Welcome(version: 1, from: 2, incarnation: 3, clusterID: "test")
        let refusal = PeerRefusal(.removed, "you were removed")
        let samples = [
            encoded(offer.encode), encoded(greeting.encode), encoded(welcome.encode), encoded(refusal.encode),
            encoded(SnapshotVerdict.refused("why").encode),
        ]
        #expect(SnapshotOffer(decoding: samples[0][...]) == offer)
        #expect(Hello.decode(samples[1][...]) == .hello(greeting))
        #expect(Welcome(decoding: samples[2][...]) == welcome)
        #expect(PeerRefusal(decoding: samples[3][...]) == refusal)
        #expect(SnapshotVerdict(decoding: samples[4][...]) == .refused("why"))
        for _ in 0..<20_000 {
            var bytes = samples[Int.random(in: 0..<samples.count, using: &random)]
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: bytes.indices, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.removeLast(min(bytes.count - 1, bytes.count - place))
                default: bytes.insert(0xFF, at: place)
                }
            }
            // Whatever is taken is the same again: nothing was read twice or guessed.
            if let again = SnapshotOffer(decoding: bytes[...]) {
                #expect(SnapshotOffer(decoding: encoded(again.encode)[...]) == again, "SEED=\(seed)")
            }
            if case .hello(let again) = Hello.decode(bytes[...]) {
                #expect(Hello.decode(encoded(again.encode)[...]) == .hello(again), "SEED=\(seed)")
            }
            if let again = Welcome(decoding: bytes[...]) {
                #expect(Welcome(decoding: encoded(again.encode)[...]) == again, "SEED=\(seed)")
            }
            if let text = PeerRefusal(decoding: bytes[...])?.text {
                #expect(!text.unicodeScalars.contains { $0.value < 0x20 }, "SEED=\(seed)")
            }
            _ = SnapshotVerdict(decoding: bytes[...])
            _ = SnapshotChunk(decoding: bytes)
        }
    }

    @Test func `frames come out however the bytes were cut`() throws {
        let seed = TestRandom.fromEnvironment().seed
        var random = SeededRandom(seed: seed)
        for _ in 0..<200 {
            let payloads = (0..<20).map { _ in
                [UInt8](
                    repeating: UInt8.random(in: 0...255, using: &random), count: Int.random(in: 0...400, using: &random)
                )
            }
            var bytes = payloads.flatMap { payload in frame(.message) { $0.put(payload) } }[...]
            var reader = FrameReader(expected: [.message])
            var seen: [[UInt8]] = []
            while !bytes.isEmpty {
                let part = bytes.prefix(Int.random(in: 1...700, using: &random))
                bytes = bytes.dropFirst(part.count)
                reader.feed(ByteBuffer(bytes: part))
                while let frame = try reader.next() { seen.append(frame.payload.array) }
            }
            #expect(seen == payloads, "SEED=\(seed)")
        }
    }
}
