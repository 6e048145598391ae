// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// An open file, closed when it goes out of scope.
struct Descriptor: ~Copyable, Sendable {
    let raw: Int32

    init(raw: Int32) { self.raw = raw }

    /// - Parameter mode: permissions, used with `O_CREAT` only.
    init(opening path: String, _ flags: Int32, mode: mode_t = 0) throws(NetworkError) {
        raw = open(path, flags | O_CLOEXEC, mode)
        guard raw >= 0 else { throw .system("cannot open `\(path)`", errno: errno) }
    }

    deinit { if raw >= 0 { close(raw) } }
}

/// A setting of the calling thread's network namespace, `/proc/sys/net/<name>`.
enum Sysctl {
    /// Writes only where the value differs, so that a read-only `/proc/sys` that is right already is no error.
    static func set(_ name: String, _ value: String) throws(NetworkError) {
        if (try? read(name)) == value { return }
        let path = "/proc/sys/net/\(name)"
        let file = try Descriptor(opening: path, O_WRONLY)
        let written = value.withCString { write(file.raw, $0, strlen($0)) }
        guard written == value.utf8.count else { throw .system("cannot set `net/\(name)` to \(value)", errno: errno) }
    }

    /// Like `set`, for settings of a part the kernel may have been built without (IPv6).
    static func setIfPresent(_ name: String, _ value: String) throws(NetworkError) {
        guard access("/proc/sys/net/\(name)", F_OK) == 0 else { return }
        try set(name, value)
    }

    /// Trailing newline removed.
    static func read(_ name: String) throws(NetworkError) -> String {
        let file = try Descriptor(opening: "/proc/sys/net/\(name)", O_RDONLY)
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = Glibc.read(file.raw, &bytes, bytes.count)
        guard count >= 0 else { throw .system("cannot read `net/\(name)`", errno: errno) }
        return String(decoding: bytes.prefix(count).filter { $0 != 10 }, as: UTF8.self)
    }
}
