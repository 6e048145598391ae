// SPDX-License-Identifier: Apache-2.0
import Glibc
import Synchronization

/// A tiny HTTP server on loopback or a unix socket: one thread accepts, one thread per connection answers one request
/// and closes.
final class HTTPTestServer: Sendable {
    struct Request: Sendable {
        var method: String
        var path: String
        /// Names in lower case.
        var headers: [String: String]
        var body: [UInt8]
    }

    /// Writes whatever it likes; false when the peer is gone.
    struct Connection: Sendable {
        let descriptor: Int32

        @discardableResult
        func send(_ bytes: [UInt8]) -> Bool {
            var done = 0
            while done < bytes.count {
                let count = bytes.withUnsafeBytes { all in
                    Glibc.send(descriptor, all.baseAddress.map { $0 + done }, all.count - done, Int32(MSG_NOSIGNAL))
                }
                guard count > 0 else { return false }
                done += count
            }
            return true
        }

        @discardableResult
        func send(_ text: String) -> Bool { send(Array(text.utf8)) }

        func answer(_ status: Int, _ headers: [String: String] = [:], _ body: [UInt8] = []) {
            var head = "HTTP/1.1 \(status) X\r\nConnection: close\r\n"
            for (name, value) in headers { head += "\(name): \(value)\r\n" }
            if headers["Content-Length"] == nil { head += "Content-Length: \(body.count)\r\n" }
            send(Array((head + "\r\n").utf8) + body)
        }

        /// Blocks until the peer closes, at most ten seconds; true when it did.
        func waitForClose() -> Bool {
            var byte: UInt8 = 0
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            return poll(&entry, 1, 10_000) == 1 && recv(descriptor, &byte, 1, 0) <= 0
        }
    }

    typealias Handler = @Sendable (Request, Connection) -> Void

    let port: UInt16
    private let listener: Int32
    private let handler: Handler
    private let seen = Mutex<[Request]>([])

    var requests: [Request] { seen.withLock { $0 } }
    var url: String { "http://127.0.0.1:\(port)" }
    var host: String { "127.0.0.1:\(port)" }

    init(unixSocket: String? = nil, handler: @escaping Handler) throws {
        self.handler = handler
        let descriptor: Int32
        let bound: UInt16
        if let unixSocket {
            descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: unixSocket.utf8) }
            let status = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            guard status == 0 else { throw TestFailure("cannot bind \(unixSocket)") }
            bound = 0
        } else {
            descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let status = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(descriptor, $0, length) == 0 ? getsockname(descriptor, $0, &length) : -1
                }
            }
            guard status == 0 else { throw TestFailure("cannot bind loopback") }
            bound = UInt16(bigEndian: address.sin_port)
        }
        (listener, port) = (descriptor, bound)
        listen(listener, 16)
        Self.startThread { [self] in
            while true {
                let descriptor = accept(listener, nil, nil)
                guard descriptor >= 0 else { return }
                Self.startThread { [self] in
                    defer { close(descriptor) }
                    guard let request = Self.read(descriptor) else { return }
                    seen.withLock { $0.append(request) }
                    handler(request, Connection(descriptor: descriptor))
                    shutdown(descriptor, Int32(SHUT_WR))
                }
            }
        }
    }

    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
    }

    private static func read(_ descriptor: Int32) -> Request? {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        let mark = Array("\r\n\r\n".utf8)
        var headEnd: Int?
        var length = 0
        var request = Request(method: "", path: "", headers: [:], body: [])
        while true {
            if headEnd == nil, bytes.count >= 4,
                let end = (0...(bytes.count - 4)).first(where: { Array(bytes[$0..<$0 + 4]) == mark })
            {
                headEnd = end + 4
                let lines = String(decoding: bytes[..<end], as: UTF8.self).split(whereSeparator: \.isNewline)
                let words = (lines.first ?? "").split(separator: " ")
                guard words.count == 3 else { return nil }
                (request.method, request.path) = (String(words[0]), String(words[1]))
                for line in lines.dropFirst() {
                    guard let colon = line.firstIndex(of: ":") else { continue }
                    request.headers[line[..<colon].lowercased()] = String(
                        line[line.index(after: colon)...].drop { $0 == " " })
                }
                length = request.headers["content-length"].flatMap { Int($0) } ?? 0
            }
            if let headEnd, bytes.count >= headEnd + length {
                request.body = Array(bytes[headEnd..<headEnd + length])
                return request
            }
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { return nil }
            bytes += buffer[..<count]
            // A TLS greeting: not our language.
            if bytes[0] == 0x16 { return nil }
        }
    }

    private static func startThread(_ body: @escaping @Sendable () -> Void) {
        final class Box: Sendable {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        var thread = pthread_t()
        let box = Unmanaged.passRetained(Box(body))
        pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                Unmanaged<Box>.fromOpaque(context).takeRetainedValue().body()
                return nil
            }, box.toOpaque())
        pthread_detach(thread)
    }
}
