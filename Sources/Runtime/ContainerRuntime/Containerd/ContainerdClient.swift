// SPDX-License-Identifier: Apache-2.0
internal import ContainerdAPI
internal import GRPCCore
internal import GRPCNIOTransportHTTP2
internal import Model
internal import NIOCore
internal import SwiftProtobuf
internal import Synchronization

/// The conversation with one containerd, over two long-lived connections to its unix socket.
///
/// - `unary` carries calls with one answer: `client.unary.images.get(request)`. Every one has a deadline already
///   (10 s; 60 s for `Tasks.Create`, `Tasks.Delete`, `Diff.Apply` and removals of snapshots); pass
///   `CallOptions.timeout` for another. Reads are tried again while containerd is away, for about two seconds.
/// - `withStreams` carries everything that streams (`Content.Read` and `Content.Write`, `Snapshots.List`,
///   `Events.Subscribe`) on the other connection, at most 64 at a time, because the 100th stream of a connection waits
///   without an error. Content streams have a deadline of 10 minutes, `Subscribe` has none.
///
/// Each call goes to containerd's namespace `hivemind`; inside `ContainerdClient.$lease.withValue(id)` it also carries
/// that lease. Generated clients throw `RPCError`: `RuntimeError(_:doing:)` turns it into a Reason.
public final class ContainerdClient: Sendable {
    /// containerd's own namespace for all that is ours.
    public static let containerdNamespace = "hivemind"
    public static let streamsMax = 64
    static let streamWaitersMax = 1024

    /// Lease that protects what the calls inside `withValue` make.
    @TaskLocal public static var lease: String?

    /// Path of the socket.
    public let address: String
    public let unary: ContainerdServices

    private let streams: ContainerdServices
    private let slots = Slots(limit: ContainerdClient.streamsMax, waitersMax: ContainerdClient.streamWaitersMax)
    /// One per connection, owned until `shutdown`.
    private let connections = Mutex<[Task<Void, Never>]>([])

    /// Connects in the background; the first calls wait for the connection or fail with `unavailable`.
    /// - Throws: `RuntimeError` when the path is too long for a unix socket.
    public init(address: String) throws {
        try Self.check(socket: address)
        self.address = address
        unary = ContainerdServices(connection: try Self.connection(to: address))
        streams = ContainerdServices(connection: try Self.connection(to: address))
        connections.withLock { tasks in
            for connection in [unary.connection, streams.connection] {
                tasks.append(
                    Task {
                        // Ends only by `shutdown`, which cancels it: there is nobody left to tell.
                        try? await connection.runConnections()
                    })
            }
        }
    }

    deinit {
        for task in connections.withLock({ $0 }) { task.cancel() }
    }

    /// Ends both connections and every call on them.
    public func shutdown() async {
        unary.connection.beginGracefulShutdown()
        streams.connection.beginGracefulShutdown()
        let tasks = connections.withLock { tasks in
            defer { tasks = [] }
            return tasks
        }
        for task in tasks { task.cancel() }
        for task in tasks { await task.value }
    }

    /// Runs streaming calls on the connection for streams.
    ///
    /// Waits when 64 are running. `body` is one stream: do not nest.
    /// - Throws: `runtimeUnavailable` after `timeout` without a free place or with 1024 waiting already.
    public func withStreams<Result: Sendable>(
        waitingAtMost timeout: Duration = .seconds(30),
        _ body: @Sendable (ContainerdServices) async throws -> Result
    ) async throws -> Result {
        guard try await slots.acquire(timeout: timeout) else {
            throw RuntimeError(
                .runtimeUnavailable,
                "containerd has \(Self.streamsMax) streams of this daemon open and none ended in \(timeout)",
                hint: "fewer image transfers at a time, or try again"
            )
        }
        defer { slots.release() }
        return try await body(streams)
    }

    // MARK: Set-up

    /// A path longer than this cannot be bound or connected to.
    static let socketPathBytesMax = 107

    static func check(socket path: String) throws(RuntimeError) {
        guard path.utf8.count > socketPathBytesMax else { return }
        throw RuntimeError(
            .runtimeUnavailable,
            "the socket path `\(path)` has \(path.utf8.count) bytes, a unix socket allows \(socketPathBytesMax)",
            hint: "choose a shorter --data-dir"
        )
    }

