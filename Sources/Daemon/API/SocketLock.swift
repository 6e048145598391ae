// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model

/// Why the API cannot listen.
struct APIServerError: Error, CustomStringConvertible {
    enum Code: String, Sendable { case socketInUse, socketPath, notPermitted, system }
    var code: Code
    var message: String
    var hint: String?
    /// As the kernel gave it.
    var errno: Int32?

    var description: String { hint.map { "\(message)\nhint: \($0)" } ?? message }

    static func system(_ action: String, _ path: String, _ number: Int32) -> Self {
        let denied = number == EACCES || number == EPERM || number == EROFS
        return Self(
            code: denied ? .notPermitted : .system,
            message: "cannot \(action) `\(path)`: \(String(cString: strerror(number)))",
            hint: denied ? "run as root, or choose a path of your own with --socket and --data-dir" : nil,
            errno: number)
    }
}

/// The right to serve one socket path, held by an flock on `<path>.lock` until it is dropped.
///
/// Binding replaces a socket file that exists, so without the lock a second daemon would take the first one's clients.
/// The kernel gives the lock back when its holder dies. The lock file stays: removing it would let two
/// daemons hold locks on two files of one name.
struct SocketLock: ~Copyable {
    private let descriptor: Int32

    /// - Throws: `socketInUse` when another process holds it, `socketPath` when no socket can be at `path`.
    init(socketPath path: String) throws(APIServerError) {
        descriptor = try Self.locked(path)
    }

    deinit { close(descriptor) }

    /// Ends it; written down so that it cannot end earlier.
    consuming func release() {}

    private static func locked(_ path: String) throws(APIServerError) -> Int32 {
        guard path.hasPrefix("/") else {
            throw APIServerError(
                code: .socketPath, message: "socket path `\(path)` is not absolute",
                hint: "start --socket with `/`")
        }
        guard path.utf8.count <= 107 else {
            throw APIServerError(
                code: .socketPath, message: "socket path `\(path)` has \(path.utf8.count) bytes, more than 107",
                hint: "choose a shorter --socket; the kernel allows no more")
        }
        if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            try ensureDirectory(String(path[..<slash]), mode: 0o755)
        }
        let lockPath = path + ".lock"
        let descriptor = open(lockPath, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw .system("open", lockPath, errno) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let number = errno
            close(descriptor)
            guard number == EWOULDBLOCK else { throw .system("lock", lockPath, number) }
            throw APIServerError(
                code: .socketInUse, message: "another daemon serves `\(path)`",
                hint: "stop it, or start this one with another --socket and --data-dir", errno: number)
        }
        do { try refuseForeignFile(path) } catch {
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// A file that is no socket is somebody's data and is never replaced.
    private static func refuseForeignFile(_ path: String) throws(APIServerError) {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT != S_IFSOCK else { return }
        throw APIServerError(
            code: .socketPath, message: "`\(path)` exists and is not a socket",
            hint: "move it away or choose another --socket")
    }
}

/// Makes a directory and those above it. No error when it exists.
func ensureDirectory(_ path: String, mode: mode_t) throws(APIServerError) {
    var status = stat()
    if stat(path, &status) == 0 {
        if status.st_mode & S_IFMT == S_IFDIR { return }
        throw APIServerError.system("use as a directory", path, ENOTDIR)
    }
    if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
        try ensureDirectory(String(path[..<slash]), mode: 0o755)
    }
    if mkdir(path, mode) != 0, errno != EEXIST { throw .system("make directory", path, errno) }
}
