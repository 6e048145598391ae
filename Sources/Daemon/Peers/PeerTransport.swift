// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import NIOSSL
internal import Raft
internal import ServiceLifecycle
internal import Synchronization

/// What a member makes of what the others send. None of the closures may block: they run on event loops, the two `async`
/// ones in tasks of their own.
struct PeerEvents: Sendable {
    /// Messages of one member, as they arrived together. Sender and receiver are checked.
    var messages: @Sendable ([Message]) -> Void = { _ in }
    /// A connection to or from this member that was open broke, and there is no other.
    var disconnected: @Sendable (MemberID) -> Void = { _ in }
    /// A member does not take this one: `removed` and `incarnation` are for good.
    var refused: @Sendable (MemberID, PeerRefusal.Code) -> Void = { _, _ in }
    /// A request another member forwards; the task is cancelled when nobody waits for the answer any more.
    var request: @Sendable (MemberID, [UInt8]) async -> [UInt8] = { _, _ in [] }
    /// A snapshot is offered; throwing declines it.
    var snapshot: @Sendable (MemberID, SnapshotOffer) async throws -> any SnapshotReception = { _, _ in
        throw PeerError(.busy, "this member takes no snapshots")
    }
}

/// How nodes talk: each dials the members of the log over TLS, and whoever it has something to ask, one connection for each
/// kind of stream.
final class PeerTransport: Service {
    private struct Link {
        /// Nil for a node that is no member of the log.
        var raft: RaftLink?
        var forward: ForwardLink
    }

    private struct Accepted {
        var connection: PeerConnection
        var channel: any Channel
        var intake: SnapshotIntake?
    }

    private struct State {
        var listener: (any Channel)?
        var links: [MemberID: Link] = [:]
        /// Peers that are members of the log; nil: all are.
        var members: Set<MemberID>?
        var accepted: [ObjectIdentifier: Accepted] = [:]
        /// The newest open connection of each member for raft messages, and when it was last heard from.
        var heard: [MemberID: ObjectIdentifier] = [:]
        var lastHeard: [MemberID: NIODeadline] = [:]
        var greeting = 0
        var outgoing = 0
        var incoming = 0
        var isRunning = false
    }

    /// What `cluster status` shows of one other member.
    struct PeerStatus: Hashable, Sendable {
        var id: MemberID
        var name: String
        var address: String
        /// This member's raft connection to it is open.
        var isConnected: Bool
        /// Its raft connection to this member is open.
        var isHeard: Bool
        /// Since the last message of it, in milliseconds; nil when there was none in this run.
        var lastHeardMilliseconds: Int?
        var roundTripMicroseconds: Int?
        var messagesSent: UInt64
        /// Messages lost because the peer could not take them.
        var messagesDropped: UInt64
        var waitingBytes: Int
        /// Why there is no connection to it, when one of the two does not want it; nil when there is one, and while the peer
        /// only does not answer.
        var refusal: String?
    }

    private let ground: PeerGround
    private let listen: PeerAddress
    private let group: any EventLoopGroup
    private let events: PeerEvents
    private let state = Mutex(State())

    /// - Parameters:
    ///   - directory: the members known at the start; `replacePeers` follows the membership.
    ///   - group: stays the caller's to shut down, after `stop`.
    init(
        listen: PeerAddress, directory: PeerDirectory, certificates: PeerCertificates, incarnations: KnownIncarnations,
        limits: PeerLimits = PeerLimits(), group: any EventLoopGroup, threads: NIOThreadPool = .singleton,
        events: PeerEvents, log: Logger
    ) {
        self.listen = listen
        self.group = group
        self.events = events
        ground = PeerGround(
            directory: directory, certificates: certificates, incarnations: incarnations, limits: limits,
            threads: threads, log: log)
    }

    // MARK: - Life

    /// As a service: listens and dials until graceful shutdown.
    func run() async throws {
        try await start()
        // Cancellation is a way to end, too.
        try? await gracefulShutdown()
        await stop()
    }

    /// - Throws: `DaemonError` when the address cannot be listened on.
    func start() async throws(DaemonError) {
        warnOfCertificates()
        state.withLock { $0.isRunning = true }
        do {
            let listener = try await bind()
            state.withLock { $0.listener = listener }
        } catch {
            state.withLock { $0.isRunning = false }
            throw DaemonError(
                "cannot listen for members on \(listen): \(error)",
                hint: "see that the address is on this node and that nothing else has the port")
        }
        ground.log.info("listens for members", metadata: ["address": "\(listen)"])
        connectLinks()
    }

