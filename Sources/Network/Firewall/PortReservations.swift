// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model

/// Published ports held by bound sockets, so that translation never takes a port from a program of the host unseen,
/// and no program gets one that would never be reached.
final class PortReservations {
    private var held: [HostPort: Int32] = [:]

    deinit { for socket in held.values { close(socket) } }

    func holds(_ key: HostPort) -> Bool { held[key] != nil }

    /// False when something of the host has the port, on any address.
    func reserve(_ key: HostPort) throws(NetworkError) -> Bool {
        if holds(key) { return true }
        guard let socket = try Self.bound(key) else { return false }
        held[key] = socket
        return true
    }

    func release(where unwanted: (HostPort) -> Bool) {
        for (key, socket) in held where unwanted(key) {
            close(socket)
            held[key] = nil
        }
    }

    /// True when a socket of the host is in the way.
    func isTaken(_ key: HostPort) throws(NetworkError) -> Bool {
        if holds(key) { return false }
        guard let socket = try Self.bound(key) else { return true }
        close(socket)
        return false
    }

    /// Bound to every address and never listening, without SO_REUSEADDR: any other socket on the port conflicts.
    private static func bound(_ key: HostPort) throws(NetworkError) -> Int32? {
        let kind = key.protocol == .tcp ? SOCK_STREAM : SOCK_DGRAM
        let number = socket(AF_INET, Int32(kind.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard number >= 0 else { throw .system("cannot open a socket", errno: errno) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = key.number.bigEndian
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(number, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if status == 0 { return number }
        let failure = errno
        close(number)
        if failure == EADDRINUSE { return nil }
        throw .system("cannot reserve port \(key.number)/\(key.protocol.rawValue)", errno: failure)
    }
}
