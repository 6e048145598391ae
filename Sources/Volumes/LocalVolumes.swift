// SPDX-License-Identifier: Apache-2.0
internal import Glibc
public import Model
internal import Synchronization

/// Volumes as directories of this node: `<directory>/<namespace>/<name>/data`, next to it `volume.json`.
///
/// Every step may be the last one before a crash: `volume.json` is written when the rest is there, and a deleted volume
/// moves to `<directory>/.trash` in one step before its files go. What is left in the trash is removed after the next
/// `ensure`, `list` or `delete`. One process may use a directory at a time. Errors are `VolumeError`.
public final class LocalVolumes: VolumeDriver, Sendable {
    struct Limits: Sendable {
        var usageEntriesMax = 1_000_000
        var usageTime = Duration.seconds(5)
        var removalTime = Duration.seconds(60)
    }

    /// Absolute.
    public let directory: String
    private let limits: Limits
    /// Held by threads of our own while they change which volumes there are, never while they walk a tree.
    private let names = Mutex(())
    private let sweep = Mutex(Sweep())

    private struct Sweep {
        var isRunning = false
        var failure: VolumeError?
    }

    /// - Parameter directory: absolute; made with mode 0700 at first use. All volumes are on its file system, unless the
    ///   operator mounts another one at the `data` of a volume.
    public convenience init(directory: String) { self.init(directory: directory, limits: Limits()) }

    init(directory: String, limits: Limits) {
        var path = directory[...]
        while path.count > 1, path.hasSuffix("/") { path = path.dropLast() }
        self.directory = String(path)
        self.limits = limits
    }

    /// Why deleted data is still on the disk, as the last try to remove it ended; nil when nothing is left.
    public var trashFailure: Reason? { sweep.withLock { $0.failure?.reason } }

    /// Makes the volume when it is absent; its data directory is then empty, mode 0755, owned by the daemon's user.
    /// A volume without `volume.json` that holds files counts as seeded: nothing may be copied over them.
    public func ensure(_ key: ObjectKey) async throws -> VolumeState {
        try Self.check(key)
        return try await perform { [self] () throws(VolumeError) in
            try locked { () throws(VolumeError) in try makeVolume(key) }
        }
    }

    /// - Throws: `volumeFailed` when the volume is absent.
    public func markSeeded(_ key: ObjectKey) async throws {
        try Self.check(key)
        try await perform { [self] () throws(VolumeError) in
            try locked { () throws(VolumeError) in
                guard let volume = try openVolume(key) else {
                    throw VolumeError(
                        .volumeFailed, "volume \(key) does not exist", hint: "make it first", errno: ENOENT,
                        path: path(key))
                }
                var record = try VolumeRecord.read(in: volume) ?? .now(seeded: false)
                guard !record.seeded else { return }
                record.seeded = true
                try record.write(in: volume)
            }
        }
    }

    /// - Throws: `deadlineExceeded` after 60 s: the volume is gone, the rest of its files is removed later. `volumeFailed`
    ///   with EBUSY when something is mounted in it.
    public func delete(_ key: ObjectKey) async throws {
        try Self.check(key)
        try await perform { [self] () throws(VolumeError) in
            guard let root = try Directory.open(directory) else { return }
            try locked { () throws(VolumeError) in try moveToTrash(key) }
            let prefix = Trash.prefix(key)
            try Trash.empty(in: root, deadline: Deadline(limits.removalTime)) { $0.hasPrefix(prefix) }
        }
    }

    /// Also those that a crash left unfinished. Entries whose names no volume can have are left out.
    public func list() async throws -> [ObjectKey] {
        try await perform { [self] () throws(VolumeError) in
            guard let root = try Directory.open(directory) else { return [] }
            var keys: [ObjectKey] = []
            for namespace in try Self.folders(in: root, isName: { Self.isValid(ObjectKey(namespace: $0, name: "x")) }) {
                guard let folder = try root.open(namespace) else { continue }
                keys += try Self.folders(in: folder, isName: { Self.isValid(ObjectKey(name: $0)) })
                    .map { ObjectKey(namespace: namespace, name: $0) }
            }
            return keys.sorted()
        }
    }

    /// Blocks of the files and directories in the volume, in bytes; an empty volume has 0. A file with several names
    /// counts once, other mounts inside do not count.
    /// - Throws: `deadlineExceeded` after 5 s, 1,000,000 entries or 200 directories inside each other.
    public func usedBytes(_ key: ObjectKey) async throws -> Int64? {
        try Self.check(key)
        return try await perform(sweeping: false) { [self] () throws(VolumeError) in
            guard let volume = try openVolume(key) else { return nil }
            guard let data = try volume.open("data") else { return 0 }
            var usage = Usage(key: key, entriesMax: limits.usageEntriesMax, deadline: Deadline(limits.usageTime))
            try usage.add(data)
            return usage.bytes
        }
    }
}

// MARK: Steps, on a thread of their own