    /// Closes every connection. Afterwards nothing is delivered any more.
    func stop() async {
        let (listener, links, accepted) = state.withLock { state in
            state.isRunning = false
            defer {
                state.listener = nil
                state.links = [:]
            }
            return (state.listener, state.links, state.accepted)
        }
        var closing = links.sorted { $0.key < $1.key }.flatMap {
            [$0.value.raft?.stop(), $0.value.forward.stop()].compactMap { $0 }
        }
        if let listener {
            listener.close(promise: nil)
            closing.append(listener.closeFuture)
        }
        for (_, accepted) in accepted {
            let (connection, intake) = (accepted.connection, accepted.intake)
            connection.loop.execute {
                intake?.task?.cancel()
                connection.refuse(PeerRefusal(.stopping, "this member stops"))
            }
            closing.append(accepted.channel.closeFuture)
        }
        let all = EventLoopFuture.andAllComplete(closing, on: group.any())
        // A peer that does not close its side is not waited for.
        let deadline = group.any().scheduleTask(in: .seconds(2)) {
            for (_, accepted) in accepted { accepted.channel.close(promise: nil) }
        }
        // `andAllComplete` never fails.
        try? await all.get()
        deadline.cancel()
    }

    /// The port listened on; nil while stopped.
    var port: Int? { state.withLock { $0.listener?.localAddress?.port } }

    var certificates: PeerCertificates { ground.certificates }

    /// End of the certificate in use.
    var certificateExpiry: Date { ground.certificates.current.expiry }

    /// Reads the certificate files again, for connections to come. On error the old ones stay in use.
    func reloadCertificates() async throws(DaemonError) {
        try await ground.certificates.reload()
        warnOfCertificates()
    }

    private func warnOfCertificates() {
        for warning in ground.certificates.current.warnings {
            ground.log.warning("certificate files need care", metadata: ["detail": "\(warning)"])
        }
    }

    // MARK: - Members

    /// The others as they are now. Connections with those gone are ended, new ones are dialled.
    /// - Parameters:
    ///   - removed: ids that never come back; they are told so when they knock.
    ///   - members: those that take part in the log; nil: all. Others are dialled only to be asked something.
    func replacePeers(_ peers: [Peer], removed: Set<MemberID>, members: Set<MemberID>? = nil) {
        ground.replace(peers, removed: removed)
        let directory = ground.directory
        let (gone, outside, strangers) = state.withLock { state in
            state.members = members
            let gone = state.links.filter { directory.peers[$0.key] != $0.value.forward.peer }
            for id in gone.keys { state.links[id] = nil }
            var outside: [RaftLink] = []
            for (id, link) in state.links where members?.contains(id) == false {
                state.links[id]?.raft = nil
                if let raft = link.raft { outside.append(raft) }
            }
            let strangers = state.accepted.values.map(\.connection)
            return (gone, outside, strangers)
        }
        for (_, link) in gone {
            _ = link.raft?.stop()
            _ = link.forward.stop()
        }
        for link in outside { _ = link.stop() }
        for connection in strangers {
            connection.loop.execute {
                guard let peer = connection.peer, directory.peers[peer.id] == nil else { return }
                let code: PeerRefusal.Code = directory.removed.contains(peer.id) ? .removed : .notMember
                connection.refuse(
                    PeerRefusal(
                        code, code == .removed ? "you were removed from the cluster" : "you are no member any more"))
            }
        }
        connectLinks()
    }

    /// The others, as they are known now, by ascending id.
    var peers: [Peer] { ground.directory.peers.values.sorted { $0.id < $1.id } }

    private func connectLinks() {
        let directory = ground.directory
        let fresh = state.withLock { state -> [RaftLink] in
            guard state.isRunning else { return [] }
            var fresh: [RaftLink] = []
            for peer in directory.peers.values.sorted(by: { $0.id < $1.id }) {
                var link =
                    state.links[peer.id] ?? Link(forward: ForwardLink(peer, loop: group.next(), ground: ground))
                if link.raft == nil, state.members?.contains(peer.id) != false {
                    let raft = RaftLink(
                        peer, loop: group.next(), ground: ground,
                        lost: { [weak self] in self?.lost($0) }, refused: events.refused)
                    link.raft = raft
                    fresh.append(raft)
                }
                state.links[peer.id] = link
            }
            return fresh
        }
        for link in fresh { link.start() }
    }

    /// The raft connection to a member broke.
    private func lost(_ member: MemberID) {
        if state.withLock({ $0.isRunning }) { events.disconnected(member) }
    }

