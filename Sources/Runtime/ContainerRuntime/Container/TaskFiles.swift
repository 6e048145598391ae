// SPDX-License-Identifier: Apache-2.0
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import FoundationEssentials
internal import Glibc
internal import Model

/// The files of /etc that are a container's own, kept outside of its image so that they are right in every image.
struct TaskFiles: Sendable {
    static let names = ["hostname", "hosts", "resolv.conf"]

    /// `<data-dir>/tasks`
    let root: String

    func directory(_ id: ContainerID) -> String { "\(root)/\(id.raw)" }

    /// Where its image is looked into; the mount itself is seen by one thread only.
    func mountPoint(_ id: ContainerID) -> String { "\(directory(id))/image" }

    /// Writes them anew; a few small files, no fsync: a machine that crashed has no containers left to read them.
    func write(_ container: ContainerSpec) throws(RuntimeError) {
        let directory = directory(container.id)
        try Self.makeDirectories(directory)
        for (name, text) in zip(
            Self.names, [container.hostname + "\n", Self.hosts(container), Self.resolver(container.nameServers)])
        {
            try Self.write(text, to: "\(directory)/\(name)")
        }
    }

    /// No error when there is nothing.
    func remove(_ id: ContainerID) throws(RuntimeError) {
        let directory = directory(id)
        for name in Self.names { unlink("\(directory)/\(name)") }
        rmdir(mountPoint(id))
        if rmdir(directory) != 0 && errno != ENOENT { throw Self.failure("remove", directory) }
    }

    /// Containers that have files here. Names that are no container's are left out.
    func all() throws(RuntimeError) -> [ContainerID] {
        do {
            return try FileManager.default.contentsOfDirectory(atPath: root).map(ContainerID.init)
                .filter { $0.parts != nil }.sorted()
        } catch {
            throw RuntimeError(.internal, "cannot read `\(root)`: \(error)")
        }
    }

    static func hosts(_ container: ContainerSpec) -> String {
        var text = """
            127.0.0.1\tlocalhost
            ::1\tlocalhost ip6-localhost ip6-loopback
            fe00::\tip6-localnet
            ff00::\tip6-mcastprefix
            ff02::1\tip6-allnodes
            ff02::2\tip6-allrouters

            """
        if let address = container.address { text += "\(address)\t\(container.hostname)\n" }
        return text
    }

    /// No search domain: the name server knows the asker by its address. `ndots:1` keeps a miss at one question.
    static func resolver(_ servers: [IPv4Address]) -> String {
        servers.map { "nameserver \($0)\n" }.joined() + "options ndots:1\n"
    }

    static func makeDirectories(_ path: String) throws(RuntimeError) {
        var partial = ""
        for part in path.split(separator: "/") {
            partial += "/\(part)"
            if mkdir(partial, 0o755) != 0 && errno != EEXIST { throw failure("make directory", partial) }
        }
    }

    static func write(_ text: String, to path: String) throws(RuntimeError) {
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw failure("write", path) }
        defer { close(file) }
        // Read by every user of the container, whatever the daemon's umask takes away.
        fchmod(file, 0o644)
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                throw failure("write", path)
            }
            bytes = bytes.dropFirst(count)
        }
    }

    static func failure(_ doing: String, _ path: String) -> RuntimeError {
        let number = errno
        let text = String(cString: strerror(number))
        let noSpace = number == ENOSPC || number == EDQUOT
        return RuntimeError(
            noSpace ? .noSpace : .internal, "cannot \(doing) `\(path)`: \(text)",
            hint: noSpace ? "free space on the node's disk" : nil)
    }
}
