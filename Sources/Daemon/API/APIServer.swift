// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import HummingbirdCore
internal import Logging
internal import Model
internal import NIOCore
internal import NIOPosix
internal import ServiceLifecycle
internal import Synchronization

/// The HTTP API on a unix socket that only root and its group may open.
///
/// Serves until graceful shutdown: new connections are refused then, log streams end at once, other requests have
/// `limits.drain` to be answered.
struct APIServer: Service {
    let socketPath: String
    let dataDirectory: String
    let backend: any Backend
    let eventLoopGroup: any EventLoopGroup
    let logger: Logger
    let version: VersionView
    let limits: RequestLimits
    let metrics: APIMetrics
    /// Called once, when clients can connect.
    let onListening: @Sendable () async -> Void

    /// - Parameters:
    ///   - socketPath: absolute, at most 107 bytes; `<socketPath>.lock` is made beside it and stays.
    ///   - dataDirectory: uploads are stored in `spool` below it while their request lasts.
    init(
        socketPath: String, dataDirectory: String, backend: any Backend,
        eventLoopGroup: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton, logger: Logger,
        version: VersionView, limits: RequestLimits = RequestLimits(), metrics: APIMetrics = APIMetrics(),
        onListening: @escaping @Sendable () async -> Void = {}
    ) {
        self.socketPath = socketPath
        self.dataDirectory = dataDirectory
        self.backend = backend
        self.eventLoopGroup = eventLoopGroup
        self.logger = logger
        self.version = version
        self.limits = limits
        self.metrics = metrics
        self.onListening = onListening
    }

    static func routes(version: VersionView) -> RouteTable {
        RouteTable(
            routes: AppRoutes.all + TaskRoutes.all + VolumeRoutes.all + ImageRoutes.all + ConfigRoutes.all
                + NodeRoutes.all + ClusterRoutes.all + MembershipRoutes.all + SecurityRoutes.all + NetworkRoutes.all
                + EventRoutes.all + TokenRoutes.all
                + SystemRoutes.all(version: version))
    }

    /// - Throws: `APIServerError` when the socket is another daemon's or cannot be made.
    func run() async throws {
        let lock = try SocketLock(socketPath: socketPath)
        let spool = Spool(dataDirectory: dataDirectory, limits: limits)
        try spool.prepare()
        let responder = Responder(
            routes: Self.routes(version: version), authentication: .socket, backend: backend, spool: spool,
            limits: limits, metrics: metrics, logger: logger)
        let connection = LoopBoundConnection(responder)
        let opened = OpenedFlag()
        let server = connection.server(
            configuration: ServerConfiguration(
                address: .unixDomainSocket(path: socketPath),
                availableConnectionsDelegate: .maximum(limits.connectionsMax, logger: logger)),
            onServerRunning: { channel in
                // Until here the umask decides; the daemon's lets nobody else in.
                guard chmod(socketPath, 0o660) == 0 else {
                    opened.fail(.system("set the permissions of", socketPath, errno))
                    channel.close(promise: nil)
                    return
                }
                logger.info("api listens", metadata: ["socket": "\(socketPath)"])
                await onListening()
            },
            eventLoopGroup: eventLoopGroup, logger: serverLogger)
        try await server.run()
        // Under the lock: nobody else can have bound it meanwhile.
        unlink(socketPath)
        lock.release()
        if let error = opened.error { throw error }
    }

    /// The server's own lines repeat ours; what it warns of is kept.
    private var serverLogger: Logger {
        var logger = logger
        logger.logLevel = max(logger.logLevel, .notice)
        return logger
    }
}

/// Carries a failure out of the server's start, whose callback cannot throw.
private final class OpenedFlag: Sendable {
    private let state = Mutex<APIServerError?>(nil)
    var error: APIServerError? { state.withLock { $0 } }
    func fail(_ error: APIServerError) { state.withLock { $0 = error } }
}
