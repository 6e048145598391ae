// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

/// Answers HTTP/2 PINGs below NIOHTTP2.
///
/// grpc-go pings once per sequential call to measure bandwidth; NIOHTTP2 ends the connection after 200 control frames
/// in 30 seconds and grpc-swift offers no setting for it. So this handler acknowledges PINGs itself and hands on
/// everything else byte for byte. For plaintext connections only: it reads frame headers off the wire.
final class PingShield: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private static let headerBytes = 9
    private static let pingBytes = 17
    private static let pingType: UInt8 = 6
    private static let acknowledge: UInt8 = 1

    /// Payload bytes of the current frame that still have to be handed on.
    private var payloadLeft = 0
    /// The start of a frame header or PING whose rest has not arrived.
    private var partial = ByteBuffer()

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var input = unwrapInboundIn(data)
        if partial.readableBytes > 0 {
            partial.writeBuffer(&input)
            swap(&partial, &input)
            partial.clear()
        }
        var passed: ByteBuffer?
        var answered = false
        scan: while input.readableBytes > 0 {
            if payloadLeft > 0 {
                let count = min(payloadLeft, input.readableBytes)
                payloadLeft -= count
                Self.move(count, from: &input, to: &passed)
                continue
            }
            switch Self.frame(at: input.readerIndex, of: input) {
            case .incomplete:
                partial = input
                break scan
            case .ping:
                guard var reply = input.readSlice(length: Self.pingBytes) else { break scan }
                reply.setInteger(Self.acknowledge, at: reply.readerIndex + 4)
                context.write(wrapOutboundOut(reply), promise: nil)
                answered = true
            case .other(let payload):
                payloadLeft = payload
                Self.move(Self.headerBytes, from: &input, to: &passed)
            }
        }
        if answered { context.flush() }
        if let passed { context.fireChannelRead(wrapInboundOut(passed)) }
    }

    private enum Frame {
        case incomplete
        case ping
        case other(payload: Int)
    }

    /// What starts at `index`: 24 bits of length, 8 of type, 8 of flags, 32 of stream.
    private static func frame(at index: Int, of buffer: ByteBuffer) -> Frame {
        guard buffer.readableBytes >= headerBytes,
            let high = buffer.getInteger(at: index, as: UInt8.self),
            let low = buffer.getInteger(at: index + 1, as: UInt16.self),
            let type = buffer.getInteger(at: index + 3, as: UInt8.self),
            let flags = buffer.getInteger(at: index + 4, as: UInt8.self)
        else { return .incomplete }
        let payload = Int(high) << 16 | Int(low)
        guard type == pingType, flags & acknowledge == 0, payload == pingBytes - headerBytes else {
            return .other(payload: payload)
        }
        return buffer.readableBytes >= pingBytes ? .ping : .incomplete
    }

    private static func move(_ count: Int, from input: inout ByteBuffer, to passed: inout ByteBuffer?) {
        guard var slice = input.readSlice(length: count) else { return }
        if passed?.writeBuffer(&slice) == nil { passed = slice }
    }
}
