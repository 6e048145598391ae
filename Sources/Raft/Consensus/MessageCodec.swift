// SPDX-License-Identifier: Apache-2.0

/// Messages as bytes, and back.
///
/// Layout, little-endian: format u8 (1), kind u8, from u64, to u64, term u64, then the body by kind. A position is index
/// u64 and term u64; an entry is index u64, term u64, kind u8, length u32 and its payload. Kinds never change meaning: a
/// new body is a new kind, a new layout a new format.
///
/// Decoding takes any bytes: it gives exactly one message or says why not, reads nothing twice and reserves nothing by a
/// number it read before comparing that with the bytes that are there.
public enum MessageCodec {
    public static let format: UInt8 = 1
    /// No message is longer, in bytes. An append holds at most 1 MiB of entries, or one entry alone of at most 1 MiB.
    public static let messageBytesMax = 4 << 20

    static let headerBytes = 26
    static let positionBytes = 16
    static let entryHeaderBytes = 21

    private enum Kind: UInt8 {
        case preVote = 1
        case preVoteReply = 2
        case vote = 3
        case voteReply = 4
        case append = 5
        case appendAccepted = 6
        case appendRejected = 7
        case heartbeat = 8
        case heartbeatReply = 9
        case commit = 10
        case timeoutNow = 11
        case readIndex = 12
        case readIndexReply = 13
        case readIndexUnknown = 14
    }

    // MARK: - Encoding

    /// Exactly what `encode` appends, in bytes. Cost: O(entries).
    public static func encodedBytes(of message: Message) -> Int {
        switch message.body {
        case .timeoutNow: headerBytes
        case .preVoteReply, .voteReply: headerBytes + 1
        case .heartbeatReply, .commit, .readIndex, .readIndexReply(_, nil): headerBytes + 8
        case .preVote, .heartbeat, .readIndexReply: headerBytes + 16
        case .vote: headerBytes + positionBytes + 1
        case .appendReply(.accepted): headerBytes + 8
        case .appendReply(.rejected): headerBytes + 8 + positionBytes
        case .append(let append):
            append.entries.reduce(headerBytes + positionBytes + 12) { $0 + entryHeaderBytes + $1.payload.count }
        }
    }

    public static func encode(_ message: Message, into writer: inout ByteWriter) {
        func begin(_ kind: Kind) {
            writer.put(format)
            writer.put(kind.rawValue)
            writer.put(message.from)
            writer.put(message.to)
            writer.put(message.term)
        }
        func put(_ position: LogPosition) {
            writer.put(position.index)
            writer.put(position.term)
        }
        switch message.body {
        case .preVote(let last):
            begin(.preVote)
            put(last)
        case .preVoteReply(let granted):
            begin(.preVoteReply)
            writer.put(UInt8(granted ? 1 : 0))
        case .vote(let last, let isTransfer):
            begin(.vote)
            put(last)
            writer.put(UInt8(isTransfer ? 1 : 0))
        case .voteReply(let granted):
            begin(.voteReply)
            writer.put(UInt8(granted ? 1 : 0))
        case .append(let append):
            begin(.append)
            put(append.previous)
            writer.put(append.commit)
            writer.put(UInt32(append.entries.count))
            for entry in append.entries {
                put(entry.position)
                writer.put(entry.kind.rawValue)
                writer.put(UInt32(entry.payload.count))
                writer.put(entry.payload)
            }
        case .appendReply(.accepted(let match)):
            begin(.appendAccepted)
            writer.put(match)
        case .appendReply(.rejected(let previous, let hint)):
            begin(.appendRejected)
            writer.put(previous)
            put(hint)
        case .heartbeat(let heartbeat):
            begin(.heartbeat)
            writer.put(heartbeat.commit)
            writer.put(heartbeat.round)
        case .heartbeatReply(let round):
            begin(.heartbeatReply)
            writer.put(round)
        case .commit(let index):
            begin(.commit)
            writer.put(index)
        case .timeoutNow:
            begin(.timeoutNow)
        case .readIndex(let id):
            begin(.readIndex)
            writer.put(id)
        case .readIndexReply(let id, let index?):
            begin(.readIndexReply)
            writer.put(id)
            writer.put(index)
        case .readIndexReply(let id, nil):
            begin(.readIndexUnknown)
            writer.put(id)
        }
    }

    public static func encoded(_ message: Message) -> [UInt8] {
        var writer = ByteWriter()
        writer.reserve(encodedBytes(of: message))
        encode(message, into: &writer)
        return writer.bytes
    }

