// SPDX-License-Identifier: Apache-2.0

/// Receives one snapshot into a store, chunk by chunk in order. What arrived survives a restart: a receiver made later for
/// the same manifest goes on where this one stopped, one for another manifest takes its place. All receivers of a store
/// belong on one thread.
public final class SnapshotReceiver {
    public static let standardBytesMax: UInt64 = 4 << 30

    public let manifest: SnapshotManifest
    /// Where the next chunk begins.
    public private(set) var offset: UInt64
    private let store: SnapshotStore
    /// Nil when the store has the snapshot already, as when only the last answer was lost.
    private let storage: (any LogStorage)?

    private typealias Name = SnapshotStore.Name

    public var isComplete: Bool { offset == manifest.bytes }

    /// - Parameters:
    ///   - clusterID: of this node; nil when it does not know one yet.
    ///   - bytesMax: larger ones are refused.
    ///   - freeBytes: what the disk has; nil asks it. The file, the state it becomes, and some room must fit.
    /// - Throws: `foreign`, `newer`, `tooLarge` or `noSpace` before anything is written.
    public init(
        _ manifest: SnapshotManifest, into store: SnapshotStore, clusterID: String?,
        bytesMax: UInt64 = SnapshotReceiver.standardBytesMax, freeBytes: UInt64? = nil
    ) throws(SnapshotError) {
        if let clusterID, !clusterID.isEmpty, manifest.clusterID != clusterID {
            throw SnapshotError(
                .foreign, "the snapshot is of cluster `\(manifest.clusterID)`, this node belongs to `\(clusterID)`")
        }
        guard manifest.schemaVersion == Schema.version else {
            throw SnapshotError(
                .newer, "the snapshot has schema \(manifest.schemaVersion), this build reads \(Schema.version)",
                hint: "install the version that wrote it")
        }
        guard manifest.bytes > 0, manifest.bytes <= bytesMax else {
            throw SnapshotError(.tooLarge, "the snapshot has \(manifest.bytes) bytes, \(bytesMax) may be received")
        }
        self.manifest = manifest
        self.store = store
        if store.snapshots.contains(where: { $0.name == manifest.name && $0.meta == manifest.meta }) {
            (storage, offset) = (nil, manifest.bytes)
            return
        }
        (storage, offset) = try snapshotCall(manifest.name) {
            let encoded = try manifest.encoded()
            let names = try store.directory.list()
            var received = 0
            if names.contains(Name.incoming), names.contains(Name.part),
                try store.directory.open(Name.incoming).read(at: 0, count: encoded.count + 1) == encoded
            {
                received = try store.directory.open(Name.part).size()
            }
            // A part that is too long is not of this transfer.
            if UInt64(received) > manifest.bytes { received = 0 }
            let needed = manifest.bytes - UInt64(received) + manifest.bytes / 5 * 6
            let free = try freeBytes ?? store.freeBytes()
            guard free >= needed else {
                throw SnapshotError(
                    .noSpace, "the snapshot needs \(needed) bytes in `\(store.path)`, \(free) are free",
                    hint: "free space on that disk")
            }
            if received > 0 { return (try store.directory.open(Name.part), UInt64(received)) }
            try store.removeIfThere(Name.part)
            try store.write(encoded, to: Name.incoming, by: Name.preparedIncoming)
            return (try store.directory.create(Name.part), 0)
        }
    }

    /// - Throws: `outOfOrder` for a chunk that does not begin at `offset`, `damaged` for one that is not what was sent:
    ///   both leave what was received before, and the sender may go on from `offset`.
    public func write(_ chunk: SnapshotChunk) throws(SnapshotError) {
        guard chunk.offset == offset, !chunk.bytes.isEmpty, chunk.bytes.count <= SnapshotChunk.bytesMax,
            manifest.bytes - offset >= UInt64(chunk.bytes.count)
        else {
            throw SnapshotError(
                .outOfOrder,
                "a chunk of \(chunk.bytes.count) bytes at \(chunk.offset) does not fit at \(offset) of "
                    + "\(manifest.bytes)")
        }
        guard chunk.isIntact else {
            throw SnapshotError(.damaged, "the chunk at \(offset) is not what was sent")
        }
        try snapshotCall(manifest.name) { try storage?.write(chunk.bytes, at: Int(offset)) }
        offset += UInt64(chunk.bytes.count)
    }

    /// Verifies the whole and makes it a snapshot of the store, durably.
    /// - Throws: `damaged`, with everything received removed, so that the next transfer begins anew; `newer`.
    public func finish() throws(SnapshotError) -> SnapshotManifest {
        guard isComplete else {
            throw SnapshotError(.outOfOrder, "\(offset) of \(manifest.bytes) bytes were received")
        }
        guard storage != nil else { return manifest }
        let part = try snapshotCall(manifest.name) {
            // Looked at by name: another transfer may have taken the place of this one.
            let encoded = try manifest.encoded()
            let names = try store.directory.list()
            guard names.contains(Name.incoming), names.contains(Name.part),
                try store.directory.open(Name.incoming).read(at: 0, count: encoded.count + 1) == encoded
            else { throw SnapshotError(.outOfOrder, "another snapshot is being received in the place of this one") }
            return try store.directory.open(Name.part)
        }
        do {
            try SnapshotFile.verify(part, path: "\(store.path)/\(Name.part)", manifest)
        } catch {
            if error.code == .damaged || error.code == .newer { try discard() }
            throw error
        }
        return try snapshotCall(manifest.name) {
            try part.sync()
            try store.adopt(Name.part, manifest, isVerified: true)
            try store.removeIfThere(Name.incoming)
            return manifest
        }
    }

    /// Removes what was received.
    public func discard() throws(SnapshotError) {
        try snapshotCall(manifest.name) {
            try store.removeIfThere(Name.incoming)
            try store.removeIfThere(Name.part)
        }
    }
}
