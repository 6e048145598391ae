// SPDX-License-Identifier: Apache-2.0
internal import Glibc
public import Model
internal import Raft
internal import Synchronization

/// The snapshots of one node: a directory with a data file and a manifest each, of which the newest few are kept.
///
/// A snapshot exists once its manifest does, and that is written last. Calls block, some for as long as the whole state is
/// read or written; make them on one thread of their own. Readers may be used on another.
public final class SnapshotStore: Sendable {
    /// Unless another number is given.
    public static let kept = 2

    private let kept: Int
    let path: String
    let directory: POSIXLogDirectory
    private let contents: Mutex<Contents>

    private struct Contents {
        /// Oldest first.
        var snapshots: [SnapshotManifest] = []
        /// Readers by name: their files stay.
        var pins: [String: Int] = [:]
        /// Names of those read whole by this process since they were received.
        var verified: Set<String> = []
    }

    /// Names of files that are not a snapshot's own.
    enum Name {
        static let taking = "taking.tmp"
        static let manifest = "manifest.tmp"
        static let marker = "install"
        static let preparedMarker = "install.tmp"
        static let part = "incoming.part"
        static let incoming = "incoming.manifest"
        static let preparedIncoming = "incoming.tmp"

        static func data(_ snapshot: String) -> String { "\(snapshot).sqlite" }
        static func manifest(_ snapshot: String) -> String { "\(snapshot).manifest" }
    }

    /// Opens the directory, making it when absent, and removes what a crash left unfinished.
    /// - Parameter kept: how many, the newest; at least 1.
    public init(path: String, kept: Int = SnapshotStore.kept) throws(SnapshotError) {
        self.path = path
        self.kept = kept
        let (directory, snapshots) = try snapshotCall(path) {
            let directory = try POSIXLogDirectory(path: path)
            return (directory, try Self.recover(directory))
        }
        self.directory = directory
        contents = Mutex(Contents(snapshots: snapshots))
    }

    private static func recover(_ directory: POSIXLogDirectory) throws -> [SnapshotManifest] {
        let names = Set(try directory.list())
        var snapshots: [SnapshotManifest] = []
        var known: Set = [Name.marker, Name.part, Name.incoming]
        for name in names.sorted() where name.hasSuffix(".manifest") && name != Name.incoming {
            do {
                let manifest = try SnapshotManifest(decoding: read(directory, name))
                let data = Name.data(manifest.name)
                guard Name.manifest(manifest.name) == name, names.contains(data),
                    try directory.open(data).size() == Int(clamping: manifest.bytes)
                else { continue }
                snapshots.append(manifest)
                known.formUnion([name, data])
            } catch let error as SnapshotError where error.code == .damaged {
                continue
            } catch let error as SnapshotError where error.code == .newer {
                // Of no use to this build, but not ours to remove.
                known.formUnion([name, Name.data(String(name.dropLast(".manifest".count)))])
            }
        }
        // Unfinished, or damaged: neither can ever be used, and the log and the state hold more.
        for name in names.sorted() where !known.contains(name) { try directory.remove(name) }
        return snapshots.sorted { ($0.position.index, $0.createdAt) < ($1.position.index, $1.createdAt) }
    }

    private static func read(_ directory: POSIXLogDirectory, _ name: String) throws -> [UInt8] {
        try directory.open(name).read(at: 0, count: SnapshotManifest.encodedBytesMax)
    }

    /// Oldest first.
    public var snapshots: [SnapshotManifest] { contents.withLock { $0.snapshots } }
    public var newest: SnapshotManifest? { snapshots.last }

    public func file(of snapshot: SnapshotManifest) -> String { "\(path)/\(Name.data(snapshot.name))" }

    // MARK: - Taking

    /// Writes the state as it is now; commands go on being applied meanwhile.
    ///
    /// Costs one reading of the state, one writing of it packed, and reading that again for the SHA-256.
    /// - Parameter copies: the disk must have room for this many of the state, of which one is written.
    /// - Returns: the new snapshot, or the newest one when nothing was applied since.
    public func take(
        from state: StateMachine, at now: Timestamp, copies: UInt64 = 1
    ) throws(SnapshotError) -> SnapshotManifest {
        try snapshotCall(path) {
            let before = try state.read { try $0.meta() }
            if let newest, newest.meta == before.snapshotMeta, newest.clusterID == before.clusterID { return newest }
            let needed = try state.fileBytes() * copies
            let free = try freeBytes()
            guard free > needed else {
                throw SnapshotError(
                    .noSpace, "a snapshot needs up to \(needed) bytes in `\(path)`, \(free) are free",
                    hint: "free space on that disk")
            }
            do {
                try removeIfThere(Name.taking)
                try state.writeCopy(to: "\(path)/\(Name.taking)")
                let storage = try directory.open(Name.taking)
                let meta = try SnapshotFile.meta(path: "\(path)/\(Name.taking)", checked: false)
                let (sha256, bytes) = try SnapshotFile.measure(storage)
                let manifest = SnapshotManifest(
                    position: meta.snapshotMeta.position, configuration: meta.configuration,
                    clusterID: meta.clusterID, schemaVersion: Schema.version, bytes: bytes, sha256: sha256,
                    createdAt: now)
                try storage.sync()
                try adopt(Name.taking, manifest)
                return manifest
            } catch {
                try removeIfThere(Name.taking)
                throw error
            }
        }
    }

