// SPDX-License-Identifier: Apache-2.0
import Glibc
import Model
import Synchronization

@testable import ContainerNetwork

/// A socket made in a namespace; it stays there whoever uses it. Waits at most three seconds for anything.
final class Socket: Sendable {
    enum Kind { case tcp, udp, ping }

    let raw: Int32

    init(raw: Int32) { self.raw = raw }

    init(_ kind: Kind, in namespace: String) throws {
        raw = try NetworkNamespace.run(in: namespace) { () throws(NetworkError) -> Int32 in
            let type = kind == .tcp ? SOCK_STREAM : SOCK_DGRAM
            let raw = socket(
                AF_INET,
                Int32(type.rawValue | SOCK_CLOEXEC.rawValue),
                kind == .ping ? Int32(IPPROTO_ICMP) : 0
            )
            guard raw >= 0 else { throw .system("socket", errno: errno) }
            return raw
        }
        var wait = timeval(tv_sec: 3, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(raw, SOL_SOCKET, option, &wait, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    deinit { close(raw) }

    private static func withAddress<Value>(
        _ address: IPv4Address,
        _ port: UInt16,
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Value
    ) -> Value {
        var value = sockaddr_in()
        value.sin_family = sa_family_t(AF_INET)
        value.sin_port = port.bigEndian
        value.sin_addr.s_addr = address.value.bigEndian
        return withUnsafePointer(to: &value) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    private func check(_ what: String, _ status: Int) throws {
        if status < 0 { throw NetworkError.system(what, errno: errno) }
    }

    func bind(_ address: IPv4Address, _ port: UInt16) throws {
        var one: Int32 = 1
        setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &one, 4)
        try check("bind \(port)", Int(Self.withAddress(address, port) { Glibc.bind(raw, $0, $1) }))
    }

    func connect(_ address: IPv4Address, _ port: UInt16) throws {
        try check("connect \(address):\(port)", Int(Self.withAddress(address, port) { Glibc.connect(raw, $0, $1) }))
    }

    func send(_ text: String) throws {
        try check("send", Glibc.send(raw, text, text.utf8.count, Int32(MSG_NOSIGNAL)))
    }

    func receive() throws -> String {
        var bytes = [UInt8](repeating: 0, count: 512)
        let count = recv(raw, &bytes, bytes.count, 0)
        try check("receive", count)
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }

    /// What does not fit the path's MTU is an error from now on, never cut into pieces.
    func forbidFragments() {
        var value = Int32(IP_PMTUDISC_DO)
        setsockopt(raw, Int32(IPPROTO_IP), IP_MTU_DISCOVER, &value, 4)
    }

    /// All of it; a datagram is one call.
    func send(bytes count: Int) throws {
        let bytes = [UInt8](repeating: 7, count: count)
        var sent = 0
        while sent < count {
            let more = bytes.withUnsafeBytes {
                Glibc.send(raw, $0.baseAddress?.advanced(by: sent), count - sent, Int32(MSG_NOSIGNAL))
            }
            try check("send", more)
            sent += more
        }
    }

    /// Bytes of the next datagram, or of what a stream has.
    func receiveCount() throws -> Int {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = recv(raw, &bytes, bytes.count, 0)
        try check("receive", count)
        return count
    }

    func listening() -> Self {
        listen(raw, 16)
        return self
    }

    func accepted() throws -> Socket {
        let client = accept(raw, nil, nil)
        try check("accept", Int(client))
        return Socket(raw: client)
    }

    func exchange(_ text: String) throws -> Answer {
        try send(text)
        return try Answer(try receive())
    }
}

/// What an echo server said: its name, and who it thinks asked.
struct Answer {
    var server: String
    var client: String

    init(_ text: String) throws {
        let words = text.split(separator: " ").map(String.init)
        guard words.count == 2 else { throw TestFailure("an answer `\(text)`") }
        (server, client) = (words[0], words[1])
    }
}

func ask(_ kind: Socket.Kind = .tcp, from namespace: String, _ address: IPv4Address, _ port: UInt16) throws -> Answer {
    let socket = try Socket(kind, in: namespace)
    try socket.connect(address, port)
    return try socket.exchange("hello")
}

/// The errno of a connection that must fail, and how long that took.
func refusal(_ kind: Socket.Kind = .tcp, from namespace: String, _ address: IPv4Address, _ port: UInt16) throws -> (
    errno: Int32, Duration
) {
    let clock = ContinuousClock(), start = clock.now
    do {
        let answer = try ask(kind, from: namespace, address, port)
        throw TestFailure("\(answer.server) answered")
    } catch let error as NetworkError {
        return (error.errno, clock.now - start)
    }
}

/// Waits until packets pass: a link that just came up drops them until the kernel noticed, and only connections are tried
/// again.
func waitForWay(from namespace: String, to address: IPv4Address) throws {
    let errno = try refusal(from: namespace, address, 9).errno
    guard errno == ECONNREFUSED else { throw TestFailure("no way from \(namespace) to \(address): errno \(errno)") }
}

/// Answers every message with `<name> <client>`, until it goes out of scope.
final class EchoServer: Sendable {
    private let socket: Socket

    init(
        _ name: String,
        _ kind: Socket.Kind = .tcp,
        in namespace: String,
        _ port: UInt16,
        address: IPv4Address = IPv4Address(value: 0)
    ) throws {
        socket = try Socket(kind, in: namespace)
        try socket.bind(address, port)
        let raw = socket.raw
        var wait = timeval(tv_sec: 0, tv_usec: 0)
        setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
        let isStream = kind == .tcp
        if isStream { listen(raw, 128) }
        let copy = dup(raw)
        pthread_detach(try Threads.start { if isStream { Self.accept(copy, name) } else { Self.serve(copy, name) } })
    }

    // Wakes whoever waits on a copy of the descriptor; a datagram socket says it is not connected, and wakes too.
    deinit { shutdown(socket.raw, Int32(SHUT_RDWR)) }

    private static func accept(_ listener: Int32, _ name: String) {
        while true {
            let client = Glibc.accept(listener, nil, nil)
            guard client >= 0 else { break }
            if let thread = try? Threads.start({ serve(client, name) }) {
                pthread_detach(thread)
            } else {
                close(client)
            }
        }
        close(listener)
    }

    private static func serve(_ socket: Int32, _ name: String) {
        var bytes = [UInt8](repeating: 0, count: 512)
        while true {
            var peer = sockaddr_in()
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let count = withUnsafeMutablePointer(to: &peer) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    recvfrom(socket, &bytes, bytes.count, 0, $0, &length)
                }
            }
            guard count > 0 else { break }
            let isStream = length == 0
            if isStream {
                length = socklen_t(MemoryLayout<sockaddr_in>.size)
                _ = withUnsafeMutablePointer(to: &peer) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(socket, $0, &length) }
                }
            }
            let text = "\(name) \(IPv4Address(value: UInt32(bigEndian: peer.sin_addr.s_addr)))"
            _ = withUnsafePointer(to: &peer) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    sendto(
                        socket,
                        text,
                        text.utf8.count,
                        Int32(MSG_NOSIGNAL),
                        isStream ? nil : $0,
                        isStream ? 0 : length
                    )
                }
            }
        }
        close(socket)
    }
}
