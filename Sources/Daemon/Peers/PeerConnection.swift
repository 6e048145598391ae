// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import NIOCore
internal import NIOSSL
internal import NIOTLS
internal import Raft

/// What one kind of stream does with an open connection. Called on the connection's loop only.
protocol PeerStream: AnyObject, Sendable {
    /// Kinds of frames the other side may send.
    var expected: Set<FrameKind> { get }
    func opened(_ connection: PeerConnection)
    func received(_ frame: Frame, on connection: PeerConnection) throws(PeerError)
    /// Everything that had arrived has been given out.
    func readCompleted(_ connection: PeerConnection)
    func writabilityChanged(_ connection: PeerConnection)
    /// A ping was answered.
    func measured(roundTripNanoseconds: Int64)
    /// The last call; only after `opened`.
    func closed(_ connection: PeerConnection, _ error: PeerError?)
}

extension PeerStream {
    func readCompleted(_ connection: PeerConnection) {}
    func writabilityChanged(_ connection: PeerConnection) {}
    func measured(roundTripNanoseconds: Int64) {}
}

/// One connection between two members, from the TLS handshake to its end: who is there, may they, are they still there.
///
/// The state is touched on the channel's loop only, where every entry is; hence `@unchecked Sendable`: others hold it to hop
/// onto that loop.
final class PeerConnection: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Side {
        /// This member dialled; `ended` is told how it went.
        case dialler(Peer, StreamKind, any PeerStream)
        /// The other one dialled; the closure gives what is to be done with a member's stream, or why not.
        case acceptor((PeerConnection, Peer, StreamKind) -> Result<any PeerStream, PeerRefusal>)
    }

    private enum Phase {
        case securing
        case greeting(names: [String])
        /// The hello is being looked at.
        case checking
        case open(any PeerStream)
        case closed
    }

    let loop: any EventLoop
    private let ground: PeerGround
    private let side: Side
    /// Told once: how the connection ended and whether it had been open.
    private let ended: (_ error: PeerError?, _ wasOpen: Bool) -> Void
    private var phase = Phase.securing
    private var frames: FrameReader
    private var context: ChannelHandlerContext?
    private var deadline: Scheduled<Void>?
    private var pings: RepeatedTask?
    private var silentPings = 0
    private(set) var peer: Peer?
    private(set) var stream: StreamKind?
    private var cause: PeerError?
    private var wasOpen = false

    init(
        _ side: Side, loop: any EventLoop, ground: PeerGround,
        ended: @escaping (_ error: PeerError?, _ wasOpen: Bool) -> Void
    ) {
        self.side = side
        self.loop = loop
        self.ground = ground
        self.ended = ended
        switch side {
        case .dialler(let peer, let stream, _):
            self.peer = peer
            self.stream = stream
            frames = FrameReader(expected: [.welcome, .refusal])
        case .acceptor:
            frames = FrameReader(expected: [.hello, .refusal])
        }
    }

    // MARK: - For streams

    var isWritable: Bool { context?.channel.isWritable ?? false }
    var remote: String { context?.channel.remoteAddress.map(Self.text) ?? "unknown address" }

    /// Whole frames, as `ByteWriter.putFrame` begins them.
    func write(_ frames: [UInt8]) {
        guard let context else { return }
        context.write(wrapOutboundOut(context.channel.allocator.buffer(bytes: frames)), promise: nil)
    }

    func flush() { context?.flush() }

    /// Ends the connection at once, without the goodbye of TLS: a peer that does not read would hold it up.
    func fail(_ error: PeerError) {
        guard let context, cause == nil else { return }
        cause = error
        if let below = try? context.pipeline.syncOperations.context(handlerType: NIOSSLHandler.self) {
            below.close(promise: nil)
        } else {
            context.close(promise: nil)
        }
    }

    /// Tells the other side why, then ends the connection.
    func refuse(_ refusal: PeerRefusal) {
        guard let context, cause == nil else { return }
        cause = PeerError(.refused, refusal.text, refusal: refusal.code)
        send(.refusal) { refusal.encode(into: &$0) }
        context.flush()
        context.close(promise: nil)
    }

    /// Ends the connection without a word.
    func close() { context?.close(promise: nil) }

    private func send(_ kind: FrameKind, _ body: (inout ByteWriter) -> Void) {
        var payload = ByteWriter()
        body(&payload)
        var frame = ByteWriter()
        frame.putFrame(kind, payloadBytes: payload.bytes.count)
        frame.put(payload.bytes)
        write(frame.bytes)
    }

    // MARK: - Life

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        deadline = loop.scheduleTask(in: ground.limits.handshake) { [weak self] in
            self?.fail(PeerError(.timeout, "the other side did not finish its greeting in time"))
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent { secured(context) }
        context.fireUserInboundEventTriggered(event)
    }

    private func secured(_ context: ChannelHandlerContext) {
        let names: [String]
        do {
            let tls = try context.pipeline.syncOperations.handler(type: NIOSSLHandler.self)
            names = try tls.peerCertificate.map(PeerCertificates.names(of:)) ?? []
        } catch {
            return fail(PeerError(.insecure, "the certificate of the other side cannot be read: \(error)"))
        }
        phase = .greeting(names: names)
        guard case .dialler(let peer, let stream, _) = side else { return }
        let directory = ground.directory
        if let wrong = directory.wrongCertificate(of: peer, names: names) { return refuse(wrong) }
        send(.hello) { directory.hello(to: peer.id, stream: stream).encode(into: &$0) }
        context.flush()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard cause == nil else { return }
        silentPings = 0
        frames.feed(unwrapInboundIn(data))
        do throws(PeerError) {
            while cause == nil, let frame = try frames.next() { try take(frame) }
        } catch {
            fail(error)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if case .open(let stream) = phase { stream.readCompleted(self) }
        context.flush()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if case .open(let stream) = phase { stream.writabilityChanged(self) }
        context.fireChannelWritabilityChanged()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(TLSFault.explain(error))
        // When it was closed already nothing happens; an error must not leave a channel behind.
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        deadline?.cancel()
        pings?.cancel()
        if case .open(let stream) = phase { stream.closed(self, cause) }
        phase = .closed
        if cause == nil, !wasOpen {
            cause = PeerError(.notConnected, "the other side hung up before it said who it is")
        }
        ended(cause, wasOpen)
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        deadline?.cancel()
        pings?.cancel()
        self.context = nil
    }

    // MARK: - Greeting

    private func take(_ frame: Frame) throws(PeerError) {
        switch frame.kind {
        case .ping:
            send(.pong) { $0.put(frame.payload.readableBytesView) }
        case .pong:
            var payload = frame.payload
            if let sent = payload.readInteger(endianness: .little, as: UInt64.self) {
                let now = NIODeadline.now().uptimeNanoseconds
                if now >= sent, case .open(let stream) = phase {
                    stream.measured(roundTripNanoseconds: Int64(clamping: now - sent))
                }
            }
        case .refusal:
            guard let refusal = PeerRefusal(decoding: frame.payload.array[...]) else {
                throw PeerError(.protocolFault, "a refusal that cannot be read")
            }
            var error = PeerError(.refused, "the other side refuses: \(refusal.text)", refusal: refusal.code)
            error.isOtherSide = true
            throw error
        case .hello: try hello(frame.payload.array[...])
        case .welcome: try welcome(frame.payload.array[...])
        default:
            guard case .open(let stream) = phase else {
                throw PeerError(.protocolFault, "a \(frame.kind) frame before the greeting ended")
            }
            try stream.received(frame, on: self)
        }
    }

    private func hello(_ bytes: ArraySlice<UInt8>) throws(PeerError) {
        guard case .acceptor = side, case .greeting(let names) = phase else {
            throw PeerError(.protocolFault, "a hello where none may come")
        }
        // One hello a connection.
        frames.expected = [.refusal]
        phase = .checking
        let directory = ground.directory
        let hello: Hello
        switch Hello.decode(bytes) {
        case .hello(let decoded): hello = decoded
        case .foreignVersion(let low, let high):
            return refuse(PeerRefusal(.version, PeerDirectory.foreignVersion(low, high)))
        case .malformed: return refuse(PeerRefusal(.malformed, "the hello cannot be read"))
        }
        let peer: Peer
        switch directory.judge(hello, names: names) {
        case .success(let known): peer = known
        case .failure(let refusal): return refuse(refusal)
        }
        self.peer = peer
        stream = hello.stream
        whenAdmitted(peer, incarnation: hello.incarnation) { $0.accept(peer, hello) }
    }

    private func accept(_ peer: Peer, _ hello: Hello) {
        guard case .acceptor(let open) = side else { return }
        switch open(self, peer, hello.stream) {
        case .failure(let refusal): refuse(refusal)
        case .success(let stream):
            let version = min(hello.versions.upperBound, PeerProtocol.versions.upperBound)
            send(.welcome) { ground.directory.welcome(version: version).encode(into: &$0) }
            opened(stream)
        }
    }

    private func welcome(_ bytes: ArraySlice<UInt8>) throws(PeerError) {
        guard case .dialler(let peer, _, _) = side, case .greeting = phase else {
            throw PeerError(.protocolFault, "a welcome where none may come")
        }
        guard let welcome = Welcome(decoding: bytes) else {
            throw PeerError(.protocolFault, "a welcome that cannot be read")
        }
        frames.expected = [.refusal]
        phase = .checking
        if let refusal = ground.directory.judge(welcome, from: peer) { return refuse(refusal) }
        whenAdmitted(peer, incarnation: welcome.incarnation) { connection in
            if case .dialler(_, _, let stream) = connection.side { connection.opened(stream) }
        }
    }

    private func whenAdmitted(
        _ peer: Peer, incarnation: UInt64, _ next: @escaping @Sendable (PeerConnection) -> Void
    ) {
        ground.admit(peer, incarnation: incarnation, on: loop).whenComplete { result in
            guard self.context != nil, self.cause == nil else { return }
            switch result {
            case .success(true): next(self)
            case .success(false):
                self.refuse(PeerRefusal(.incarnation, PeerDirectory.otherIncarnation(of: peer)))
            case .failure(let error):
                self.ground.gate.log(
                    .error, "a member cannot be taken", key: "admit", metadata: ["error": "\(error)"])
                self.refuse(PeerRefusal(.busy, "this member cannot record who you are now; try again"))
            }
        }
    }

    private func opened(_ stream: any PeerStream) {
        deadline?.cancel()
        frames.expected = stream.expected.union([.refusal, .ping, .pong])
        phase = .open(stream)
        wasOpen = true
        let isDialler = if case .dialler = side { true } else { false }
        // A pause of this process counts as one missed ping, not as many.
        pings = loop.scheduleRepeatedTask(
            initialDelay: isDialler ? .zero : ground.limits.ping, delay: ground.limits.ping
        ) { [weak self] _ in self?.tick(isDialler: isDialler) }
        stream.opened(self)
        flush()
        // What came with the greeting waits in the reader.
        do throws(PeerError) {
            while cause == nil, let frame = try frames.next() { try take(frame) }
        } catch {
            fail(error)
        }
        if case .open(let stream) = phase { stream.readCompleted(self) }
    }

    private func tick(isDialler: Bool) {
        silentPings += 1
        guard silentPings <= ground.limits.silentPings else {
            return fail(PeerError(.connectionLost, "nothing was heard for \(ground.limits.silentPings) pings"))
        }
        guard isDialler else { return }
        // To a peer that does not read, more pings would only pile up.
        if isWritable {
            send(.ping) { $0.put(NIODeadline.now().uptimeNanoseconds) }
            flush()
        }
    }

    private static func text(_ address: SocketAddress) -> String {
        guard let ip = address.ipAddress, let port = address.port else { return "\(address)" }
        return PeerAddress(host: ip, port: port).description
    }
}
