// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc
import Model

/// One HTTP/1.1 connection over a unix socket, written out by hand so that tests decide about every byte.
///
/// Its calls block for at most 20 s: they run on threads of their own (`onThread`).
final class RawConnection: @unchecked Sendable {
    // Unchecked: a test uses one connection from one thread at a time.
    private let file: Int32
    private var buffer: [UInt8] = []

    struct Failure: Error { var text: String }

    struct Answer: Sendable {
        var status = 0
        var headers: [String: String] = [:]
        var body = Data()

        var text: String { String(decoding: body, as: UTF8.self) }
        func json<Value: Decodable>(_ type: Value.Type) throws -> Value { try JSON.decode(type, from: body) }
        var problem: Problem? { try? json(Problem.self) }
    }

    /// - Parameter receiveBytes: size of the kernel's buffer, small for a client that hardly reads.
    init(_ path: String, receiveBytes: Int32? = nil) throws {
        file = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard file >= 0 else { throw Failure(text: "socket: \(errno)") }
        var timeout = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(file, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(file, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        if var size = receiveBytes { setsockopt(file, SOL_SOCKET, SO_RCVBUF, &size, 4) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(file, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        // deinit closes it, also when this throws: a second close could be that of a file another thread just opened.
        guard status == 0 else { throw Failure(text: "connect: \(errno)") }
    }

    deinit { close(file) }

    /// What a killed client looks like.
    func hangUp() { shutdown(file, Int32(SHUT_RDWR)) }

    func send(_ text: String) throws { try send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                Glibc.send(file, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw Failure(text: "send: \(errno)") }
            sent += count
        }
    }

    func request(
        _ method: String, _ target: String, headers: [String: String] = [:], body: [UInt8]? = nil
    ) throws -> Answer {
        var head = "\(method) \(target) HTTP/1.1\r\nHost: hivemind\r\n"
        for (name, value) in headers.sorted(by: { $0.key < $1.key }) { head += "\(name): \(value)\r\n" }
        if let body { head += "Content-Length: \(body.count)\r\n" }
        try send(head + "\r\n")
        // A server may refuse a body before all of it was sent.
        if let body { try? send(body) }
        return try answer(toHead: method == "HEAD")
    }

    /// Reads one answer with its body.
    func answer(toHead: Bool = false) throws -> Answer {
        var answer = try head()
        if toHead || answer.status == 204 || answer.status == 100 { return answer }
        if answer.headers["transfer-encoding"] == "chunked" {
            while let chunk = try chunk() { answer.body.append(chunk) }
        } else {
            answer.body = Data(try take(Int(answer.headers["content-length"] ?? "0") ?? 0))
        }
        return answer
    }

    func head() throws -> Answer {
        var answer = Answer()
        let parts = try line().split(separator: " ")
        guard parts.count >= 2, let status = Int(parts[1]) else { throw Failure(text: "no status line: \(parts)") }
        answer.status = status
        while true {
            let field = try line()
            if field.isEmpty { return answer }
            guard let colon = field.firstIndex(of: ":") else { throw Failure(text: "no header: \(field)") }
            answer.headers[field[..<colon].lowercased()] =
                field[field.index(after: colon)...].trimmingCharacters(in: .whitespaces)
        }
    }

    /// Nil after the last one.
    func chunk() throws -> Data? {
        guard let size = Int(try line(), radix: 16) else { throw Failure(text: "no chunk size") }
        let data = Data(try take(size))
        guard try line().isEmpty else { throw Failure(text: "chunk does not end") }
        return size == 0 ? nil : data
    }

    /// True when the server has closed the connection and nothing is left to read.
    func isAtEnd() throws -> Bool { buffer.isEmpty ? try !fill() : false }

    private func line() throws -> String {
        var end = buffer.firstIndex(of: 10)
        while end == nil {
            guard try fill() else { throw Failure(text: "the connection ended") }
            end = buffer.firstIndex(of: 10)
        }
        guard let end else { throw Failure(text: "the connection ended") }
        let bytes = buffer[..<end]
        let text = String(decoding: bytes.last == 13 ? bytes.dropLast() : bytes, as: UTF8.self)
        buffer.removeSubrange(...end)
        return text
    }

    private func take(_ count: Int) throws -> [UInt8] {
        while buffer.count < count { guard try fill() else { throw Failure(text: "the connection ended") } }
        let bytes = Array(buffer.prefix(count))
        buffer.removeFirst(count)
        return bytes
    }

    private func fill() throws -> Bool {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = recv(file, &bytes, bytes.count, 0)
        guard count >= 0 else { throw Failure(text: "recv: \(errno)") }
        buffer += bytes.prefix(count)
        return count > 0
    }
}

/// Runs blocking work on a thread of its own.
func onThread<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread { continuation.resume(with: Result { try work() }) }
    }
}
