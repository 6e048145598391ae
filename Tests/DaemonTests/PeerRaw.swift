// SPDX-License-Identifier: Apache-2.0
import NIOCore
import NIOPosix
import NIOSSL
import Raft
import Synchronization
import TestSupport

@testable import Daemon

/// A connection to a member, or from one, that keeps to no protocol but what the test writes.
final class RawPeer: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    struct Seen {
        var bytes: [UInt8] = []
        var isSecure = false
        var isClosed = false
        var error: String?
        var channel: (any Channel)?
    }

    let seen = Mutex(Seen())
    /// Written as soon as TLS stands, with the frames that arrived as argument afterwards.
    private let answer: @Sendable (Frame) -> [UInt8]

    init(answer: @escaping @Sendable (Frame) -> [UInt8] = { _ in [] }) { self.answer = answer }

    struct Credentials {
        var authority: String
        var issued: TestAuthority.Issued?
        var maximum: TLSVersion?

        init(_ authority: TestAuthority, _ issued: TestAuthority.Issued?, maximum: TLSVersion? = nil) {
            self.authority = authority.certificate
            self.issued = issued
            self.maximum = maximum
        }

        fileprivate func fill(_ configuration: inout TLSConfiguration) throws {
            configuration.trustRoots = .file(authority)
            configuration.certificateVerification = .noHostnameVerification
            if let maximum { (configuration.minimumTLSVersion, configuration.maximumTLSVersion) = (maximum, maximum) }
            if let issued {
                configuration.certificateChain = try NIOSSLCertificate.fromPEMFile(issued.certificate).map {
                    .certificate($0)
                }
                configuration.privateKey = .privateKey(try NIOSSLPrivateKey(file: issued.key, format: .pem))
            }
        }
    }

    /// Without credentials no TLS is spoken.
    static func dial(_ port: Int?, _ credentials: Credentials?) async throws -> RawPeer {
        guard let port else { throw TestFailure("nobody listens") }
        let peer = RawPeer()
        var context: NIOSSLContext?
        if let credentials {
            var configuration = TLSConfiguration.makeClientConfiguration()
            try credentials.fill(&configuration)
            context = try NIOSSLContext(configuration: configuration)
        }
        let tls = context
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls {
                        try channel.pipeline.syncOperations.addHandler(
                            NIOSSLClientHandler(context: tls, serverHostname: nil))
                    }
                    try channel.pipeline.syncOperations.addHandler(peer)
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
        peer.seen.withLock { $0.channel = channel }
        return peer
    }

    /// Listens for one member to dial; the channel is the listener's.
    func listen(_ credentials: Credentials) async throws -> (port: Int, listener: any Channel) {
        guard let issued = credentials.issued else { throw TestFailure("a listener needs a certificate") }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: [], privateKey: .privateKey(try NIOSSLPrivateKey(file: issued.key, format: .pem)))
        try credentials.fill(&configuration)
        let tls = try NIOSSLContext(configuration: configuration)
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    self.seen.withLock { $0.channel = channel }
                    try channel.pipeline.syncOperations.addHandlers(NIOSSLServerHandler(context: tls), self)
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        guard let port = listener.localAddress?.port else { throw TestFailure("no port") }
        return (port, listener)
    }

    func send(_ bytes: [UInt8]) async throws {
        guard let channel = seen.withLock({ $0.channel }) else { throw TestFailure("no connection") }
        try await channel.writeAndFlush(channel.allocator.buffer(bytes: bytes))
    }

    /// Does not wait for the other side to take it.
    func push(_ bytes: [UInt8]) {
        guard let channel = seen.withLock({ $0.channel }) else { return }
        channel.writeAndFlush(channel.allocator.buffer(bytes: bytes), promise: nil)
    }

    func stopReading() async throws {
        guard let channel = seen.withLock({ $0.channel }) else { throw TestFailure("no connection") }
        try await channel.setOption(.autoRead, value: false).get()
    }

    func close() { seen.withLock { $0.channel }?.close(promise: nil) }

    var isClosed: Bool { seen.withLock { $0.isClosed } }

    /// Whole frames that have arrived.
    var frames: [Frame] {
        var reader = FrameReader(expected: Set(FrameKind.allCases))
        reader.feed(ByteBuffer(bytes: seen.withLock { $0.bytes }))
        var frames: [Frame] = []
        while let frame = try? reader.next() { frames.append(frame) }
        return frames
    }

    var refusal: PeerRefusal? {
        frames.first { $0.kind == .refusal }.flatMap { PeerRefusal(decoding: $0.payload.array[...]) }
    }

    func refused(_ what: String) async throws -> PeerRefusal {
        try await eventually("\(what) is refused", within: .seconds(10)) { refusal }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let before = frames.count
        let bytes = unwrapInboundIn(data).array
        seen.withLock { $0.bytes += bytes }
        for frame in frames.dropFirst(before) {
            let reply = answer(frame)
            if !reply.isEmpty {
                context.writeAndFlush(NIOAny(context.channel.allocator.buffer(bytes: reply)), promise: nil)
            }
        }
    }

    func channelInactive(context: ChannelHandlerContext) { seen.withLock { $0.isClosed = true } }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        seen.withLock { $0.error = "\(error)" }
        context.close(promise: nil)
    }
}

/// One frame's bytes.
func frame(_ kind: FrameKind, _ body: (inout ByteWriter) -> Void) -> [UInt8] {
    var payload = ByteWriter()
    body(&payload)
    return frame(kind.rawValue, length: UInt32(payload.bytes.count)) + payload.bytes
}

func frame(_ kind: UInt8, length: UInt32) -> [UInt8] {
    var writer = ByteWriter()
    writer.put(length)
    writer.put(kind)
    return writer.bytes
}

func hello(
    _ from: MemberID, to: MemberID, _ stream: StreamKind = .raft, versions: ClosedRange<UInt16> = 1...1,
    clusterID: String = "test", incarnation: UInt64 = 77
) -> [UInt8] {
    frame(.hello) {
        Hello(
            versions: versions, stream: stream, from: from, to: to, incarnation: incarnation, clusterID: clusterID
        ).encode(into: &$0)
    }
}