    /// Makes a complete and durable file a snapshot, then drops those no longer needed.
    func adopt(_ file: String, _ manifest: SnapshotManifest, isVerified: Bool = false) throws {
        try directory.rename(file, to: Name.data(manifest.name))
        // The name of the data is durable before a manifest speaks of it.
        try directory.sync()
        try write(manifest.encoded(), to: Name.manifest(manifest.name), by: Name.manifest)
        contents.withLock { contents in
            contents.snapshots.removeAll { $0.name == manifest.name }
            contents.snapshots.append(manifest)
            if isVerified { contents.verified.insert(manifest.name) }
            contents.snapshots.sort { ($0.position.index, $0.createdAt) < ($1.position.index, $1.createdAt) }
        }
        try prune()
    }

    /// A small file, whole or not at all.
    func write(_ bytes: [UInt8], to name: String, by prepared: String) throws {
        let storage = try directory.create(prepared)
        try storage.write(bytes, at: 0)
        try storage.sync()
        try directory.rename(prepared, to: name)
        try directory.sync()
    }

    private func prune() throws {
        let marked = try markedName()
        let surplus = contents.withLock { contents in
            let old = contents.snapshots.dropLast(kept)
            let surplus = old.filter { contents.pins[$0.name] == nil && $0.name != marked }
            contents.snapshots.removeAll { surplus.contains($0) }
            contents.verified.subtract(surplus.map(\.name))
            return surplus
        }
        for snapshot in surplus {
            // First what says that it exists.
            try removeIfThere(Name.manifest(snapshot.name))
            try removeIfThere(Name.data(snapshot.name))
        }
        if !surplus.isEmpty { try directory.sync() }
    }

    /// Removes all that was taken or received, but for one that is being put in force. A reader goes on with what it has
    /// open.
    public func forget() throws(SnapshotError) {
        try snapshotCall(path) {
            let marked = try markedName()
            let (gone, pins) = contents.withLock { contents in
                let gone = contents.snapshots.filter { $0.name != marked }
                contents.snapshots.removeAll { $0.name != marked }
                contents.verified.subtract(gone.map(\.name))
                return (gone, contents.pins)
            }
            for snapshot in gone {
                try removeIfThere(Name.manifest(snapshot.name))
                // Without a manifest it is no snapshot; the next start clears it away.
                if pins[snapshot.name] == nil { try removeIfThere(Name.data(snapshot.name)) }
            }
            try directory.sync()
        }
    }

    func removeIfThere(_ name: String) throws(DiskError) {
        do {
            try directory.remove(name)
        } catch {
            guard error.status == DiskStatus.notFound else { throw error }
        }
    }

    /// What an unprivileged process may still write to the disk of the directory.
    func freeBytes() throws(DiskError) -> UInt64 {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { throw DiskError(operation: "statvfs", file: path, status: errno) }
        return UInt64(status.f_bavail) * UInt64(status.f_frsize)
    }

    // MARK: - Reading

    /// Opens a snapshot for streaming; its file stays until the reader is released.
    public func reader(of name: String) throws(SnapshotError) -> SnapshotReader {
        let manifest = contents.withLock { contents -> SnapshotManifest? in
            guard let found = contents.snapshots.first(where: { $0.name == name }) else { return nil }
            contents.pins[name, default: 0] += 1
            return found
        }
        guard let manifest else { throw SnapshotError(.notFound, "no snapshot `\(name)` in `\(path)`") }
        do {
            return SnapshotReader(manifest, try directory.open(Name.data(name))) { [self] in unpin(name) }
        } catch {
            unpin(name)
            throw SnapshotError(error)
        }
    }

    private func unpin(_ name: String) {
        contents.withLock { contents in
            let left = (contents.pins[name] ?? 0) - 1
            contents.pins[name] = left > 0 ? left : nil
        }
    }

    /// Reads the whole of a snapshot and says whether it is what it was when it was written.
    public func verify(_ snapshot: SnapshotManifest) throws(SnapshotError) {
        let storage = try snapshotCall(path) { try directory.open(Name.data(snapshot.name)) }
        try SnapshotFile.verify(storage, path: file(of: snapshot), snapshot)
    }

    /// As `verify`, but once for what was received.
    func verifyOnce(_ snapshot: SnapshotManifest) throws(SnapshotError) {
        if contents.withLock({ $0.verified.contains(snapshot.name) }) { return }
        try verify(snapshot)
    }

    // MARK: - Putting in force

    private func markedName() throws -> String? {
        guard try directory.list().contains(Name.marker) else { return nil }
        let bytes = try directory.open(Name.marker).read(at: 0, count: 256)
        return String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
    }

    /// Says durably that this snapshot is being put in force: first the state, then the log, then `endInstall`. Whoever
    /// starts after a crash in between finds it in `pendingInstall` and does the same again.
    public func beginInstall(_ snapshot: SnapshotManifest) throws(SnapshotError) {
        try snapshotCall(path) {
            guard snapshots.contains(where: { $0.name == snapshot.name }) else {
                throw SnapshotError(.notFound, "no snapshot `\(snapshot.name)` in `\(path)`")
            }
            try write(Array("\(snapshot.name)\n".utf8), to: Name.marker, by: Name.preparedMarker)
        }
    }

    /// The snapshot a crash left half in force; nil when there is none.
    /// - Throws: `damaged` when it is gone: state and log may not fit together, this node cannot go on by itself.
    public func pendingInstall() throws(SnapshotError) -> SnapshotManifest? {
        try snapshotCall(path) {
            guard let name = try markedName() else { return nil }
            guard let found = snapshots.first(where: { $0.name == name }) else {
                throw SnapshotError(
                    .damaged, "snapshot `\(name)` was being put in force and is gone from `\(path)`",
                    hint: "empty the data directory and join the cluster again")
            }
            return found
        }
    }

    /// State and log are durable as the snapshot says.
    public func endInstall() throws(SnapshotError) {
        try snapshotCall(path) {
            try removeIfThere(Name.marker)
            try directory.sync()
            try prune()
        }
    }
}
