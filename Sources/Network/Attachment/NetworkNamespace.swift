// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import Glibc

/// A network namespace kept alive by a bind mount, so that it outlives the daemon.
enum NetworkNamespace {
    private static let selfPath = "/proc/thread-self/ns/net"

    /// Moves the calling thread, which must be one of `Threads`.
    static func enter(_ path: String) throws(NetworkError) {
        let handle = try Descriptor(opening: path, O_RDONLY)
        try enter(handle.raw, path)
    }

    private static func enter(_ descriptor: Int32, _ path: String) throws(NetworkError) {
        let status = hm_setns_net(descriptor)
        guard status == 0 else { throw .system("cannot enter the network namespace `\(path)`", errno: -status) }
    }

    /// Moves the calling thread, which must be one of `Threads`, into an empty namespace that nobody else is in.
    static func enterNew() throws(NetworkError) {
        let status = hm_unshare_net()
        guard status == 0 else { throw .system("cannot make a network namespace", errno: -status) }
    }

    /// Runs `body` on a thread inside the namespace of `path`.
    static func run<Value: Sendable>(
        in path: String,
        _ body: @escaping @Sendable () throws(NetworkError) -> Value
    ) throws(NetworkError) -> Value {
        try Threads.run { () throws(NetworkError) -> Value in
            try enter(path)
            return try body()
        }
    }

    /// Leaves a namespace mounted at `path`, made now unless it is there. A file without the mount, as a crash between
    /// the two steps leaves it, is completed. The folder of `path` must exist.
    static func ensure(_ path: String) throws(NetworkError) {
        if exists(path) { return }
        do { _ = try Descriptor(opening: path, O_RDONLY | O_CREAT, mode: 0o600) }
        try Threads.run { () throws(NetworkError) in
            try enterNew()
            guard mount(selfPath, path, nil, UInt(MS_BIND), nil) == 0 else {
                throw .system("cannot mount a network namespace at `\(path)`", errno: errno)
            }
        }
    }

    /// True if a namespace is mounted at `path`: all of them live in one file system of the kernel.
    static func exists(_ path: String) -> Bool {
        var (there, own) = (stat(), stat())
        return stat(path, &there) == 0 && stat(selfPath, &own) == 0 && there.st_dev == own.st_dev
    }

    /// Unmounts (as often as it is mounted) and deletes; what is not there is no error.
    static func remove(_ path: String) throws(NetworkError) {
        while exists(path) {
            guard umount2(path, Int32(MNT_DETACH)) == 0 else {
                throw .system("cannot unmount `\(path)`", errno: errno)
            }
        }
        guard unlink(path) == 0 || errno == ENOENT else { throw .system("cannot delete `\(path)`", errno: errno) }
    }
}

/// The folder of the handles, `<data-dir>/netns`, one file per task.
struct NamespaceFolder: Sendable {
    let path: String

    init(dataDirectory: String) { path = dataDirectory + "/netns" }

    func handle(_ name: LinkName) -> String { "\(path)/\(name.task)" }

    func ensure() throws(NetworkError) {
        var made = ""
        for part in path.split(separator: "/", omittingEmptySubsequences: true) {
            made += (made.isEmpty && !path.hasPrefix("/") ? "" : "/") + part
            guard mkdir(made, 0o700) == 0 || errno == EEXIST else {
                throw .system("cannot make the folder `\(made)`", errno: errno)
            }
        }
    }

    /// Tasks with a file here, with or without a namespace mounted on it; none when the folder does not exist.
    func tasks() throws(NetworkError) -> [LinkName] {
        guard let folder = opendir(path) else {
            if errno == ENOENT { return [] }
            throw .system("cannot read the folder `\(path)`", errno: errno)
        }
        defer { closedir(folder) }
        var names: [LinkName] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if let name = LinkName(link: LinkName.prefix + name) { names.append(name) }
        }
        return names
    }
}
