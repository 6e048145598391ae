// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import NIOSSL

/// Connects to one peer for one kind of stream, and again when that ends, for as long as it is wanted.
///
/// The state is touched on `loop` only, where every entry hops to; hence `@unchecked Sendable`.
final class Dialer: @unchecked Sendable {
    private enum State {
        case idle
        case connecting
        case connected(any Channel)
        case waiting(Scheduled<Void>)
        case stopped
    }

    let loop: any EventLoop
    private let peer: Peer
    private let kind: StreamKind
    private let ground: PeerGround
    private let stream: any PeerStream
    private let failed: (PeerError) -> Void
    private var state = State.idle
    /// Since the last open connection.
    private var attempts = 0
    /// Number of the attempt that counts: of a name with several addresses, others may end later.
    private var generation = 0
    /// Goes on connecting by itself; else only when asked by `connect`.
    private let isEager: Bool

    /// - Parameter failed: an attempt ended without an open connection; on `loop`.
    init(
        _ peer: Peer, _ kind: StreamKind, stream: any PeerStream, isEager: Bool, loop: any EventLoop,
        ground: PeerGround, failed: @escaping (PeerError) -> Void = { _ in }
    ) {
        self.peer = peer
        self.kind = kind
        self.stream = stream
        self.isEager = isEager
        self.loop = loop
        self.ground = ground
        self.failed = failed
    }

    /// Begins, unless there is a connection or an attempt already. Any thread.
    func connect() {
        onLoop { dialler in
            if case .idle = dialler.state { dialler.dial() }
        }
    }

    /// The peer shows that it is there: no use in waiting any longer. Any thread.
    func hurry() {
        onLoop { dialler in
            guard case .waiting(let task) = dialler.state else { return }
            task.cancel()
            dialler.dial()
        }
    }

    /// For good. Done when the connection is closed. Any thread.
    func stop() -> EventLoopFuture<Void> {
        loop.flatSubmit {
            let before = self.state
            self.state = .stopped
            switch before {
            case .waiting(let task): task.cancel()
            case .connected(let channel):
                channel.close(promise: nil)
                return channel.closeFuture
            case .idle, .connecting, .stopped: break
            }
            return self.loop.makeSucceededVoidFuture()
        }
    }

    private func onLoop(_ body: @escaping @Sendable (Dialer) -> Void) {
        if loop.inEventLoop { body(self) } else { loop.execute { body(self) } }
    }

    private func dial() {
        state = .connecting
        attempts += 1
        generation += 1
        let generation = generation
        let attempt = PeerSocket.connect(
            to: peer, kind, stream: stream, loop: loop, ground: ground,
            ended: { error, wasOpen in self.ended(generation, error, wasOpen: wasOpen) })
        attempt.whenComplete { result in
            switch result {
            case .success(let channel):
                guard case .connecting = self.state, self.generation == generation else {
                    return channel.close(promise: nil)
                }
                self.state = .connected(channel)
            case .failure(let error):
                self.ended(generation, PeerSocket.explain(error, dialling: self.peer), wasOpen: false)
            }
        }
    }

    /// Of the attempt under way; told by the connection, or by the attempt when there never was one.
    private func ended(_ generation: Int, _ error: PeerError?, wasOpen: Bool) {
        guard generation == self.generation else { return }
        switch state {
        case .stopped, .idle, .waiting: return
        case .connecting, .connected: break
        }
        if wasOpen { attempts = 0 }
        if let error { report(error, wasOpen: wasOpen) }
        state = .idle
        if !wasOpen { failed(error ?? PeerError(.notConnected, "the connection ended")) }
        guard isEager, case .idle = state else { return }
        state = .waiting(loop.scheduleTask(in: pause()) { self.dial() })
    }

    private func pause() -> TimeAmount {
        let limits = ground.limits
        let doubled = limits.retryFirst.nanoseconds << Int64(min(attempts, 16))
        let longest = min(doubled, limits.retryLast.nanoseconds)
        return .nanoseconds(Int64.random(in: longest / 2...longest))
    }

    private func report(_ error: PeerError, wasOpen: Bool) {
        let facts: Logger.Metadata = [
            "peer": "\(peer.name)", "member": "\(peer.id)", "address": "\(peer.address)", "stream": "\(kind)",
            "error": "\(error)",
        ]
        switch error.code {
        case .refused where error.refusal == .stopping: break
        case .refused where error.isOtherSide && (error.refusal == .removed || error.refusal == .incarnation):
            // Whoever says so and on whichever stream: it is about this member, and waiting does not help.
            ground.gate.log(
                .critical, "the cluster does not take this member any more", key: "not taken", metadata: facts)
        case .refused, .insecure, .protocolFault:
            let reason = error.refusal.map { " \($0)" } ?? ""
            ground.gate.log(
                .error, "peer cannot be reached for good", key: "\(peer.id) \(kind) \(error.code)\(reason)",
                metadata: facts)
        default:
            ground.gate.log(
                wasOpen ? .info : .debug, "peer connection ended", key: "\(peer.id) \(kind) \(wasOpen)",
                metadata: facts)
        }
    }
}

/// Sockets between members, as both sides set them up.
enum PeerSocket {
    /// TCP_USER_TIMEOUT in milliseconds, TCP_KEEPIDLE and TCP_KEEPINTVL in seconds: NIO has no names for them.
    private static let userTimeout = ChannelOptions.Types.SocketOption(level: .tcp, name: .init(rawValue: 18))
    private static let keepIdle = ChannelOptions.Types.SocketOption(level: .tcp, name: .init(rawValue: 4))
    private static let keepInterval = ChannelOptions.Types.SocketOption(level: .tcp, name: .init(rawValue: 5))

    static let waterMark = ChannelOptions.Types.WriteBufferWaterMark(low: 256 << 10, high: 1 << 20)

    /// For a connection that goes silent below TLS: the kernel gives it up.
    static func configure(_ channel: any Channel) throws {
        guard let options = channel.syncOptions else { return }
        try options.setOption(.tcpOption(.tcp_nodelay), value: 1)
        try options.setOption(.socketOption(.so_keepalive), value: 1)
        try options.setOption(userTimeout, value: 5_000)
        try options.setOption(keepIdle, value: 2)
        try options.setOption(keepInterval, value: 1)
        try options.setOption(.writeBufferWaterMark, value: waterMark)
    }

    static func connect(
        to peer: Peer, _ kind: StreamKind, stream: any PeerStream, loop: any EventLoop, ground: PeerGround,
        ended: @escaping @Sendable (PeerError?, Bool) -> Void
    ) -> EventLoopFuture<any Channel> {
        ClientBootstrap(group: loop)
            .connectTimeout(ground.limits.connect)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try configure(channel)
                    try channel.pipeline.syncOperations.addHandlers(
                        NIOSSLClientHandler(context: ground.certificates.current.client, serverHostname: nil),
                        PeerConnection(
                            .dialler(peer, kind, stream), loop: channel.eventLoop, ground: ground, ended: ended))
                }
            }
            .connect(host: peer.address.host, port: peer.address.port)
    }

    static func explain(_ error: any Error, dialling peer: Peer) -> PeerError {
        if let error = error as? PeerError { return error }
        return PeerError(.notConnected, "cannot connect to `\(peer.name)` at \(peer.address): \(error)")
    }
}
