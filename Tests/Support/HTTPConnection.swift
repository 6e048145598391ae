// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// How an exchange failed, as a client may judge it.
public enum HTTPFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// There was no connection: the request certainly reached nobody.
    case refused(Int32)
    /// The connection ended or kept silent after the request may have been read.
    case broken(String)

    public var description: String {
        switch self {
        case .refused(let status): "no connection: \(String(cString: strerror(status)))"
        case .broken(let text): text
        }
    }
}

/// A kept-open HTTP/1.1 connection over a Unix socket that blocks its thread: for clients that make load, on threads of
/// their own. Not for use by two threads at once.
public final class HTTPConnection {
    public struct Reply: Hashable, Sendable {
        public var status: Int
        /// Names in lower case.
        public var headers: [String: String]
        public var body: String
    }

    private let descriptor: Int32
    private var buffer: [UInt8] = []
    private var place = 0
    /// Bytes left of the current chunk of a stream.
    private var chunkLeft = 0
    /// False once an exchange failed or the other side said it would close.
    public private(set) var isUsable = true

    /// - Parameter timeout: of each wait for bytes, in either direction.
    public init(socket path: String, timeout: Duration) throws(HTTPFault) {
        descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw .refused(errno) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8.prefix(107))) }
        let (seconds, attoseconds) = timeout.components
        var limit = timeval(tv_sec: Int(seconds), tv_usec: Int(attoseconds / 1_000_000_000_000))
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        // deinit closes it, also when this throws: a second close could be that of a file another thread just opened.
        guard status == 0 else { throw .refused(errno) }
    }

    deinit { close(descriptor) }

    /// One request and its whole answer.
    public func exchange(
        _ method: String, _ path: String, body: String? = nil, headers: [(String, String)] = []
    ) throws(HTTPFault) -> Reply {
        do {
            try send(method, path, body: body, headers: headers)
            var reply = try head()
            if reply.headers["transfer-encoding"]?.contains("chunked") == true {
                var bytes: [UInt8] = []
                while case let size = try chunkSize(), size > 0 {
                    bytes += try read(size)
                    _ = try rawLine()
                }
                _ = try rawLine()
                reply.body = String(decoding: bytes, as: UTF8.self)
            } else if let length = reply.headers["content-length"].flatMap({ Int($0) }) {
                reply.body = String(decoding: try read(length), as: UTF8.self)
            }
            if reply.headers["connection"]?.lowercased() == "close" { isUsable = false }
            return reply
        } catch {
            isUsable = false
            throw error
        }
    }

    /// Begins an endless answer; its lines come from `line`.
    public func stream(_ path: String, headers: [(String, String)] = []) throws(HTTPFault) -> Reply {
        isUsable = false
        try send("GET", path, body: nil, headers: headers)
        return try head()
    }

    /// The next line of a chunked answer, without its end.
    public func line() throws(HTTPFault) -> String {
        var bytes: [UInt8] = []
        while true {
            if chunkLeft == 0 {
                chunkLeft = try chunkSize()
                guard chunkLeft > 0 else { throw .broken("the stream ended") }
            }
            let byte = try read(1)[0]
            chunkLeft -= 1
            if chunkLeft == 0 { _ = try rawLine() }
            if byte == 10 { return String(decoding: bytes, as: UTF8.self) }
            bytes.append(byte)
        }
    }

    // MARK: Bytes

    private func send(
        _ method: String, _ path: String, body: String?, headers: [(String, String)]
    ) throws(HTTPFault) {
        var text = "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\n"
        for (name, value) in headers { text += "\(name): \(value)\r\n" }
        if let body { text += "Content-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n" }
        let bytes = Array("\(text)\r\n\(body ?? "")".utf8)
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress?.advanced(by: sent), bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw .broken("broke while sending: \(String(cString: strerror(errno)))") }
            sent += count
        }
    }

    private func head() throws(HTTPFault) -> Reply {
        let first = try rawLine()
        guard let status = first.split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else {
            throw .broken("not an HTTP reply: \(first.prefix(100))")
        }
        var reply = Reply(status: status, headers: [:], body: "")
        while case let line = try rawLine(), !line.isEmpty {
            guard let colon = line.firstIndex(of: ":") else { continue }
            reply.headers[line[..<colon].lowercased()] = String(line[line.index(after: colon)...].drop { $0 == " " })
        }
        return reply
    }

    private func chunkSize() throws(HTTPFault) -> Int {
        let line = try rawLine()
        guard let size = Int(line.prefix { $0 != ";" }, radix: 16), size >= 0, size < 1 << 30 else {
            throw .broken("not a chunk: \(line.prefix(40))")
        }
        return size
    }

    private func rawLine() throws(HTTPFault) -> String {
        while true {
            if let end = buffer[place...].firstIndex(of: 10) {
                defer { place = end + 1 }
                let line = buffer[place..<end]
                return String(decoding: line.last == 13 ? line.dropLast() : line, as: UTF8.self)
            }
            try fill()
        }
    }

    private func read(_ count: Int) throws(HTTPFault) -> [UInt8] {
        while buffer.count - place < count { try fill() }
        defer { place += count }
        return Array(buffer[place..<place + count])
    }

    private func fill() throws(HTTPFault) {
        if place > 0 {
            buffer.removeFirst(place)
            place = 0
        }
        var piece = [UInt8](repeating: 0, count: 65_536)
        let count = recv(descriptor, &piece, piece.count, 0)
        guard count > 0 else {
            let silent = count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)
            throw .broken(
                count == 0
                    ? "the other side closed" : silent ? "no answer in time" : String(cString: strerror(errno)))
        }
        buffer += piece[..<count]
    }
}
