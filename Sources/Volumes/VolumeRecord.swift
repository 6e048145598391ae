// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
internal import Model

/// What is known of a volume, in `volume.json` next to its data. A volume without it was not finished.
struct VolumeRecord: Codable, Equatable {
    static let fileName = "volume.json"
    private static let newName = "volume.json.new"
    private static let bytesMax = 4096

    var created: Timestamp
    var seeded: Bool

    static func now(seeded: Bool) -> Self {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        let milliseconds = Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
        return Self(created: Timestamp(milliseconds: milliseconds), seeded: seeded)
    }

    /// Nil when there is none.
    static func read(in volume: borrowing Directory) throws(VolumeError) -> Self? {
        let path = "\(volume.path)/\(fileName)"
        let file = openat(volume.raw, fileName, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)
        guard file >= 0 else {
            if errno == ENOENT { return nil }
            throw .system("open", path, errno: errno)
        }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: bytesMax)
        let count = Glibc.read(file, &bytes, bytes.count)
        guard count >= 0 else { throw .system("read", path, errno: errno) }
        do { return try JSON.decode(Self.self, from: Data(bytes.prefix(count))) } catch {
            throw VolumeError(
                .volumeFailed, "`\(path)` is damaged: \(error)",
                hint: "remove this file: it is written anew, and a volume that holds files is not seeded again",
                path: path)
        }
    }

    /// All or nothing, on the disk when it returns.
    func write(in volume: borrowing Directory) throws(VolumeError) {
        let path = "\(volume.path)/\(Self.newName)"
        let bytes: [UInt8]
        do { bytes = Array(try JSON.encode(self)) } catch {
            throw VolumeError(.volumeFailed, "cannot encode `\(path)`: \(error)")
        }
        let file = openat(volume.raw, Self.newName, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw .system("make", path, errno: errno) }
        defer { close(file) }
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw .system("write", path, errno: count == 0 ? ENOSPC : errno) }
            rest = rest.dropFirst(count)
        }
        guard fsync(file) == 0 else { throw .system("sync", path, errno: errno) }
        guard renameat(volume.raw, Self.newName, volume.raw, Self.fileName) == 0 else {
            throw .system("rename", path, errno: errno)
        }
        try volume.sync()
    }
}
