// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

/// What a request or a reply on the forward stream carries before its payload.
///
/// Request: id u64, milliseconds left u32, payload. Reply: id u64, status u32, payload.
enum ForwardedBody {
    static let headerBytes = 12
    static let payloadBytesMax = 8 << 20

    enum Status: UInt32, Sendable {
        case done = 0
        /// Not begun: a bound is reached.
        case busy = 1
        /// Done, but its answer cannot be sent.
        case unanswerable = 2
    }

    static func split(_ payload: ByteBuffer) throws(PeerError) -> (id: UInt64, word: UInt32, payload: [UInt8]) {
        var payload = payload
        guard let id = payload.readInteger(endianness: .little, as: UInt64.self),
            let word = payload.readInteger(endianness: .little, as: UInt32.self)
        else { throw PeerError(.protocolFault, "a request or reply without its header") }
        return (id, word, payload.array)
    }
}