    // MARK: - Decoding

    /// - Throws: `MessageError` when the bytes are not exactly one message this build understands.
    public static func decode(_ bytes: ArraySlice<UInt8>) throws(MessageError) -> Message {
        guard bytes.count <= messageBytesMax else { throw .tooLarge(bytes: bytes.count, limit: messageBytesMax) }
        var reader = ByteReader(bytes)
        guard let format = reader.take(UInt8.self) else { throw .truncated }
        guard format == Self.format else { throw .unknownFormat(format) }
        guard let raw = reader.take(UInt8.self) else { throw .truncated }
        guard let kind = Kind(rawValue: raw) else { throw .unknownKind(raw) }
        let from = try number(&reader)
        let to = try number(&reader)
        let term = try number(&reader)
        guard from != 0, to != 0 else { throw .malformed("member id 0") }
        let body = try body(kind, &reader)
        guard reader.rest.isEmpty else { throw .malformed("\(reader.rest.count) bytes too many") }
        return Message(from: from, to: to, term: term, body: body)
    }

    private static func body(_ kind: Kind, _ reader: inout ByteReader) throws(MessageError) -> Message.Body {
        switch kind {
        case .preVote: .preVote(last: try position(&reader))
        case .preVoteReply: .preVoteReply(granted: try flag(&reader))
        case .vote: .vote(last: try position(&reader), isTransfer: try flag(&reader))
        case .voteReply: .voteReply(granted: try flag(&reader))
        case .append: .append(try append(&reader))
        case .appendAccepted: .appendReply(.accepted(match: try number(&reader)))
        case .appendRejected: .appendReply(.rejected(previous: try number(&reader), hint: try position(&reader)))
        case .heartbeat: .heartbeat(Heartbeat(commit: try number(&reader), round: try number(&reader)))
        case .heartbeatReply: .heartbeatReply(round: try number(&reader))
        case .commit: .commit(try number(&reader))
        case .timeoutNow: .timeoutNow
        case .readIndex: .readIndex(id: try number(&reader))
        case .readIndexReply: .readIndexReply(id: try number(&reader), index: try number(&reader))
        case .readIndexUnknown: .readIndexReply(id: try number(&reader), index: nil)
        }
    }

    private static func append(_ reader: inout ByteReader) throws(MessageError) -> Append {
        let previous = try position(&reader)
        let commit = try number(&reader)
        guard let counted = reader.take(UInt32.self) else { throw .truncated }
        let count = Int(counted)
        guard count <= reader.rest.count / entryHeaderBytes else { throw .truncated }
        var entries: [Entry] = []
        entries.reserveCapacity(count)
        for _ in 0..<count {
            let place = try position(&reader)
            guard let raw = reader.take(UInt8.self), let length = reader.take(UInt32.self) else { throw .truncated }
            guard let kind = Entry.Kind(rawValue: raw) else { throw .malformed("entry of kind \(raw)") }
            guard let payload = reader.take(count: Int(length)) else { throw .truncated }
            entries.append(Entry(index: place.index, term: place.term, kind: kind, payload: payload))
        }
        return Append(previous: previous, entries: entries, commit: commit)
    }

    private static func position(_ reader: inout ByteReader) throws(MessageError) -> LogPosition {
        LogPosition(index: try number(&reader), term: try number(&reader))
    }

    private static func number(_ reader: inout ByteReader) throws(MessageError) -> UInt64 {
        guard let value = reader.take(UInt64.self) else { throw .truncated }
        return value
    }

    private static func flag(_ reader: inout ByteReader) throws(MessageError) -> Bool {
        switch reader.take(UInt8.self) {
        case 0: return false
        case 1: return true
        case nil: throw .truncated
        case .some(let other): throw .malformed("flag \(other)")
        }
    }
}

/// Why bytes are not a message.
public enum MessageError: Error, Hashable, Sendable, CustomStringConvertible {
    case truncated
    case tooLarge(bytes: Int, limit: Int)
    case unknownFormat(UInt8)
    case unknownKind(UInt8)
    case malformed(String)

    public var description: String {
        switch self {
        case .truncated: "message ends too early"
        case .tooLarge(let bytes, let limit): "message of \(bytes) bytes, at most \(limit) are allowed"
        case .unknownFormat(let format): "message of format \(format), this build knows \(MessageCodec.format)"
        case .unknownKind(let kind): "message of kind \(kind), unknown to this build"
        case .malformed(let what): "malformed message: \(what)"
        }
    }
}
