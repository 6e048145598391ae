// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
internal import Model
internal import Raft
internal import Store

/// A data directory in the hands of an offline verb: no daemon can start on it meanwhile.
final class NodeDirectory {
    let path: String
    private let lock: Int32

    /// Written durably before an offline verb changes anything, removed when all of it is done. Run again, the verb goes
    /// on with what is in it; a daemon refuses to start beside it.
    struct Plan: Codable, Hashable {
        enum Verb: String, Codable { case recover, restore }

        var verb: Verb
        /// Of the new cluster.
        var clusterId: String
        /// Copy of the directory as it was; empty when nothing was there.
        var backup: String
    }

    static let planName = "offline.json"
    /// What a node writes into its directory, besides volumes, containers and the lock.
    static let stateNames = ["log", "snapshots", "state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "node.json"]

    static let scheduledName = "snapshots-scheduled"
    static let manualName = "snapshots-manual"

    /// - Throws: `Problem` `not_found` when there is no directory, `conflict` when a daemon uses it.
    init(_ path: String) throws(Problem) {
        self.path = path
        guard access(path, F_OK) == 0 else {
            throw Problem(
                .notFound, "there is no data directory `\(path)`",
                hint: "name the one the daemon was started with: --data-dir DIR")
        }
        lock = open(path + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lock >= 0 else {
            throw Problem(.internal, "cannot open `\(path)/lock`: \(Self.text(errno))", hint: "run as root")
        }
        // deinit closes it, also when this throws: a second close could be that of a file another thread just opened.
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            throw Problem(
                .conflict, "a daemon uses `\(path)`", hint: "stop it first: what runs must not be changed from outside")
        }
    }

    deinit { close(lock) }

    static func text(_ status: Int32) -> String { String(cString: strerror(status)) }

    // MARK: - Plan

    func plan() throws(Problem) -> Plan? { try Self.plan(in: path) }

    private static func plan(in path: String) throws(Problem) -> Plan? {
        guard let data = FileManager.default.contents(atPath: "\(path)/\(planName)") else { return nil }
        do {
            return try JSON.decode(Plan.self, from: data)
        } catch {
            throw Problem(.internal, "`\(path)/\(planName)` cannot be read: \(error)", hint: "restore it from a backup")
        }
    }

    func begin(_ plan: Plan) throws {
        try DurableFile.write(try JSON.encode(plan, pretty: true), to: "\(path)/\(Self.planName)")
    }

    func finish() throws(Problem) {
        guard unlink("\(path)/\(Self.planName)") == 0 || errno == ENOENT else {
            throw Problem(.internal, "cannot remove `\(path)/\(Self.planName)`: \(Self.text(errno))")
        }
        try Self.syncDirectory(path)
    }

    /// What a daemon asks before it starts.
    /// - Throws: `DaemonError` when an offline verb was interrupted half way.
    static func refuseUnfinished(_ path: String) throws(DaemonError) {
        let plan: Plan?
        do { plan = try Self.plan(in: path) } catch { throw DaemonError(error.detail, hint: error.hint) }
        guard let plan else { return }
        let command =
            switch plan.verb {
            case .recover: "hivemind cluster recover"
            case .restore: "hivemind admin restore` or `hivemind cluster snapshot restore"
            }
        throw DaemonError(
            "`\(command)` was interrupted in `\(path)`: state and log do not fit together yet",
            hint: "run it again, it goes on where it stopped")
    }

    // MARK: - Files

    static func syncDirectory(_ path: String) throws(Problem) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_DIRECTORY)
        guard descriptor >= 0 else { throw Problem(.internal, "cannot open `\(path)`: \(text(errno))") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw Problem(.internal, "cannot sync `\(path)`: \(text(errno))") }
    }

    /// Of all files below the names given, in bytes.
    func bytes(of names: [String]) -> Int64 {
        names.reduce(0) { $0 + Self.bytes(at: "\(path)/\($1)") }
    }

    /// Of a file, or of all files below a directory; 0 for what is not there.
    static func bytes(at path: String) -> Int64 {
        var status = stat()
        guard lstat(path, &status) == 0 else { return 0 }
        guard status.st_mode & S_IFMT == S_IFDIR else { return Int64(status.st_size) }
        // A directory that vanishes meanwhile has no bytes.
        let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        return names.reduce(0) { $0 + bytes(at: "\(path)/\($1)") }
    }

    func requireFree(_ bytes: Int64, to what: String) throws(Problem) {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else {
            throw Problem(.internal, "cannot ask for the free space of `\(path)`: \(Self.text(errno))")
        }
        let free = Int64(status.f_bavail) * Int64(status.f_frsize)
        // A little more than the copy: state and log are written to afterwards.
        guard free > bytes + (64 << 20) else {
            throw Problem(
                .noSpace, "to \(what) takes \(bytes) bytes and some room to work, \(free) are free at `\(path)`",
                hint: "free space on that disk first: nothing was changed")
        }
    }

    /// Copies what is there of `names` into a new directory beside them, durably: it is whole, or it does not exist under
    /// its name.
    func copy(_ names: [String], to target: String) throws {
        let files = FileManager.default
        let unfinished = "\(path)/\(target).unfinished", finished = "\(path)/\(target)"
        try removeTree(unfinished)
        guard mkdir(unfinished, 0o700) == 0 else {
            throw Problem(.internal, "cannot make `\(unfinished)`: \(Self.text(errno))")
        }
        for name in names where files.fileExists(atPath: "\(path)/\(name)") {
            try Self.copyTree("\(path)/\(name)", to: "\(unfinished)/\(name)")
        }
        try Self.syncDirectory(unfinished)
        guard rename(unfinished, finished) == 0 else {
            throw Problem(.internal, "cannot rename `\(unfinished)`: \(Self.text(errno))")
        }
        try Self.syncDirectory(path)
    }

    func removeTree(_ path: String) throws {
        if FileManager.default.fileExists(atPath: path) { try FileManager.default.removeItem(atPath: path) }
    }

    private static func copyTree(_ source: String, to target: String) throws {
        var status = stat()
        guard lstat(source, &status) == 0 else {
            throw Problem(.internal, "cannot read `\(source)`: \(text(errno))")
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { return try copyFile(source, to: target) }
        guard mkdir(target, 0o700) == 0 else { throw Problem(.internal, "cannot make `\(target)`: \(text(errno))") }
        for name in try FileManager.default.contentsOfDirectory(atPath: source).sorted() {
            try copyTree("\(source)/\(name)", to: "\(target)/\(name)")
        }
        try syncDirectory(target)
    }

    /// A file in pieces, from a place on.
    static func read(
        _ path: String, from offset: UInt64 = 0, _ body: (ArraySlice<UInt8>) throws -> Void
    ) throws {
        let input = open(path, O_RDONLY | O_CLOEXEC)
        guard input >= 0, lseek(input, off_t(clamping: offset), SEEK_SET) >= 0 else {
            let status = errno
            if input >= 0 { close(input) }
            throw Problem(
                status == ENOENT ? .notFound : .internal, "cannot read `\(path)`: \(text(status))",
                hint: "check the path and its rights")
        }
        defer { close(input) }
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = Glibc.read(input, &buffer, buffer.count)
            guard count >= 0 else { throw Problem(.internal, "cannot read `\(path)`: \(text(errno))") }
            guard count > 0 else { return }
            try body(buffer[..<count])
        }
    }

    /// Byte for byte, in pieces, and durable.
    /// - Parameters:
    ///   - offset: where in the source it begins.
    ///   - bytes: how many, at most; what is missing is found by whoever verifies the copy.
    static func copyFile(
        _ source: String, from offset: UInt64 = 0, bytes: UInt64 = .max, to target: String
    ) throws {
        let output = open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard output >= 0 else { throw Problem(.internal, "cannot write `\(target)`: \(text(errno))") }
        defer { close(output) }
        var left = bytes
        try read(source, from: offset) { piece in
            var rest = piece.prefix(Int(clamping: left))
            left -= UInt64(rest.count)
            while !rest.isEmpty {
                let written = rest.withUnsafeBytes { write(output, $0.baseAddress, $0.count) }
                guard written > 0 else {
                    throw Problem(
                        errno == ENOSPC ? .noSpace : .internal, "cannot write `\(target)`: \(text(errno))",
                        hint: "free space on that disk first")
                }
                rest = rest.dropFirst(written)
            }
        }
        guard fsync(output) == 0 else { throw Problem(.internal, "cannot sync `\(target)`: \(text(errno))") }
    }
}