    private static func connection(to address: String) throws -> GRPCClient<ContainerdServices.Transport> {
        let config = HTTP2ClientTransport.Posix.Config.defaults { config in
            // The default is the escaped socket path, which proxies and later versions may refuse.
            config.http2.authority = "localhost"
            // A restarted containerd is found again within two seconds, not two minutes.
            config.backoff = .init(initial: .milliseconds(50), max: .seconds(2), multiplier: 1.6, jitter: 0.2)
            config.channelDebuggingCallbacks.onCreateTCPConnection = { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(PingShield(), position: .first)
                }
            }
        }
        let transport = try HTTP2ClientTransport.Posix(
            target: .unixDomainSocket(path: address),
            transportSecurity: .plaintext,
            config: config,
            serviceConfig: ServiceConfig(methodConfig: CallPolicy.all)
        )
        return GRPCClient(transport: transport, interceptors: [ContainerdHeaders()])
    }
}

/// Adds namespace and lease to every call.
private struct ContainerdHeaders: ClientInterceptor {
    func intercept<Input: Sendable, Output: Sendable>(
        request: StreamingClientRequest<Input>,
        context: ClientContext,
        next: (StreamingClientRequest<Input>, ClientContext) async throws -> StreamingClientResponse<Output>
    ) async throws -> StreamingClientResponse<Output> {
        var request = request
        request.metadata.replaceOrAddString(ContainerdClient.containerdNamespace, forKey: "containerd-namespace")
        if let lease = ContainerdClient.lease {
            request.metadata.replaceOrAddString(lease, forKey: "containerd-lease")
        }
        return try await next(request, context)
    }
}

/// Deadlines, sizes and retries by method, handed to the transport so that no caller can forget them.
private enum CallPolicy {
    /// Limit of what is received: the transport reads the request field for it.
    private static let messageBytesMax = 16 << 20

    static let all: [MethodConfig] = [
        policy(["": [""]], timeout: .seconds(10)),
        policy(reads, timeout: .seconds(10), retries: true),
        policy(
            [
                "containerd.services.tasks.v1.Tasks": ["Create", "Delete"],
                "containerd.services.diff.v1.Diff": ["Apply"],
                "containerd.services.snapshots.v1.Snapshots": ["Remove", "Commit"],
                "containerd.services.images.v1.Images": ["Delete"],
            ], timeout: .seconds(60)),
        policy(["containerd.services.content.v1.Content": ["Read", "Write"]], timeout: .seconds(600)),
        policy(
            [
                "containerd.services.events.v1.Events": ["Subscribe"],
                "containerd.services.tasks.v1.Tasks": ["Wait"],
            ], timeout: nil),
    ]

    /// May be repeated when containerd went away in the middle of them.
    private static let reads = [
        "containerd.services.version.v1.Version": ["Version"],
        "containerd.services.introspection.v1.Introspection": ["Server", "Plugins"],
        "containerd.services.containers.v1.Containers": ["Get", "List"],
        "containerd.services.tasks.v1.Tasks": ["Get", "List", "Metrics", "ListPids"],
        "containerd.services.images.v1.Images": ["Get", "List"],
        "containerd.services.content.v1.Content": ["Info", "Status", "ListStatuses"],
        "containerd.services.snapshots.v1.Snapshots": ["Stat", "Mounts", "Usage"],
        "containerd.services.leases.v1.Leases": ["List"],
    ]

    private static func policy(
        _ methods: [String: [String]], timeout: Duration?, retries: Bool = false
    ) -> MethodConfig {
        MethodConfig(
            names: methods.flatMap { service, names in
                names.map { MethodConfig.Name(service: service, method: $0) }
            },
            timeout: timeout,
            maxRequestMessageBytes: messageBytesMax,
            executionPolicy: retries
                ? .retry(
                    RetryPolicy(
                        maxAttempts: 5,
                        initialBackoff: .milliseconds(200),
                        maxBackoff: .seconds(1),
                        backoffMultiplier: 2,
                        retryableStatusCodes: [.unavailable]
                    )) : nil
        )
    }
}
