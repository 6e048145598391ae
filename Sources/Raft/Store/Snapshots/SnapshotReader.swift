// SPDX-License-Identifier: Apache-2.0
internal import Raft

/// A snapshot being read in chunks. May be used on any one thread at a time.
public final class SnapshotReader: Sendable {
    public let manifest: SnapshotManifest
    private let storage: any LogStorage
    private let release: @Sendable () -> Void

    init(_ manifest: SnapshotManifest, _ storage: any LogStorage, release: @escaping @Sendable () -> Void) {
        self.manifest = manifest
        self.storage = storage
        self.release = release
    }

    deinit { release() }

    /// The chunk that begins at `offset`; nil at the end.
    public func chunk(at offset: UInt64) throws(SnapshotError) -> SnapshotChunk? {
        guard offset < manifest.bytes else { return nil }
        let count = Int(min(UInt64(SnapshotChunk.bytesMax), manifest.bytes - offset))
        let bytes = try snapshotCall(manifest.name) { try storage.read(at: Int(offset), count: count) }
        guard bytes.count == count else {
            throw SnapshotError(.damaged, "snapshot `\(manifest.name)` ends before byte \(offset + UInt64(count))")
        }
        return SnapshotChunk(offset: offset, bytes: bytes)
    }
}

/// A piece of a snapshot on its way, with a sum that says whether it arrived as it left.
public struct SnapshotChunk: Hashable, Sendable {
    public static let bytesMax = 256 << 10
    /// Of an encoded chunk, beside its bytes.
    public static let headerBytes = 12

    public var offset: UInt64
    public var bytes: [UInt8]
    /// CRC-32C of offset and bytes.
    public var checksum: UInt32

    public init(offset: UInt64, bytes: [UInt8]) {
        self.offset = offset
        self.bytes = bytes
        checksum = Self.checksum(offset, bytes)
    }

    public var isIntact: Bool { checksum == Self.checksum(offset, bytes) }

    private static func checksum(_ offset: UInt64, _ bytes: [UInt8]) -> UInt32 {
        var writer = ByteWriter()
        writer.put(offset)
        var sum = CRC32C()
        sum.update(writer.bytes[...])
        sum.update(bytes[...])
        return sum.value
    }

    /// Offset u64, checksum u32, bytes; little-endian.
    public func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.reserve(Self.headerBytes + bytes.count)
        writer.put(offset)
        writer.put(checksum)
        writer.put(bytes)
        return writer.bytes
    }

    /// Nil when it is not a chunk, too long, or not intact.
    public init?(decoding encoded: [UInt8]) {
        var reader = ByteReader(encoded[...])
        guard let offset = reader.take(UInt64.self), let checksum = reader.take(UInt32.self),
            (1...Self.bytesMax).contains(reader.rest.count)
        else { return nil }
        self.init(offset: offset, bytes: Array(reader.rest))
        guard self.checksum == checksum else { return nil }
    }
}
