// SPDX-License-Identifier: Apache-2.0
internal import Raft
internal import Store

/// What is about to be sent: the snapshot's place in the log and its manifest, which only the two ends understand.
struct SnapshotOffer: Hashable, Sendable {
    static let manifestBytesMax = 256 << 10
    /// term, position, index of the membership, length of it, its bytes, total, manifest.
    static let encodedBytesMax = 8 + 16 + 8 + 4 + membershipBytesMax + 8 + manifestBytesMax
    private static let membershipBytesMax = 11 + 8 * (Membership.membersMax + Membership.removedMax)

    /// The sender's.
    var term: UInt64
    var meta: SnapshotMeta
    /// Of all chunks together.
    var bytes: UInt64
    var manifest: [UInt8]

    init(term: UInt64, meta: SnapshotMeta, bytes: UInt64, manifest: [UInt8]) {
        self.term = term
        self.meta = meta
        self.bytes = bytes
        self.manifest = manifest
    }

    func encode(into writer: inout ByteWriter) {
        let membership = meta.configuration.membership.encoded()
        writer.put(term)
        writer.put(meta.position.index)
        writer.put(meta.position.term)
        writer.put(meta.configuration.index)
        writer.put(UInt32(membership.count))
        writer.put(membership)
        writer.put(bytes)
        writer.put(manifest)
    }

    /// Nil when the bytes are not exactly one offer.
    init?(decoding bytes: ArraySlice<UInt8>) {
        var reader = ByteReader(bytes)
        guard let term = reader.take(UInt64.self), let index = reader.take(UInt64.self),
            let positionTerm = reader.take(UInt64.self), let configurationIndex = reader.take(UInt64.self),
            let length = reader.take(UInt32.self), let encoded = reader.take(count: Int(length)),
            let membership = Membership(decoding: encoded), let total = reader.take(UInt64.self),
            configurationIndex <= index, total <= UInt64(Int64.max), reader.rest.count <= Self.manifestBytesMax
        else { return nil }
        self.init(
            term: term,
            meta: SnapshotMeta(
                position: LogPosition(index: index, term: positionTerm),
                configuration: ConfigurationPoint(index: configurationIndex, membership: membership)),
            bytes: total, manifest: Array(reader.rest))
    }
}

/// How it ended, as the receiver says it.
enum SnapshotVerdict: Hashable, Sendable {
    /// Whole, verified, durable and handed on.
    case accepted
    /// Not wanted any more, or not good: why.
    case refused(String)

    static let textBytesMax = 512

    func encode(into writer: inout ByteWriter) {
        switch self {
        case .accepted: writer.put(UInt8(0))
        case .refused(let why):
            writer.put(UInt8(1))
            writer.put(why.utf8.prefix(Self.textBytesMax))
        }
    }

    init?(decoding bytes: ArraySlice<UInt8>) {
        switch bytes.first {
        case 0: self = .accepted
        case 1: self = .refused(String(decoding: bytes.dropFirst().prefix(Self.textBytesMax), as: UTF8.self))
        default: return nil
        }
    }
}

/// Where a snapshot's bytes come from.
struct SnapshotSource: Sendable {
    var offer: SnapshotOffer
    /// The chunk that begins at an offset below `offer.bytes`; may take its time.
    var read: @Sendable (_ offset: UInt64) async throws -> SnapshotChunk
}

/// Where a snapshot's bytes go. Called by one task, in this order: `resumeOffset`, `write`…, `finish` or `abort`.
protocol SnapshotReception: Sendable {
    /// What is there already, of an attempt before.
    var resumeOffset: UInt64 { get }
    /// Chunks come in order, without a gap. The sender goes on when it returns.
    func write(_ chunk: SnapshotChunk) async throws
    /// All bytes are there: verifies and hands on. The answer goes to the sender.
    func finish() async throws -> SnapshotVerdict
    /// The stream broke; what is there may serve the next attempt.
    func abort() async
}
