// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
public import Model
internal import Store

/// What a backup says of itself.
public struct BackupHead: Codable, Hashable, Sendable {
    public static let format = 1

    public var format: Int
    /// Of the program that wrote it.
    public var version: String
    public var clusterId: String
    /// Name of the node that wrote it.
    public var node: String
    public var createdAt: Timestamp
    /// Of the state that follows, as it stands beside a snapshot.
    var manifest: String
}

/// The whole of a cluster in one file: a line that says what it is, a line of JSON, the state as a snapshot has it, and the
/// SHA-256 of all of that as the last 65 bytes, which it is in every format to come.
enum BackupFile {
    static let mark = "hivemind-backup\n"
    /// A manifest is the most of it, escaped.
    static let headBytesMax = 2 * SnapshotManifest.encodedBytesMax
    /// Hexadecimal and a line end.
    static let sumBytes = 65

    static func head(of manifest: SnapshotManifest, node: String) throws -> [UInt8] {
        let head = BackupHead(
            format: BackupHead.format, version: BuildInfo.version, clusterId: manifest.clusterID, node: node,
            createdAt: manifest.createdAt, manifest: String(decoding: try manifest.encoded(), as: UTF8.self))
        return Array(mark.utf8) + Array(try JSON.encode(head)) + [UInt8(ascii: "\n")]
    }

    static func sum(_ hash: SHA256) -> [UInt8] {
        Array(NodeBackend.hex(Array(hash.finalize())).utf8) + [UInt8(ascii: "\n")]
    }
}

/// Reads a backup as it comes, in pieces of any size, and says in the end whether it is whole. Keeps no more of it than its
/// head.
public struct BackupCheck {
    private var hash = SHA256()
    /// The newest bytes, which may be the sum.
    private var tail: [UInt8] = []
    private var start: [UInt8] = []
    private var total: UInt64 = 0

    public init() {}

    public mutating func take(_ bytes: some Collection<UInt8>) {
        total += UInt64(bytes.count)
        let limit = BackupFile.mark.utf8.count + BackupFile.headBytesMax
        if start.count < limit { start += bytes.prefix(limit - start.count) }
        tail += bytes
        guard tail.count > BackupFile.sumBytes else { return }
        let settled = tail.count - BackupFile.sumBytes
        hash.update(data: tail[..<settled])
        tail.removeFirst(settled)
    }

    /// What a whole backup is.
    public struct Contents: Hashable, Sendable {
        public var head: BackupHead
        /// Of the file.
        public var bytes: UInt64
        /// Last entry in its state.
        public var index: UInt64
        var manifest: SnapshotManifest
        /// Where in the file the state begins.
        var stateOffset: UInt64
    }

    /// - Parameter name: of the file, for errors.
    /// - Throws: `Problem` `conflict` naming what is wrong with it.
    public func finish(_ name: String) throws -> Contents {
        let mark = Array(BackupFile.mark.utf8)
        guard start.prefix(mark.count) == mark[...] else {
            if total < UInt64(mark.count), start == Array(mark.prefix(start.count)) { throw Self.cut(name, total, nil) }
            throw Problem(
                .conflict, "\(name) is no backup of a cluster", hint: "give a file `hivemind admin backup` wrote")
        }
        let rest = start[mark.count...]
        guard let end = rest.firstIndex(of: UInt8(ascii: "\n")) else {
            guard total < UInt64(mark.count + BackupFile.headBytesMax) else { throw Self.damaged(name) }
            throw Self.cut(name, total, nil)
        }
        let offset = UInt64(end + 1)
        let head = Data(rest[..<end])
        guard tail == BackupFile.sum(hash) else {
            // What it says of its length is not to be relied on, but a help to whoever copied it.
            if let manifest = try? Self.manifest(head) {
                let (wanted, isAbsurd) = manifest.bytes.addingReportingOverflow(offset + UInt64(BackupFile.sumBytes))
                if !isAbsurd, total < wanted { throw Self.cut(name, total, wanted) }
            }
            throw Self.damaged(name)
        }
        // Only the format is sure to be there in one that is newer.
        struct Format: Codable { var format: Int, version: String? }
        guard let format = try? JSON.decode(Format.self, from: head) else { throw Self.damaged(name) }
        guard format.format == BackupHead.format else {
            throw Problem(
                .conflict,
                "\(name) has format \(format.format), this build (\(BuildInfo.version)) reads \(BackupHead.format)",
                hint: "install the version that wrote it\(format.version.map { ": \($0)" } ?? "")")
        }
        guard let decoded = try? JSON.decode(BackupHead.self, from: head) else { throw Self.damaged(name) }
        let manifest = try Self.manifest(head)
        guard manifest.schemaVersion == SnapshotManifest.currentSchema else {
            throw Problem(
                .conflict,
                "the state in \(name) has schema \(manifest.schemaVersion), this build reads \(SnapshotManifest.currentSchema)",
                hint: "install the version that wrote it: \(decoded.version)")
        }
        guard total == offset + manifest.bytes + UInt64(BackupFile.sumBytes) else { throw Self.damaged(name) }
        return Contents(
            head: decoded, bytes: total, index: manifest.position.index, manifest: manifest, stateOffset: offset)
    }

    private static func manifest(_ head: Data) throws -> SnapshotManifest {
        try SnapshotManifest(decoding: Array(try JSON.decode(BackupHead.self, from: head).manifest.utf8))
    }

    private static func cut(_ name: String, _ bytes: UInt64, _ wanted: UInt64?) -> Problem {
        Problem(
            .conflict, "\(name) is cut off after \(bytes) bytes" + (wanted.map { " of \($0)" } ?? ""),
            hint: "copy it again from where it was made, or take an older one")
    }

    private static func damaged(_ name: String) -> Problem {
        Problem(
            .conflict, "\(name) is damaged: its bytes are not those that were written",
            hint: "copy it again from where it was made, or take an older one")
    }
}
