// SPDX-License-Identifier: Apache-2.0
import Logging
import NIOCore
import NIOPosix
import Raft
import Synchronization
import TestSupport

@testable import Daemon

/// What one member was told, in order.
final class PeerRecorder: Sendable {
    struct Seen {
        var messages: [Message] = []
        var batches = 0
        var disconnected: [MemberID] = []
        var refused: [PeerRefusal.Code] = []
        var log: [String] = []
    }

    let seen = Mutex(Seen())

    var messages: [Message] { seen.withLock { $0.messages } }
    var disconnected: [MemberID] { seen.withLock { $0.disconnected } }
    var refused: [PeerRefusal.Code] { seen.withLock { $0.refused } }
    var log: [String] { seen.withLock { $0.log } }

    func logged(_ text: String) -> Bool { log.contains { $0.contains(text) } }
}

/// Keeps log lines, message and metadata, for the test to look at.
struct RecordingLog: LogHandler {
    let recorder: PeerRecorder
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let facts = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        recorder.seen.withLock {
            $0.log.append("\(event.level) \(event.message) \(facts.joined(separator: " "))")
        }
    }
}

/// One member of a test: a transport with real TLS on loopback.
final class TestMember: Sendable {
    let id: MemberID
    let name: String
    let transport: PeerTransport
    let recorder: PeerRecorder

    init(id: MemberID, name: String, transport: PeerTransport, recorder: PeerRecorder) {
        self.id = id
        self.name = name
        self.transport = transport
        self.recorder = recorder
    }

    func peer(port: Int? = nil) throws -> Peer {
        guard let port = port ?? transport.port else { throw TestFailure("`\(name)` does not listen") }
        return Peer(id: id, name: name, address: PeerAddress(host: "127.0.0.1", port: port))
    }
}

/// A directory with an authority, and members made in it.
final class PeerWorld: Sendable {
    let directory: TemporaryDirectory
    let authority: TestAuthority
    private let members = Mutex<[TestMember]>([])

    init(_ directory: TemporaryDirectory) async throws {
        self.directory = directory
        authority = try await TestAuthority(in: directory.path)
    }

    /// Narrow times, so that tests of what fails do not last.
    static var quick: PeerLimits {
        var limits = PeerLimits()
        limits.handshake = .seconds(3)
        limits.ping = .milliseconds(100)
        limits.retryLast = .milliseconds(200)
        return limits
    }

    /// A member that listens on a free port and knows nobody yet.
    func member(
        _ id: MemberID, _ name: String, clusterID: String = "test", certificate: TestAuthority.Issued? = nil,
        authority: TestAuthority? = nil, data: String? = nil, port: Int = 0, limits: PeerLimits = PeerWorld.quick,
        _ adjust: (inout PeerEvents) -> Void = { _ in }
    ) async throws -> TestMember {
        let authority = authority ?? self.authority
        let issued: TestAuthority.Issued
        if let certificate { issued = certificate } else { issued = try await authority.issue(name) }
        let recorder = PeerRecorder()
        var events = PeerEvents()
        events.messages = { messages in
            recorder.seen.withLock {
                $0.messages += messages
                $0.batches += 1
            }
        }
        events.disconnected = { member in recorder.seen.withLock { $0.disconnected.append(member) } }
        events.refused = { _, code in recorder.seen.withLock { $0.refused.append(code) } }
        events.request = { member, bytes in Array("\(member):".utf8) + bytes }
        adjust(&events)
        let data = data ?? directory.file("data-\(name)")
        try await Shell.run(["mkdir", "-p", data]).checked()
        let incarnations = try KnownIncarnations(dataDirectory: data)
        let listen = PeerAddress(host: "127.0.0.1", port: port)
        let transport = PeerTransport(
            listen: listen,
            directory: PeerDirectory(
                clusterID: clusterID, own: Peer(id: id, name: name, address: listen), incarnation: incarnations.own),
            certificates: try await PeerCertificates.load(
                CertificateFiles(
                    authority: authority.certificate, certificate: issued.certificate, key: issued.key), name: name),
            incarnations: incarnations, limits: limits, group: MultiThreadedEventLoopGroup.singleton, events: events,
            log: Logger(label: name) { _ in RecordingLog(recorder: recorder) })
        try await transport.start()
        let member = TestMember(id: id, name: name, transport: transport, recorder: recorder)
        members.withLock { $0.append(member) }
        return member
    }

    func introduce(_ all: TestMember...) throws { try introduce(all) }

    func introduce(_ all: [TestMember]) throws {
        let peers = try all.map { try $0.peer() }
        for member in all { member.transport.replacePeers(peers, removed: []) }
    }

    func stop() async {
        for member in members.withLock({ $0 }) { await member.transport.stop() }
    }
}

/// Runs `body` in a world of its own; everything is stopped and removed afterwards.
func withPeers(_ body: (PeerWorld) async throws -> Void) async throws {
    try await withTemporaryDirectory("peers") { directory in
        let world = try await PeerWorld(directory)
        do {
            try await body(world)
        } catch {
            await world.stop()
            throw error
        }
        await world.stop()
    }
}

func connected(_ members: TestMember...) async throws {
    try await eventually("all members are connected") {
        members.allSatisfy { member in member.transport.status().allSatisfy { $0.isConnected && $0.isHeard } }
    }
}

func heartbeat(_ from: MemberID, _ to: MemberID, round: UInt64 = 1) -> Message {
    Message(from: from, to: to, term: 1, body: .heartbeat(Heartbeat(commit: 0, round: round)))
}