    func status() -> [PeerStatus] {
        let now = NIODeadline.now()
        let directory = ground.directory
        let (links, heard, last) = state.withLock { ($0.links, $0.heard, $0.lastHeard) }
        return directory.peers.values.sorted { $0.id < $1.id }.map { peer in
            let link = links[peer.id]?.raft?.status
            return PeerStatus(
                id: peer.id, name: peer.name, address: "\(peer.address)", isConnected: link?.isConnected ?? false,
                isHeard: heard[peer.id] != nil,
                lastHeardMilliseconds: last[peer.id].map { Int((now - $0).nanoseconds / 1_000_000) },
                roundTripMicroseconds: link?.roundTripNanoseconds.map { Int($0 / 1_000) },
                messagesSent: link?.sent ?? 0, messagesDropped: link?.dropped ?? 0,
                waitingBytes: link?.waitingBytes ?? 0, refusal: link?.refusal)
        }
    }

    // MARK: - Sending

    /// Sends what can be sent; the rest is lost, as a network may lose it. Any thread; never blocks.
    func send(_ messages: [Message]) {
        guard let first = messages.first else { return }
        if messages.allSatisfy({ $0.to == first.to }) {
            state.withLock { $0.links[first.to]?.raft }?.send(messages)
            return
        }
        let links = state.withLock { $0.links }
        for (member, messages) in Dictionary(grouping: messages, by: \.to) { links[member]?.raft?.send(messages) }
    }

    /// Has another member work on a request.
    /// - Parameters:
    ///   - payload: at most 8 MiB.
    ///   - deadline: for all of it.
    /// - Throws: `PeerError`; its `isWithoutEffect` says whether it may be tried elsewhere.
    func forward(_ payload: [UInt8], to member: MemberID, deadline: Duration) async throws(PeerError) -> [UInt8] {
        guard let link = state.withLock({ $0.links[member]?.forward }) else {
            throw PeerError(.unknownPeer, "member id \(member) is not known here")
        }
        return try await link.send(payload, deadline: deadline)
    }

    /// Streams a snapshot to another member.
    /// - Returns: how the receiver took it.
    /// - Throws: `PeerError`, `.busy` when enough snapshots are under way; errors of the source; `CancellationError`.
    func sendSnapshot(_ source: SnapshotSource, to member: MemberID) async throws -> SnapshotVerdict {
        guard let peer = ground.directory.peers[member] else {
            throw PeerError(.unknownPeer, "member id \(member) is not known here")
        }
        guard source.offer.manifest.count <= SnapshotOffer.manifestBytesMax else {
            throw PeerError(.tooLarge, "a snapshot's manifest of \(source.offer.manifest.count) bytes")
        }
        let isTaken = state.withLock { state in
            guard state.isRunning, state.outgoing < ground.limits.snapshotsOutgoingMax else { return false }
            state.outgoing += 1
            return true
        }
        guard isTaken else { throw PeerError(.busy, "enough snapshots are being sent already") }
        defer { state.withLock { $0.outgoing -= 1 } }
        return try await SnapshotSender(peer, loop: group.next(), ground: ground).send(source)
    }

    // MARK: - Accepting

