// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model
internal import NIOCore
internal import NIOPosix

/// A listener that says a nonce to whoever connects: that it is this machine which is reached, and not another.
struct Greeter: Sendable {
    static let nonceBytes = 16
    static let limit = TimeAmount.seconds(2)

    let port: Int
    private let channel: any Channel

    /// - Throws: the system's error when the port is taken.
    static func listen(_ address: IPv4Address, port: Int, nonce: [UInt8]) async throws -> Greeter {
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Speaker(nonce: nonce))
                }
            }
            .bind(host: address.description, port: port).get()
        return Greeter(port: port, channel: channel)
    }

    func close() async {
        // It only fails when it is closed already.
        try? await channel.close().get()
    }

    /// - Returns: those of `ports` at which the nonce was not heard, with why.
    static func closed(_ ports: some Sequence<Int>, of address: IPv4Address, nonce: [UInt8]) async -> [Int: String] {
        await withTaskGroup(of: (Int, String?).self) { group in
            for port in ports {
                group.addTask { (port, await fault(host: address.description, port: port, nonce: nonce)) }
            }
            var faults: [Int: String] = [:]
            for await (port, fault) in group { faults[port] = fault }
            return faults
        }
    }

    /// - Parameter nonce: what must be heard there; nil when a connection is enough.
    /// - Returns: nil when all is well.
    static func fault(host: String, port: Int, nonce: [UInt8]?) async -> String? {
        let heard = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: [UInt8].self)
        let channel: any Channel
        do {
            channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(limit)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(Listener(wanted: nonce?.count ?? 0, heard))
                    }
                }
                .connect(host: host, port: port).get()
        } catch {
            heard.fail(error)
            return why(error)
        }
        defer { channel.close(promise: nil) }
        guard let nonce else {
            heard.succeed([])
            return nil
        }
        channel.eventLoop.scheduleTask(in: limit) { heard.succeed([]) }
        do {
            let bytes = try await heard.futureResult.get()
            return bytes == nonce ? nil : "another program answers at \(host)"
        } catch { return why(error) }
    }

    static func why(_ error: any Error) -> String {
        if case ChannelError.connectTimeout = error { return "no answer" }
        let first = (error as? NIOConnectionError)?.connectionErrors.first?.error ?? error
        return (first as? IOError).map { String(cString: strerror($0.errnoCode)) } ?? "\(first)"
    }

    private final class Speaker: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        let nonce: [UInt8]

        init(nonce: [UInt8]) { self.nonce = nonce }

        func channelActive(context: ChannelHandlerContext) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: nonce)), promise: nil)
            // The other end closes first, so that this port is free at once; one that does not is closed.
            context.eventLoop.assumeIsolated().scheduleTask(in: Greeter.limit) { context.close(promise: nil) }
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.close(promise: nil) }
    }

    private final class Listener: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let wanted: Int
        private let heard: EventLoopPromise<[UInt8]>
        private var bytes: [UInt8] = []

        init(wanted: Int, _ heard: EventLoopPromise<[UInt8]>) {
            self.wanted = wanted
            self.heard = heard
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard bytes.count < wanted else { return }
            bytes += Array(unwrapInboundIn(data).readableBytesView.prefix(wanted - bytes.count))
            if bytes.count == wanted { heard.succeed(bytes) }
        }

        func channelInactive(context: ChannelHandlerContext) { heard.succeed(bytes) }
    }
}
