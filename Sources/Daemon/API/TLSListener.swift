// SPDX-License-Identifier: Apache-2.0
internal import HummingbirdCore
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import NIOSSL
internal import ServiceLifecycle

/// What of the API is there over TLS on TCP: so far what machines need that are to join. Everything else is on the socket.
struct TLSListener: Service {
    let address: PeerAddress
    let dataDirectory: String
    let backend: any Backend
    let certificates: PeerCertificates
    let eventLoopGroup: any EventLoopGroup
    let logger: Logger
    let limits: RequestLimits

    func run() async throws {
        let spool = Spool(dataDirectory: dataDirectory, limits: limits)
        let responder = Responder(
            routes: RouteTable(routes: MembershipRoutes.open), backend: backend, spool: spool, limits: limits,
            metrics: APIMetrics(), logger: logger)
        var http = HTTP1Channel.Configuration(idleTimeout: .seconds(75))
        http.httpDecoder = .init(maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 32 << 10, maxHeaderFieldCount: 100)
        let plain = LoopBoundConnection(
            base: HTTP1Channel(
                responder: { request, writer, channel in try await responder.respond(request, writer, channel) },
                configuration: http),
            drain: limits.drain + .seconds(1))
        var quiet = logger
        quiet.logLevel = max(quiet.logLevel, .notice)
        let server = TLSConnection(base: plain, certificates: certificates).server(
            configuration: ServerConfiguration(
                address: .hostname(address.host, port: address.port),
                availableConnectionsDelegate: .maximum(limits.connectionsMax, logger: logger)),
            onServerRunning: { _ in logger.info("api listens", metadata: ["address": "\(address)"]) },
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
