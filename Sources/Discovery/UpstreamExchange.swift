// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import NIOPosix

/// An upstream's answer, checked to be well formed and to our question.
struct UpstreamAnswer: Sendable {
    var bytes: [UInt8]
    var message: DNSMessage
    var ttlOffsets: [Int]

    /// Another server may do better.
    var isFailure: Bool {
        [DNSRcode.serverFailure, DNSRcode.notImplemented, DNSRcode.refused].contains(message.rcode)
    }
}

/// One question to one server on a socket of its own.
enum UpstreamExchange {
    enum Failure: Error { case timeout, closed }

    /// Fails at `timeout` at the latest; the socket is closed in any case.
    static func run(
        _ request: Upstream.Request, server: SocketAddress, timeout: TimeAmount, on loop: any EventLoop
    ) -> EventLoopFuture<UpstreamAnswer> {
        let id = UInt16.random(in: .min ... .max)
        let promise = loop.makePromise(of: UpstreamAnswer.self)
        let query = encode(request, id: id)
        let expected = request.question.map(lowercase)
        let deadline = loop.scheduleTask(in: timeout) { promise.fail(Failure.timeout) }
        let connected: EventLoopFuture<any Channel>
        if request.overTCP {
            connected = ClientBootstrap(group: loop).connectTimeout(timeout).channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        StreamReply(id: id, question: expected, promise: promise))
                }
            }.connect(to: server)
        } else {
            connected = DatagramBootstrap(group: loop)
                .channelOption(
                    .recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Responder.udpBytesMax)
                )
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(
                            DatagramReply(id: id, question: expected, promise: promise))
                    }
                }.connect(to: server)
        }
        connected.whenComplete { result in
            switch result {
            case .failure(let error): promise.fail(error)
            case .success(let channel):
                promise.futureResult.whenComplete { _ in channel.close(promise: nil) }
                let sent: EventLoopFuture<Void>
                if request.overTCP {
                    var framed = ByteBuffer()
                    framed.writeInteger(UInt16(query.readableBytes))
                    framed.writeImmutableBuffer(query)
                    sent = channel.writeAndFlush(framed)
                } else {
                    sent = channel.writeAndFlush(AddressedEnvelope(remoteAddress: server, data: query))
                }
                sent.whenFailure { promise.fail($0) }
            }
        }
        promise.futureResult.whenComplete { _ in deadline.cancel() }
        return promise.futureResult
    }

    private static func encode(_ request: Upstream.Request, id: UInt16) -> ByteBuffer {
        var query = ByteBuffer()
        let flags = request.flags & (DNSFlags.recursionDesired | DNSFlags.checkingDisabled)
        query.writeMultipleIntegers(id, flags, UInt16(1), UInt16(0), UInt16(0), UInt16(request.edns == nil ? 0 : 1))
        query.writeBytes(request.question)
        if let edns = request.edns {
            let payload = min(max(edns.payload, 512), Responder.ednsPayload)
            query.writeMultipleIntegers(UInt8(0), DNSType.opt, payload, UInt16(0))
            query.writeMultipleIntegers(UInt16(edns.wantsDNSSEC ? 0x8000 : 0), UInt16(0))
        }
        return query
    }

    /// Nil for what is not the answer: another id or question, or no well-formed message.
    static func match(_ bytes: [UInt8], id: UInt16, question: [UInt8]) -> UpstreamAnswer? {
        let end = DNSQuery.headerLength + question.count
        guard bytes.count >= end else { return nil }
        guard bytes[DNSQuery.headerLength..<end].lazy.map(lowercase).elementsEqual(question) else { return nil }
        var offsets: [Int] = []
        guard let message = try? DNSMessage.decode(bytes, ttlOffsets: &offsets) else { return nil }
        guard message.id == id, message.isResponse, message.questions.count == 1 else { return nil }
        return UpstreamAnswer(bytes: bytes, message: message, ttlOffsets: offsets)
    }
}

/// What is not our answer is passed over: it may be forged, and the right one may still come.
private final class DatagramReply: ChannelInboundHandler {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    private let id: UInt16
    private let question: [UInt8]
    private let promise: EventLoopPromise<UpstreamAnswer>

    init(id: UInt16, question: [UInt8], promise: EventLoopPromise<UpstreamAnswer>) {
        self.id = id
        self.question = question
        self.promise = promise
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = Array(unwrapInboundIn(data).data.readableBytesView)
        if let answer = UpstreamExchange.match(bytes, id: id, question: question) { promise.succeed(answer) }
    }

    func channelInactive(context: ChannelHandlerContext) { promise.fail(UpstreamExchange.Failure.closed) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { promise.fail(error) }
}

private final class StreamReply: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let id: UInt16
    private let question: [UInt8]
    private let promise: EventLoopPromise<UpstreamAnswer>
    /// At most one message and one read.
    private var received = ByteBuffer()

    init(id: UInt16, question: [UInt8], promise: EventLoopPromise<UpstreamAnswer>) {
        self.id = id
        self.question = question
        self.promise = promise
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var data = unwrapInboundIn(data)
        received.writeBuffer(&data)
        guard let message = received.readLengthPrefixedSlice(as: UInt16.self) else { return }
        if let answer = UpstreamExchange.match(Array(message.readableBytesView), id: id, question: question) {
            promise.succeed(answer)
        } else {
            promise.fail(UpstreamExchange.Failure.closed)
        }
    }

    func channelInactive(context: ChannelHandlerContext) { promise.fail(UpstreamExchange.Failure.closed) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { promise.fail(error) }
}
