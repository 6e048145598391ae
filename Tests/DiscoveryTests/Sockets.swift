// SPDX-License-Identifier: Apache-2.0
import NIOCore
import NIOPosix
import Synchronization
import TestSupport

@testable import Discovery

/// Hands every message that arrives to a closure; a reply goes back where it came from.
private final class Datagrams: ChannelInboundHandler {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    private let receive: @Sendable ([UInt8]) -> [UInt8]?

    init(_ receive: @escaping @Sendable ([UInt8]) -> [UInt8]?) { self.receive = receive }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let envelope = unwrapInboundIn(data)
        guard let reply = receive(Array(envelope.data.readableBytesView)) else { return }
        let answer = AddressedEnvelope(remoteAddress: envelope.remoteAddress, data: ByteBuffer(bytes: reply))
        context.channel.writeAndFlush(answer, promise: nil)
    }
}

private final class Stream: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let receive: @Sendable ([UInt8]) -> [UInt8]?
    private var received = ByteBuffer()

    init(_ receive: @escaping @Sendable ([UInt8]) -> [UInt8]?) { self.receive = receive }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var data = unwrapInboundIn(data)
        received.writeBuffer(&data)
        while let message = received.readLengthPrefixedSlice(as: UInt16.self) {
            guard let reply = receive(Array(message.readableBytesView)) else { continue }
            context.channel.writeAndFlush(framed(reply), promise: nil)
        }
    }
}

private func framed(_ bytes: [UInt8]) -> ByteBuffer {
    var buffer = ByteBuffer()
    buffer.writeInteger(UInt16(bytes.count))
    buffer.writeBytes(bytes)
    return buffer
}

/// A name server of the test on 127.0.0.1, UDP and TCP.
final class FakeUpstream: Sendable {
    private let channels: [any Channel]
    let port: Int
    private let seen: SeenQuestions

    final class SeenQuestions: Sendable {
        let all = Mutex<[DNSMessage]>([])
    }

    var questions: [DNSMessage] { seen.all.withLock { $0 } }

    /// - Parameter answer: nil stays silent.
    static func start(
        _ group: any EventLoopGroup, _ answer: @escaping @Sendable (DNSMessage, _ overTCP: Bool) -> DNSMessage?
    ) async throws -> FakeUpstream {
        let seen = SeenQuestions()
        let receive: @Sendable ([UInt8], Bool) -> [UInt8]? = { bytes, overTCP in
            guard let message = try? DNSMessage.decode(bytes) else { return nil }
            seen.all.withLock { $0.append(message) }
            return answer(message, overTCP)?.encoded
        }
        let stream = try await ServerBootstrap(group: group).childChannelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(Stream { receive($0, true) })
            }
        }.bind(host: "127.0.0.1", port: 0).get()
        let port = stream.localAddress?.port ?? 0
        let datagram = try await DatagramBootstrap(group: group).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(Datagrams { receive($0, false) })
            }
        }.bind(host: "127.0.0.1", port: port).get()
        return FakeUpstream([stream, datagram], port, seen)
    }

    private init(_ channels: [any Channel], _ port: Int, _ seen: SeenQuestions) {
        self.channels = channels
        self.port = port
        self.seen = seen
    }

    func stop() async { for channel in channels { try? await channel.close() } }
}

/// Sends one message to the server and waits for the answer to it.
func exchange(
    _ message: DNSMessage, port: Int, from source: String = "127.0.0.1", overTCP: Bool = false,
    on group: any EventLoopGroup
) async throws -> DNSMessage {
    let loop = group.next()
    let promise = loop.makePromise(of: [UInt8].self)
    let deadline = loop.scheduleTask(in: .seconds(15)) { promise.fail(TestFailure("no answer within 15 s")) }
    defer { deadline.cancel() }
    let channel: any Channel
    do {
        let server = try SocketAddress(ipAddress: "127.0.0.1", port: port)
        if overTCP {
            channel = try await ClientBootstrap(group: loop).channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        Stream {
                            promise.succeed($0)
                            return nil
                        })
                }
            }.connect(to: server).get()
            try await channel.writeAndFlush(framed(message.encoded))
        } else {
            channel = try await DatagramBootstrap(group: loop).channelOption(
                .recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 8192)
            ).channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        Datagrams {
                            promise.succeed($0)
                            return nil
                        })
                }
            }.bind(host: source, port: 0).get()
            try await channel.writeAndFlush(
                AddressedEnvelope(remoteAddress: server, data: ByteBuffer(bytes: message.encoded)))
        }
    } catch {
        promise.fail(error)
        throw error
    }
    let result = await Result { try await promise.futureResult.get() }
    try? await channel.close()
    return try DNSMessage.decode(result.get())
}

extension Result where Failure == any Error, Success: Sendable {
    fileprivate init(_ body: () async throws -> Success) async {
        do { self = .success(try await body()) } catch { self = .failure(error) }
    }
}

extension DNSMessage {
    func reply(ttl: UInt32 = 100, _ values: [UInt32], flags: UInt16 = 0) -> DNSMessage {
        var reply = self
        reply.flags = DNSFlags.response | DNSFlags.recursionAvailable | self.flags | flags
        reply.answers = values.map { Record(name: questions[0].name, ttl: ttl, data: .a($0)) }
        return reply
    }
}
