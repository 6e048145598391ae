// SPDX-License-Identifier: Apache-2.0
public import Model
public import NIOCore
internal import NIOPosix
internal import Synchronization

/// The node's name server: answers `hive.internal` and the bare names of containers from the table published last,
/// forwards every other name to the host's nameservers. UDP and TCP.
///
/// Until the first `publish` names of the zone and single labels get SERVFAIL, which clients try again.
public final class DNSServer: NameService, Sendable {
    /// Clients beyond this many TCP connections are hung up on.
    static let connectionsMax = 256
    private static let datagramBytesMax = 2048
    private static let datagramsPerRead = 32
    /// SO_REUSEPORT, which NIO has no name for.
    private static let reusePort = ChannelOptions.Types.SocketOption(level: .socket, name: .init(rawValue: 15))

    private let responder = Responder()
    private let upstream: Upstream
    private let group: any EventLoopGroup
    private let state = Mutex(State())

    private struct State {
        var channels: [any Channel] = []
        var connections: [ObjectIdentifier: any Channel] = [:]
        var isRunning = false
    }

    /// - Parameters:
    ///   - upstreamConfiguration: a resolv.conf; read again when it changes, looked at once a second at most.
    ///   - eventLoopGroup: stays the caller's to shut down, after `stop`.
    public init(upstreamConfiguration: String = "/etc/resolv.conf", eventLoopGroup: any EventLoopGroup) {
        upstream = Upstream(path: upstreamConfiguration)
        group = eventLoopGroup
    }

    init(upstream: Upstream, eventLoopGroup: any EventLoopGroup) {
        self.upstream = upstream
        group = eventLoopGroup
    }

    public func publish(_ table: NameTable) async { responder.publish(table) }

    /// The port listened on, nil while stopped.
    public var port: Int? { state.withLock { $0.channels.first?.localAddress?.port } }

    /// - Parameters:
    ///   - address: one address, not a wildcard: a wildcard socket may answer from another address than it was asked.
    ///   - port: 0 lets the kernel choose, the same for UDP and TCP.
    /// - Throws: `DNSServerError` naming address and port; nothing is left open then.
    public func start(address: String, port: Int) async throws {
        let wasRunning = state.withLock { state in
            defer { state.isRunning = true }
            return state.isRunning
        }
        guard !wasRunning else { throw DNSServerError(address: address, port: port, detail: "it runs already") }
        do {
            try await upstream.open(own: address)
            // TCP first: its port is exclusive, whereas SO_REUSEPORT would let a second daemon share UDP's unnoticed.
            let stream = try await listen(address, port)
            keep(stream)
            let port = stream.localAddress?.port ?? port
            let loops = Array(group.makeIterator())
            for loop in loops { keep(try await bind(address, port, loop, shared: loops.count > 1)) }
        } catch {
            await stop()
            throw DNSServerError(address: address, port: port, detail: "\(error)")
        }
    }

    /// Closes every socket. Questions on their way to an upstream end by themselves within their deadline.
    public func stop() async {
        let open = state.withLock { state in
            defer { state = State() }
            return state.channels + state.connections.values
        }
        // A channel the other side has closed already has nothing left to close.
        for channel in open { try? await channel.close() }
    }

    private func keep(_ channel: any Channel) { state.withLock { $0.channels.append(channel) } }

    private func listen(_ address: String, _ port: Int) async throws -> any Channel {
        try await ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                guard self.admit(channel) else { return channel.close() }
                return channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(
                        IdleStateHandler(allTimeout: .seconds(10)),
                        StreamHandler(responder: self.responder, upstream: self.upstream))
                }
            }
            .bind(host: address, port: port).get()
    }

    private func admit(_ channel: any Channel) -> Bool {
        let id = ObjectIdentifier(channel)
        let isAdmitted = state.withLock { state in
            guard state.isRunning, state.connections.count < Self.connectionsMax else { return false }
            state.connections[id] = channel
            return true
        }
        if isAdmitted {
            channel.closeFuture.whenComplete { _ in self.state.withLock { $0.connections[id] = nil } }
        }
        return isAdmitted
    }

    private func bind(_ address: String, _ port: Int, _ loop: any EventLoop, shared: Bool) async throws -> any Channel {
        let capacity = Self.datagramBytesMax * Self.datagramsPerRead
        var bootstrap = DatagramBootstrap(group: loop)
            .channelOption(.datagramVectorReadMessageCount, value: Self.datagramsPerRead)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: capacity))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        DatagramHandler(responder: self.responder, upstream: self.upstream))
                }
            }
        if shared { bootstrap = bootstrap.channelOption(Self.reusePort, value: 1) }
        return try await bootstrap.bind(host: address, port: port).get()
    }
}

/// The server could not listen.
public struct DNSServerError: ReasonError {
    public var address: String
    public var port: Int
    /// As the system said it.
    public var detail: String

    public var reason: Reason {
        Reason(
            .networkFailed, "cannot serve names on \(address) port \(port): \(detail)",
            hint: "see that the address is on this node and that no other name server has the port")
    }
}
