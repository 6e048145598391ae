// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model

/// An open directory. Everything below it is named relative to the descriptor and no symlink is followed, so that
/// nobody can lead the daemon out of the tree by swapping a directory for a link.
struct Directory: ~Copyable {
    let raw: Int32
    /// For messages only.
    let path: String

    private init(raw: Int32, path: String) {
        self.raw = raw
        self.path = path
    }

    deinit { close(raw) }

    private static let flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC

    /// Nil when there is none. Symlinks above and at `path` are followed: the operator chose it.
    static func open(_ path: String) throws(VolumeError) -> Directory? {
        let raw = Glibc.open(path, flags)
        if raw >= 0 { return Directory(raw: raw, path: path) }
        guard errno == ENOENT else { throw .system("open", path, errno: errno) }
        return nil
    }

    /// Makes `path` with what is missing above it, durable when it returns.
    static func make(_ path: String, mode: mode_t) throws(VolumeError) -> Directory {
        if let found = try open(path) { return found }
        guard let slash = path.lastIndex(of: "/") else {
            throw VolumeError(
                .volumeFailed, "the directory of the volumes `\(path)` is not absolute", hint: "name it from `/` on")
        }
        let above = slash == path.startIndex ? "/" : String(path[..<slash])
        let parent = try make(above, mode: 0o755)
        let name = String(path[path.index(after: slash)...])
        guard mkdirat(parent.raw, name, mode) == 0 || errno == EEXIST else {
            throw .system("make", path, errno: errno)
        }
        try parent.sync()
        guard let made = try open(path) else { throw .system("open", path, errno: ENOENT) }
        return made
    }

    /// Nil when there is none; a symlink is refused.
    func open(_ name: String) throws(VolumeError) -> Directory? {
        let child = openat(raw, name, Self.flags | O_NOFOLLOW)
        if child >= 0 { return Directory(raw: child, path: "\(path)/\(name)") }
        guard errno == ENOENT else { throw .system("open", "\(path)/\(name)", errno: errno) }
        return nil
    }

    /// Opens the directory, made with exactly `mode` when absent.
    func ensure(_ name: String, mode: mode_t) throws(VolumeError) -> Directory {
        let isNew = mkdirat(raw, name, mode) == 0
        guard isNew || errno == EEXIST else { throw .system("make", "\(path)/\(name)", errno: errno) }
        guard let child = try open(name) else { throw .system("open", "\(path)/\(name)", errno: ENOENT) }
        if isNew { try child.setMode(mode) }
        return child
    }

    /// The umask has no say.
    func setMode(_ mode: mode_t) throws(VolumeError) {
        guard fchmod(raw, mode) == 0 else { throw .system("set the mode of", path, errno: errno) }
    }

    /// Names in it are on the disk when this returns.
    func sync() throws(VolumeError) {
        guard fsync(raw) == 0 else { throw .system("sync", path, errno: errno) }
    }

    /// Number of the mount it is on; two bind mounts of one file system differ.
    func mount() throws(VolumeError) -> UInt64 {
        let info = "/proc/self/fdinfo/\(raw)"
        let file = Glibc.open(info, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw .system("open", info, errno: errno) }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 512)
        let count = read(file, &bytes, bytes.count)
        guard count >= 0 else { throw .system("read", info, errno: errno) }
        for line in String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: "\n") {
            let fields = line.split(whereSeparator: { $0 == ":" || $0 == "\t" || $0 == " " })
            if fields.first == "mnt_id", let number = fields.dropFirst().first.flatMap({ UInt64($0) }) { return number }
        }
        throw VolumeError(.volumeFailed, "`\(info)` names no mount", path: path)
    }

    /// Names in it without `.` and `..`, in no order. Names that are not UTF-8 come as the bytes they are.
    /// - Parameter body: gets a name ending in 0; false ends the listing.
    func forEachName(_ body: (UnsafePointer<CChar>) throws(VolumeError) -> Bool) throws(VolumeError) {
        // A descriptor of its own: the position of a listing belongs to the open file.
        let own = openat(raw, ".", Self.flags)
        guard own >= 0 else { throw .system("list", path, errno: errno) }
        guard let stream = fdopendir(own) else {
            let number = errno
            close(own)
            throw .system("list", path, errno: number)
        }
        defer { closedir(stream) }
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                guard errno == 0 else { throw .system("list", path, errno: errno) }
                return
            }
            let offset = MemoryLayout<dirent>.offset(of: \.d_name) ?? 19
            let name = UnsafeRawPointer(entry).advanced(by: offset).assumingMemoryBound(to: CChar.self)
            if strcmp(name, ".") == 0 || strcmp(name, "..") == 0 { continue }
            guard try body(name) else { return }
        }
    }

    /// Opens by the bytes of a name; nil when it is gone or no directory.
    func openEntry(_ name: UnsafePointer<CChar>) throws(VolumeError) -> Directory? {
        let child = openat(raw, name, Self.flags | O_NOFOLLOW)
        if child >= 0 { return Directory(raw: child, path: entryPath(name)) }
        guard [ENOENT, ENOTDIR, ELOOP].contains(errno) else { throw .system("open", entryPath(name), errno: errno) }
        return nil
    }

    func entryPath(_ name: UnsafePointer<CChar>) -> String { "\(path)/\(String(cString: name))" }
}

/// When work has to give up, on the clock that nobody sets.
struct Deadline {
    private let end: ContinuousClock.Instant
    let duration: Duration

    init(_ duration: Duration) {
        self.duration = duration
        end = .now + duration
    }

    var isOver: Bool { ContinuousClock.now >= end }
}