    private func bind() async throws -> any Channel {
        try await ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.backlog, value: 256)
            .childChannelInitializer { [weak self] channel in
                channel.eventLoop.makeCompletedFuture {
                    guard let self else { throw PeerError(.stopped, "this member stops") }
                    try self.accept(channel)
                }
            }
            .bind(host: listen.host, port: listen.port).get()
    }

    private func accept(_ channel: any Channel) throws {
        let id = ObjectIdentifier(channel)
        let remote = channel.remoteAddress?.ipAddress ?? "unknown address"
        let greeted = Greeted()
        let connection = PeerConnection(
            .acceptor { [weak self] connection, peer, kind in
                guard let self else { return .failure(PeerRefusal(.stopping, "this member stops")) }
                greeted.isDone = true
                self.state.withLock { $0.greeting -= 1 }
                return self.stream(of: connection, id, peer, kind)
            }, loop: channel.eventLoop, ground: ground,
            ended: { [weak self] error, wasOpen in
                self?.ended(id, remote, error, wasOpen: wasOpen, wasGreeting: !greeted.isDone)
            })
        let isAdmitted = state.withLock { state in
            guard state.isRunning, state.accepted.count < ground.limits.acceptedMax,
                state.greeting < ground.limits.greetingMax
            else { return false }
            state.greeting += 1
            state.accepted[id] = Accepted(connection: connection, channel: channel)
            return true
        }
        guard isAdmitted else {
            ground.gate.log(
                .warning, "too many connections, one is not taken", key: "accept", metadata: ["from": "\(remote)"])
            throw PeerError(.busy, "too many connections")
        }
        do {
            try PeerSocket.configure(channel)
            try channel.pipeline.syncOperations.addHandlers(
                NIOSSLServerHandler(context: ground.certificates.current.server), connection)
        } catch {
            // Gone before it was here: without its handler nobody else takes it off the list.
            state.withLock { state in
                state.greeting -= 1
                state.accepted[id] = nil
            }
            throw error
        }
    }

    /// Gives a member's new connection its work. On the connection's loop.
    private func stream(
        of connection: PeerConnection, _ id: ObjectIdentifier, _ peer: Peer, _ kind: StreamKind
    ) -> Result<any PeerStream, PeerRefusal> {
        guard state.withLock({ $0.isRunning }) else {
            return .failure(PeerRefusal(.stopping, "this member stops"))
        }
        switch kind {
        case .raft:
            let stream = RaftReceiver(
                peer, own: ground.directory.own.id,
                deliver: { [weak self] messages in self?.deliver(messages, of: peer.id) },
                ended: { [weak self] _ in self?.unheard(peer.id, id) })
            replaceHeard(peer, by: id)
            return .success(stream)
        case .forward:
            return .success(
                ForwardReceiver(
                    peer, limits: ground.limits,
                    serve: { [weak self, events] member, request in
                        self?.state.withLock { $0.links[member]?.raft }?.isAsked()
                        return await events.request(member, request)
                    }, ended: { _ in }))
        case .snapshot:
            let isTaken = state.withLock { state in
                guard state.incoming < ground.limits.snapshotsIncomingMax else { return false }
                state.incoming += 1
                return true
            }
            guard isTaken else {
                return .failure(PeerRefusal(.busy, "this member takes enough snapshots already"))
            }
            let intake = SnapshotIntake(
                peer, limits: ground.limits, begin: events.snapshot,
                finished: { [weak self] in self?.state.withLock { $0.incoming -= 1 } }, ended: { _ in })
            state.withLock { $0.accepted[id]?.intake = intake }
            return .success(intake)
        }
    }

    private func deliver(_ messages: [Message], of member: MemberID) {
        let isRunning = state.withLock { state in
            if state.isRunning { state.lastHeard[member] = .now() }
            return state.isRunning
        }
        if isRunning { events.messages(messages) }
    }

    /// A member that connects again has lost its old connection, whether this side noticed or not.
    private func replaceHeard(_ peer: Peer, by id: ObjectIdentifier) {
        let (old, link) = state.withLock { state in
            let old = state.heard.updateValue(id, forKey: peer.id).flatMap { state.accepted[$0]?.connection }
            return (old, state.links[peer.id]?.raft)
        }
        if let old { old.loop.execute { old.close() } }
        // It is there: what this side has to say need not wait for the next attempt.
        link?.hurry()
        ground.log.info("member is heard", metadata: ["peer": "\(peer.name)", "member": "\(peer.id)"])
    }

    private func unheard(_ member: MemberID, _ id: ObjectIdentifier) {
        let wasLast = state.withLock { state in
            guard state.heard[member] == id else { return false }
            state.heard[member] = nil
            return state.isRunning
        }
        if wasLast { events.disconnected(member) }
    }

    private func ended(
        _ id: ObjectIdentifier, _ remote: String, _ error: PeerError?, wasOpen: Bool, wasGreeting: Bool
    ) {
        let connection = state.withLock { state in
            state.greeting -= wasGreeting ? 1 : 0
            return state.accepted.removeValue(forKey: id)?.connection
        }
        guard let error, error.refusal != .stopping else { return }
        var facts: Logger.Metadata = ["from": "\(remote)", "error": "\(error)"]
        if let peer = connection?.peer { facts["peer"] = "\(peer.name)" }
        let level: Logger.Level =
            switch error.code {
            case .connectionLost where wasOpen: .info
            case .notConnected: .debug
            default: .warning
            }
        // Who knocks chooses the words and how often: a kind of trouble is said once a minute for each address, and once for
        // all of them when it is bytes that make no sense.
        let source = error.code == .refused || error.code == .insecure ? " \(remote)" : ""
        let reason = error.refusal.map { " \($0)" } ?? ""
        ground.gate.log(
            level, wasOpen ? "member's connection ended" : "connection is not taken",
            key: "ended \(wasOpen) \(error.code)\(reason)\(source) \(connection?.peer?.name ?? "")", metadata: facts)
    }
}

/// Touched on one connection's loop only.
private final class Greeted {
    var isDone = false
}
