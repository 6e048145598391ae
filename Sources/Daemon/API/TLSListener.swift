// SPDX-License-Identifier: Apache-2.0
internal import HummingbirdCore
internal import Logging
internal import Model
internal import NIOCore
internal import NIOPosix
internal import NIOSSL
internal import ServiceLifecycle

/// The API over TLS on TCP: for whoever shows a token, or a certificate of the cluster.
struct TLSListener: Service {
    let address: PeerAddress
    let dataDirectory: String
    let backend: any Backend
    let certificates: PeerCertificates
    let eventLoopGroup: any EventLoopGroup
    let logger: Logger
    let version: VersionView
    let limits: RequestLimits
    let metrics: APIMetrics
    /// Called once with the port, when clients can connect.
    var onListening: @Sendable (Int) async -> Void = { _ in }

    func run() async throws {
        let spool = Spool(dataDirectory: dataDirectory, limits: limits)
        let responder = Responder(
            routes: APIServer.routes(version: version), authentication: .remote(LogGate(logger)), backend: backend,
            spool: spool, limits: limits, metrics: metrics, logger: logger)
        let plain = LoopBoundConnection(responder)
        var quiet = logger
        quiet.logLevel = max(quiet.logLevel, .notice)
        let server = TLSConnection(base: plain, certificates: certificates).server(
            configuration: ServerConfiguration(
                address: .hostname(address.host, port: address.port),
                availableConnectionsDelegate: .maximum(limits.connectionsMax, logger: logger)),
            onServerRunning: { channel in
                logger.info("api listens", metadata: ["address": "\(address)"])
                await onListening(channel.localAddress?.port ?? address.port)
            },
            eventLoopGroup: eventLoopGroup, logger: quiet)
        try await server.run()
    }
}

/// A connection whose bytes are TLS; each new one uses the certificate that is current.
private struct TLSConnection: ServerChildChannel {
    let base: LoopBoundConnection
    let certificates: PeerCertificates

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<HTTP1Channel.Value> {
        channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: certificates.current.api))
        }.flatMap { base.setup(channel: channel, logger: logger) }
    }

    func handle(value: HTTP1Channel.Value, logger: Logger) async { await base.handle(value: value, logger: logger) }
}
