// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import GRDB
internal import Model
internal import Raft

/// A file that claims to be a snapshot, looked at without changing it.
enum SnapshotFile {
    private static let readBytes = 1 << 20

    /// SHA-256 and size of what is there, read in pieces.
    static func measure(_ storage: any LogStorage) throws(DiskError) -> (sha256: [UInt8], bytes: UInt64) {
        var hash = SHA256()
        var offset = 0
        while true {
            let piece = try storage.read(at: offset, count: readBytes)
            if piece.isEmpty { return (Array(hash.finalize()), UInt64(offset)) }
            piece.withUnsafeBytes { hash.update(bufferPointer: $0) }
            offset += piece.count
        }
    }

    /// What the file says of itself.
    /// - Throws: `SnapshotError` `newer`, or what SQLite throws.
    static func meta(path: String, checked: Bool) throws -> MetaRow {
        try open(path).read { db in
            if checked {
                let verdict = try String.fetchOne(db, sql: "PRAGMA quick_check(1)") ?? "no answer"
                guard verdict == "ok" else {
                    throw SnapshotError(.damaged, "snapshot `\(path)` is damaged inside: \(verdict)")
                }
            }
            let version = try Int.fetchOne(db, sql: "SELECT schema_version FROM meta") ?? 0
            guard version == Schema.version else {
                throw SnapshotError(
                    .newer, "snapshot `\(path)` has schema \(version), this build reads \(Schema.version)",
                    hint: "install the version that wrote it")
            }
            return try StateMachine.meta(db)
        }
    }

    static func open(_ path: String) throws -> DatabaseQueue {
        var configuration = Configuration()
        configuration.readonly = true
        return try DatabaseQueue(path: path, configuration: configuration)
    }

    /// The file is exactly what the manifest says, inside, too.
    static func verify(_ storage: any LogStorage, path: String, _ manifest: SnapshotManifest) throws(SnapshotError) {
        try snapshotCall(path) {
            let (sha256, bytes) = try measure(storage)
            guard bytes == manifest.bytes, sha256 == manifest.sha256 else {
                throw SnapshotError(
                    .damaged,
                    "snapshot `\(path)` has \(bytes) bytes with SHA-256 \(hexText(sha256)), not "
                        + "\(manifest.bytes) with \(hexText(manifest.sha256))")
            }
            let meta = try meta(path: path, checked: true)
            guard meta.snapshotMeta == manifest.meta, meta.clusterID == manifest.clusterID else {
                throw SnapshotError(.damaged, "snapshot `\(path)` is not of the entry or cluster its manifest names")
            }
        }
    }
}

extension MetaRow {
    var snapshotMeta: SnapshotMeta {
        SnapshotMeta(position: LogPosition(index: appliedIndex, term: appliedTerm), configuration: configuration)
    }
}
