// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc
import Model
import Synchronization
import Testing

@testable import CLI

/// The real transport against real sockets.
struct SocketTests {
    @Test func `no socket and no listener end with 3 and say how to start the daemon`() async throws {
        let folder = try TemporaryFolder()
        let stale = "\(folder.path)/stale.sock"
        UnixServer.bindOnly(stale)
        for path in ["\(folder.path)/none.sock", stale] {
            let error = await #expect(throws: CLIError.self) {
                try await SocketTransport(socket: path).send(APIRequest(method: "GET", path: "/v1/status"))
            }
            #expect(error?.exit == .connection)
            #expect(error?.message.contains(path) == true)
            #expect(error?.hint == Hints.startDaemon)
        }
    }

    @Test func `an answer of a real socket arrives with status, headers and body`() async throws {
        let folder = try TemporaryFolder()
        let body = #"{"api":"v1","version":"9.9.9"}"#
        let server = try UnixServer(
            path: "\(folder.path)/d.sock",
            answer:
                "HTTP/1.1 202 Accepted\r\nLocation: /v1/operations/op7\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
        )
        let client = Client(transport: SocketTransport(socket: server.path), namespace: "blue")
        let view: Answer<VersionView> = try await client.send("PUT", "/version", body: QueryRequest(sql: "x"))
        #expect(view.value.version == "9.9.9")
        #expect(view.status == 202 && view.operation == "op7")
        let request = server.finish()
        #expect(request.hasPrefix("PUT /version?namespace=blue HTTP/1.1\r\n"))
        #expect(request.hasSuffix(#"{"sql":"x"}"#))
    }

    @Test func `a refused stream carries the problem`() async throws {
        let folder = try TemporaryFolder()
        let body = #"{"status":404,"code":"not_found","title":"not found","detail":"app `x` does not exist"}"#
        let server = try UnixServer(
            path: "\(folder.path)/d.sock",
            answer: "HTTP/1.1 404 Not Found\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        let client = Client(transport: SocketTransport(socket: server.path), namespace: nil)
        let error = await #expect(throws: CLIError.self) {
            try await client.logs(app: "x", [], timeout: .seconds(5)) { _, _ in }
        }
        #expect(error?.exit == .notFound)
        _ = server.finish()
    }

    @Test func `the lines of a stream arrive one by one`() async throws {
        let folder = try TemporaryFolder()
        let line = #"{"at":"2026-03-01T12:30:05.000Z","service":"x","stream":"stdout","task":"ka","text":"T"}"#
        let body = "\(line)\n\(line)\n"
        let server = try UnixServer(
            path: "\(folder.path)/d.sock",
            answer: "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        let client = Client(transport: SocketTransport(socket: server.path), namespace: nil)
        var texts: [String] = []
        try await client.logs(app: "x", [("follow", "true")], timeout: nil) { line, _ in texts.append(line.text) }
        #expect(texts == ["T", "T"])
        #expect(server.finish().hasPrefix("GET /v1/apps/x/logs?follow=true HTTP/1.1\r\n"))
    }
}

/// Gone when the test is.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/hm-cli-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw CLIError(.general, "mkdtemp: \(errno)") }
        path = template.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } ?? "" }
    }

    deinit {
        for name in ["none.sock", "stale.sock", "d.sock"] { unlink("\(path)/\(name)") }
        rmdir(path)
    }
}

/// Answers one connection on a unix socket with fixed bytes and keeps the request.
final class UnixServer: Sendable {
    let path: String
    private let thread: JoinedThread

    init(path: String, answer: String) throws {
        self.path = path
        let listener = Self.bindOnly(path, keepsOpen: true)
        guard listener >= 0, listen(listener, 4) == 0 else { throw CLIError(.general, "listen: \(errno)") }
        thread = JoinedThread {
            defer { close(listener) }
            var wait = timeval(tv_sec: 10, tv_usec: 0)
            setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
            let peer = accept(listener, nil, nil)
            guard peer >= 0 else { return "no connection came" }
            defer { close(peer) }
            setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
            var request = ""
            var buffer = [UInt8](repeating: 0, count: 4096)
            while !Self.isWhole(request) {
                let count = read(peer, &buffer, buffer.count)
                guard count > 0 else { break }
                request += String(decoding: buffer[..<count], as: UTF8.self)
            }
            _ = Array(answer.utf8).withUnsafeBytes { write(peer, $0.baseAddress, $0.count) }
            return request
        }
    }

    /// What was asked.
    func finish() -> String { thread.join() }

    @discardableResult
    static func bindOnly(_ path: String, keepsOpen: Bool = false) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        _ = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if !keepsOpen { close(descriptor) }
        return descriptor
    }

    private static func isWhole(_ request: String) -> Bool {
        guard let end = request.firstRange(of: "\r\n\r\n") else { return false }
        let length =
            request[..<end.lowerBound].split(separator: "\r\n").first { $0.lowercased().hasPrefix("content-length:") }
            .flatMap { Int($0.split(separator: ":")[1].filter { $0 != " " }) } ?? 0
        return request[end.upperBound...].utf8.count >= length
    }
}

/// A thread whose result can be waited for, for blocking calls.
private final class JoinedThread: Sendable {
    private let result: Mutex<String?> = Mutex(nil)

    init(_ body: @escaping @Sendable () -> String) {
        Thread.detachNewThread { [self] in
            let text = body()
            result.withLock { $0 = text }
        }
    }

    /// Polls: at most ten seconds.
    func join() -> String {
        for _ in 0..<10_000 {
            if let text = result.withLock({ $0 }) { return text }
            usleep(1000)
        }
        return "the server did not end"
    }
}
