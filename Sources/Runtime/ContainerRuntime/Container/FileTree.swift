// SPDX-License-Identifier: Apache-2.0
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import Glibc
internal import Model

/// Copies a directory of an image into an empty volume: owners, modes, times, links and nodes as they are. Extended
/// attributes are not copied and hard links become files of their own. Blocks; works below open directories only.
enum FileTree {
    private static let depthMax = 256

    /// Fills `descriptor` with what `path` has, and gives it that directory's owner and mode. Does nothing when the
    /// image has no such directory or the volume is not empty.
    static func seed(descriptor: Int32, from path: String) throws(RuntimeError) {
        guard try isEmpty(descriptor) else { return }
        let source = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard source >= 0 else {
            if errno == ENOENT || errno == ENOTDIR { return }
            throw failure("read", path)
        }
        defer { close(source) }
        try copyEntries(from: source, to: descriptor, path: path, depth: 0)
        try copyAttributes(of: source, to: descriptor, path: path)
    }

    /// `lost+found` of a fresh file system does not count.
    private static func isEmpty(_ directory: Int32) throws(RuntimeError) -> Bool {
        try names(in: directory, path: "the volume").allSatisfy { $0 == "lost+found" }
    }

    private static func copyEntries(
        from source: Int32, to target: Int32, path: String, depth: Int
    ) throws(RuntimeError) {
        guard depth < depthMax else {
            throw RuntimeError(.volumeFailed, "`\(path)` in the image is nested deeper than \(depthMax) directories")
        }
        for name in try names(in: source, path: path) {
            try copy(name, from: source, to: target, path: "\(path)/\(name)", depth: depth)
        }
    }

    private static func copy(
        _ name: String, from source: Int32, to target: Int32, path: String, depth: Int
    ) throws(RuntimeError) {
        var info = stat()
        guard fstatat(source, name, &info, AT_SYMLINK_NOFOLLOW) == 0 else { throw failure("read", path) }
        switch info.st_mode & S_IFMT {
        case S_IFDIR:
            guard mkdirat(target, name, 0o700) == 0 else { throw failure("make", path) }
            let from = openat(source, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            guard from >= 0 else { throw failure("read", path) }
            defer { close(from) }
            let to = openat(target, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            guard to >= 0 else { throw failure("make", path) }
            defer { close(to) }
            try copyEntries(from: from, to: to, path: path, depth: depth + 1)
            try copyAttributes(of: from, to: to, path: path)
        case S_IFREG:
            let from = openat(source, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
            guard from >= 0 else { throw failure("read", path) }
            defer { close(from) }
            let to = openat(target, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
            guard to >= 0 else { throw failure("make", path) }
            defer { close(to) }
            try copyBytes(from: from, to: to, path: path)
            try copyAttributes(of: from, to: to, path: path)
        case S_IFLNK:
            var text = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
            guard readlinkat(source, name, &text, Int(PATH_MAX)) >= 0, symlinkat(text, target, name) == 0,
                fchownat(target, name, info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) == 0
            else { throw failure("make link", path) }
        default:
            guard mknodat(target, name, info.st_mode, info.st_rdev) == 0,
                fchownat(target, name, info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) == 0,
                fchmodat(target, name, info.st_mode & 0o7777, 0) == 0
            else { throw failure("make node", path) }
        }
    }

    private static func copyBytes(from source: Int32, to target: Int32, path: String) throws(RuntimeError) {
        var chunk = [UInt8](repeating: 0, count: 1 << 18)
        while true {
            let count = read(source, &chunk, chunk.count)
            if count == 0 { return }
            guard count > 0 else {
                if errno == EINTR { continue }
                throw failure("read", path)
            }
            var done = 0
            while done < count {
                let written = chunk.withUnsafeBytes { write(target, $0.baseAddress?.advanced(by: done), count - done) }
                guard written >= 0 else {
                    if errno == EINTR { continue }
                    throw failure("write", path)
                }
                done += written
            }
        }
    }

    /// Owner before mode: a change of owner clears the set-id bits.
    private static func copyAttributes(of source: Int32, to target: Int32, path: String) throws(RuntimeError) {
        var info = stat()
        guard fstat(source, &info) == 0, fchown(target, info.st_uid, info.st_gid) == 0,
            fchmod(target, info.st_mode & 0o7777) == 0
        else { throw failure("set owner and mode of", path) }
        let times = [info.st_atim, info.st_mtim]
        guard futimens(target, times) == 0 else { throw failure("set times of", path) }
    }

    private static func names(in directory: Int32, path: String) throws(RuntimeError) -> [String] {
        // A descriptor of its own: closedir closes it, and reading moves its position.
        let copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard copy >= 0, let stream = fdopendir(copy) else { throw failure("list", path) }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    static func failure(_ doing: String, _ path: String) -> RuntimeError {
        let number = errno
        let full = number == ENOSPC || number == EDQUOT
        return RuntimeError(
            full ? .noSpace : .volumeFailed,
            "cannot fill the volume: \(doing) `\(path)`: \(String(cString: strerror(number)))",
            hint: full ? "free space on the node's disk" : nil)
    }
}