extension LocalVolumes {
    private func makeVolume(_ key: ObjectKey) throws(VolumeError) -> VolumeState {
        let root = try Directory.make(directory, mode: 0o700)
        let namespace = try root.ensure(key.namespace, mode: 0o700)
        let volume = try namespace.ensure(key.name, mode: 0o700)
        let path = "\(path(key))/data"
        if let record = try VolumeRecord.read(in: volume) {
            if try volume.open("data") == nil {
                // The record is written after the directory: somebody removed it. Hiding lost data helps nobody.
                guard !record.seeded else {
                    throw VolumeError(
                        .volumeFailed, "the data of volume \(key) is gone: `\(path)` does not exist",
                        hint: "restore it, or delete the volume to start empty", errno: ENOENT, path: path)
                }
                try volume.ensure("data", mode: 0o755).sync()
                try volume.sync()
            }
            return VolumeState(path: path, isSeeded: record.seeded)
        }
        let data = try volume.ensure("data", mode: 0o755)
        var isEmpty = true
        try data.forEachName { _ throws(VolumeError) in
            isEmpty = false
            return false
        }
        // A crash may have come between making the directory and setting its mode.
        if isEmpty { try data.setMode(0o755) }
        try data.sync()
        try VolumeRecord.now(seeded: !isEmpty).write(in: volume)
        try namespace.sync()
        try root.sync()
        return VolumeState(path: path, isSeeded: !isEmpty)
    }

    private func moveToTrash(_ key: ObjectKey) throws(VolumeError) {
        guard let root = try Directory.open(directory), let namespace = try root.open(key.namespace) else { return }
        // Looked at before anything moves: a volume with a disk mounted at its data stays whole.
        if let volume = try namespace.openEntry(key.name) {
            let mount = try root.mount()
            guard try volume.mount() == mount else { throw .mounted(volume.path) }
            if let data = try volume.openEntry("data"), try data.mount() != mount { throw .mounted(data.path) }
        }
        let trash = try root.ensure(Trash.name, mode: 0o700)
        let target = Trash.prefix(key) + Trash.unique()
        guard renameat(namespace.raw, key.name, trash.raw, target) == 0 else {
            if errno == ENOENT { return }
            throw .system("move to the trash", path(key), errno: errno)
        }
        try trash.sync()
        try namespace.sync()
        guard unlinkat(root.raw, key.namespace, AT_REMOVEDIR) == 0 || [ENOTEMPTY, EEXIST].contains(errno) else {
            throw .system("remove", namespace.path, errno: errno)
        }
    }

    private func openVolume(_ key: ObjectKey) throws(VolumeError) -> Directory? {
        guard let root = try Directory.open(directory), let namespace = try root.open(key.namespace) else { return nil }
        return try namespace.open(key.name)
    }

    private func path(_ key: ObjectKey) -> String { "\(directory)/\(key.namespace)/\(key.name)" }

    private static func folders(
        in directory: borrowing Directory, isName: (String) -> Bool
    ) throws(VolumeError) -> [String] {
        let raw = directory.raw
        var names: [String] = []
        try directory.forEachName { entry throws(VolumeError) in
            var status = stat()
            let name = String(cString: entry)
            if isName(name), fstatat(raw, entry, &status, AT_SYMLINK_NOFOLLOW) == 0, status.st_mode & S_IFMT == S_IFDIR
            {
                names.append(name)
            }
            return true
        }
        return names
    }
}

// MARK: Threads, locks, names

extension LocalVolumes {
    private func perform<Value: Sendable>(
        sweeping: Bool = true, _ work: @escaping @Sendable () throws(VolumeError) -> Value
    ) async throws(VolumeError) -> Value {
        try await BlockingThread.run(work) { [self] in if sweeping { sweepTrash() } }
    }

    private func locked<Value: Sendable>(_ work: () throws(VolumeError) -> Value) throws(VolumeError) -> Value {
        let result = names.withLock { _ in Result { () throws(VolumeError) in try work() } }
        return try result.get()
    }

    /// What a crash or a deadline left in the trash goes now; one thread at a time does it.
    private func sweepTrash() {
        let isFree = sweep.withLock { sweep in
            defer { sweep.isRunning = true }
            return !sweep.isRunning
        }
        guard isFree else { return }
        var failure: VolumeError?
        do {
            if let root = try Directory.open(directory) {
                try Trash.empty(in: root, deadline: Deadline(limits.removalTime)) { _ in true }
            }
        } catch { failure = error }
        sweep.withLock { $0 = Sweep(isRunning: false, failure: failure) }
    }

    /// Checked again here: a path is made of them.
    private static func check(_ key: ObjectKey) throws(VolumeError) {
        do { try Validation.key(key, kind: "volume") } catch {
            throw VolumeError(.volumeFailed, error.detail, hint: error.hint, errno: EINVAL)
        }
    }

    private static func isValid(_ key: ObjectKey) -> Bool {
        do { try check(key) } catch { return false }
        return true
    }
}
