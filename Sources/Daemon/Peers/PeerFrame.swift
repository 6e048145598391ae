// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Raft
internal import Store

/// What a frame carries. Raw values are on the wire and never change meaning.
enum FrameKind: UInt8, Sendable, CaseIterable {
    case hello = 1
    case welcome = 2
    case refusal = 3
    case ping = 4
    case pong = 5
    case message = 16
    case request = 32
    case reply = 33
    case snapshotOffer = 48
    case snapshotResume = 49
    case snapshotChunk = 50
    case snapshotAcknowledgement = 51
    case snapshotVerdict = 52

    /// The longest payload, in bytes. A header that says more ends the connection.
    var payloadBytesMax: Int {
        switch self {
        case .hello, .welcome: 512
        case .refusal: 2 + PeerRefusal.textBytesMax
        case .ping, .pong: 8
        case .message: MessageCodec.messageBytesMax
        case .request, .reply: ForwardedBody.headerBytes + ForwardedBody.payloadBytesMax
        case .snapshotOffer: SnapshotOffer.encodedBytesMax
        case .snapshotChunk: SnapshotChunk.headerBytes + SnapshotChunk.bytesMax
        case .snapshotResume, .snapshotAcknowledgement: 8
        case .snapshotVerdict: 1 + SnapshotVerdict.textBytesMax
        }
    }
}

struct Frame: Sendable {
    var kind: FrameKind
    var payload: ByteBuffer
}

/// Takes frames out of what arrives: length of the payload u32, kind u8, payload; little-endian.
///
/// A header is judged before a byte of its payload is waited for, and memory grows with what arrived, never with what a
/// header announces.
struct FrameReader {
    static let headerBytes = 5
    /// Storage above this is given back once it is empty.
    private static let keptBytesMax = 256 << 10

    /// The kinds that may come next.
    var expected: Set<FrameKind>
    private var received = ByteBuffer()

    init(expected: Set<FrameKind>) {
        self.expected = expected
    }

    mutating func feed(_ bytes: ByteBuffer) {
        if received.readableBytes == 0 {
            received = bytes
        } else {
            received.writeImmutableBuffer(bytes)
        }
    }

    mutating func next() throws(PeerError) -> Frame? {
        let start = received.readerIndex
        guard let length = received.getInteger(at: start, endianness: .little, as: UInt32.self),
            let raw = received.getInteger(at: start + 4, as: UInt8.self)
        else { return release() }
        guard let kind = FrameKind(rawValue: raw) else {
            throw PeerError(.protocolFault, "frame of kind \(raw), unknown to this build")
        }
        guard expected.contains(kind) else { throw PeerError(.protocolFault, "a \(kind) frame where none may come") }
        guard Int(length) <= kind.payloadBytesMax else {
            throw PeerError(
                .protocolFault, "\(kind) frame of \(length) bytes, at most \(kind.payloadBytesMax) are allowed")
        }
        guard received.readableBytes >= Self.headerBytes + Int(length) else { return release() }
        received.moveReaderIndex(forwardBy: Self.headerBytes)
        guard let payload = received.readSlice(length: Int(length)) else { return nil }
        return Frame(kind: kind, payload: payload)
    }

    private mutating func release() -> Frame? {
        if received.readableBytes == 0 {
            received = ByteBuffer()
        } else if received.readerIndex > Self.keptBytesMax {
            received.discardReadBytes()
        }
        return nil
    }
}

extension ByteWriter {
    /// A frame's header; `payloadBytes` bytes have to follow.
    mutating func putFrame(_ kind: FrameKind, payloadBytes: Int) {
        put(UInt32(payloadBytes))
        put(kind.rawValue)
    }

    /// Length u8 and the bytes, cut to what that can say.
    mutating func putShort(_ text: String) {
        let bytes = Array(text.utf8.prefix(255))
        put(UInt8(bytes.count))
        put(bytes)
    }
}

extension ByteReader {
    /// Nil when the bytes run out or are not UTF-8.
    mutating func takeShort() -> String? {
        guard let count = take(UInt8.self), let bytes = take(count: Int(count)) else { return nil }
        return String(validating: bytes, as: UTF8.self)
    }
}

extension ByteBuffer {
    /// All of it.
    var array: [UInt8] { Array(readableBytesView) }
}
