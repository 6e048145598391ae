// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

extension SocketAddress {
    /// Host byte order; nil when it is not IPv4.
    var ipv4Value: UInt32? {
        guard case .v4 = self else { return nil }
        // sockaddr_in: family, port, then the address at byte 4, in network order.
        return withSockAddr { pointer, size in
            UInt32(
                bigEndian: UnsafeRawBufferPointer(start: pointer, count: size).load(fromByteOffset: 4, as: UInt32.self))
        }
    }
}

extension Upstream {
    /// The whole answer to a client's packet, SERVFAIL included; ready on `channel`'s loop.
    func answer(
        _ query: DNSQuery, _ packet: ByteBuffer, overTCP: Bool, channel: any Channel
    ) -> EventLoopFuture<ByteBuffer> {
        let start = packet.readerIndex + DNSQuery.headerLength
        let request = Request(
            question: packet.getBytes(at: start, length: query.questionLength) ?? [], flags: query.flags,
            edns: query.edns, overTCP: overTCP, limit: Responder.limit(query, overTCP: overTCP))
        let failure = Responder.refusal(query, packet, DNSRcode.serverFailure, channel.allocator)
        return ask(request, on: channel.eventLoop).map { answer in
            guard var answer else { return failure }
            answer.setInteger(query.id, at: 0)
            return answer
        }
    }
}

/// Writes in `channelRead`, flushes once in `channelReadComplete`: NIO then sends many answers by one system call.
final class DatagramHandler: ChannelInboundHandler {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    typealias OutboundOut = AddressedEnvelope<ByteBuffer>

    private let responder: Responder
    private let upstream: Upstream
    private var scratch = Responder.Scratch()

    init(responder: Responder, upstream: Upstream) {
        self.responder = responder
        self.upstream = upstream
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let envelope = unwrapInboundIn(data)
        let client = envelope.remoteAddress
        // When answers pile up the query is lost, as UDP may lose it: the queue stays bounded.
        guard context.channel.isWritable else { return }
        switch responder.respond(
            to: envelope.data, from: client.ipv4Value, overTCP: false, allocator: context.channel.allocator,
            scratch: &scratch)
        {
        case .drop: break
        case .answer(let answer):
            context.write(wrapOutboundOut(AddressedEnvelope(remoteAddress: client, data: answer)), promise: nil)
        case .forward(let query):
            let channel = context.channel
            upstream.answer(query, envelope.data, overTCP: false, channel: channel).whenSuccess { answer in
                channel.writeAndFlush(AddressedEnvelope(remoteAddress: client, data: answer), promise: nil)
            }
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) { context.flush() }

    /// One client's unreachable address must not close the socket of all.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {}
}

/// Messages with a length in front, answered as they get ready (RFC 7766 allows any order).
final class StreamHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    /// No honest query is longer.
    static let queryBytesMax = 4096

    private let responder: Responder
    private let upstream: Upstream
    private var scratch = Responder.Scratch()
    private var received = ByteBuffer()
    private var client: UInt32?

    init(responder: Responder, upstream: Upstream) {
        self.responder = responder
        self.upstream = upstream
    }

    func channelActive(context: ChannelHandlerContext) {
        client = context.channel.remoteAddress?.ipv4Value
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var data = unwrapInboundIn(data)
        received.writeBuffer(&data)
        while let length = received.getInteger(at: received.readerIndex, as: UInt16.self) {
            // A client that sends and does not read has lost its right to answers.
            guard length <= Self.queryBytesMax, context.channel.isWritable else {
                context.close(promise: nil)
                return
            }
            guard let packet = received.readLengthPrefixedSlice(as: UInt16.self) else { break }
            answer(packet, context)
        }
        received.discardReadBytes()
    }

    private func answer(_ packet: ByteBuffer, _ context: ChannelHandlerContext) {
        switch responder.respond(
            to: packet, from: client, overTCP: true, allocator: context.channel.allocator, scratch: &scratch)
        {
        case .drop: context.close(promise: nil)
        case .answer(let answer): context.write(wrapOutboundOut(Self.framed(answer)), promise: nil)
        case .forward(let query):
            let channel = context.channel
            upstream.answer(query, packet, overTCP: true, channel: channel).whenSuccess { answer in
                channel.writeAndFlush(Self.framed(answer), promise: nil)
            }
        }
    }

    private static func framed(_ answer: ByteBuffer) -> ByteBuffer {
        var framed = ByteBuffer()
        framed.reserveCapacity(answer.readableBytes + 2)
        framed.writeInteger(UInt16(answer.readableBytes))
        framed.writeImmutableBuffer(answer)
        return framed
    }

    func channelReadComplete(context: ChannelHandlerContext) { context.flush() }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
