// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import NIOCore

/// The nameservers of a resolv.conf, and what tells whether the file has changed since.
struct ResolverConfiguration: Sendable {
    /// As many as glibc uses.
    static let serversMax = 3
    private static let bytesMax = 65536

    struct Stamp: Hashable, Sendable {
        var seconds: Int
        var nanoseconds: Int
        var inode: UInt64
        var size: Int
    }

    var servers: [SocketAddress]
    /// Nil when there is no such file.
    var stamp: Stamp?

    static func stamp(_ path: String) -> Stamp? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        return Stamp(
            seconds: status.st_mtim.tv_sec, nanoseconds: status.st_mtim.tv_nsec, inode: UInt64(status.st_ino),
            size: Int(status.st_size))
    }

    /// Blocks for a file read. A file that is not there has no servers.
    ///
    /// - Parameter skipping: addresses of our own; asking them would be a loop.
    static func read(_ path: String, port: Int, skipping: Set<String>) -> ResolverConfiguration {
        let stamp = stamp(path)
        guard let file = fopen(path, "re") else { return ResolverConfiguration(servers: [], stamp: stamp) }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: bytesMax)
        let count = fread(&bytes, 1, bytesMax, file)
        let text = String(decoding: bytes.prefix(count), as: UTF8.self)
        return ResolverConfiguration(servers: servers(text, port: port, skipping: skipping), stamp: stamp)
    }

    static func servers(_ text: String, port: Int, skipping: Set<String>) -> [SocketAddress] {
        var servers: [SocketAddress] = []
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.split(whereSeparator: \.isWhitespace)
            guard words.count >= 2, words[0] == "nameserver", !skipping.contains(String(words[1])) else { continue }
            // What is no address is passed over, as the C library does.
            guard let server = try? SocketAddress(ipAddress: String(words[1]), port: port) else { continue }
            if !servers.contains(server) { servers.append(server) }
        }
        return Array(servers.prefix(serversMax))
    }
}
