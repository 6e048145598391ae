// SPDX-License-Identifier: Apache-2.0
import Glibc
import Synchronization
import Testing

@testable import HTTPClient

struct HTTPClientTests {
    let client = HTTPClient()

    @Test
    func `a response has status, headers without case, and body`() async throws {
        let server = try HTTPTestServer { request, connection in
            connection.answer(
                404, ["X-Thing": "one", "Content-Type": "text/plain"], Array("gone \(request.path)".utf8))
        }
        defer { server.stop() }
        let response = try await client.send(HTTPRequest(url: server.url + "/a?b=c", headers: ["X-Own": "yes"]))
        #expect(response.status == 404)
        #expect(response.headers["x-thing"] == "one")
        #expect(String(decoding: response.body, as: UTF8.self) == "gone /a?b=c")
        #expect(server.requests.first?.headers["x-own"] == "yes")
        #expect(!response.isSuccess)
    }

    @Test(arguments: ["PUT", "POST", "PATCH", "DELETE"])
    func `a body is sent with its method and length`(method: String) async throws {
        let server = try HTTPTestServer { _, connection in connection.answer(201) }
        defer { server.stop() }
        _ = try await client.send(HTTPRequest(method: method, url: server.url, body: .bytes(Array("hello".utf8))))
        let request = try #require(server.requests.first)
        #expect(request.method == method)
        #expect(request.body == Array("hello".utf8))
        #expect(request.headers["expect"] == nil)
    }

    @Test
    func `a file is uploaded through a unix socket`() async throws {
        let directory = try TemporaryDirectory()
        let bytes = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let file = try directory.write("body", bytes)
        let server = try HTTPTestServer(unixSocket: directory.path + "/s") { _, connection in connection.answer(204) }
        defer { server.stop() }
        let request = HTTPRequest(
            method: "POST", url: "http://hivemind/v1/x", body: .file(path: file), unixSocket: directory.path + "/s")
        #expect(try await client.send(request).status == 204)
        #expect(server.requests.first?.body == bytes)
        #expect(server.requests.first?.path == "/v1/x")
    }

    @Test
    func `authorization follows a redirect on the same host only`() async throws {
        let other = try HTTPTestServer { _, connection in connection.answer(200, [:], Array("other".utf8)) }
        defer { other.stop() }
        let target = other.url.replacing("127.0.0.1", with: "localhost")
        let server = try HTTPTestServer { request, connection in
            switch request.path {
            case "/same": connection.answer(302, ["Location": "/end"])
            case "/away": connection.answer(307, ["Location": target + "/end"], Array("ignored".utf8))
            default: connection.answer(200, [:], Array("own".utf8))
            }
        }
        defer { server.stop() }
        let same = try await client.send(HTTPRequest(url: server.url + "/same", headers: ["Authorization": "Bearer t"]))
        #expect(same.body == Array("own".utf8))
        #expect(same.url == server.url + "/end")
        #expect(server.requests.last?.headers["authorization"] == "Bearer t")
        let away = try await client.send(HTTPRequest(url: server.url + "/away", headers: ["Authorization": "Bearer t"]))
        #expect(away.body == Array("other".utf8))
        #expect(other.requests.first.map { $0.headers["authorization"] == nil } == true)
    }

    @Test
    func `lines arrive before the response ends and a cancelled reader lets the connection go`() async throws {
        let closed = Mutex(false)
        let server = try HTTPTestServer { _, connection in
            connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na\nb\r\n\r\n2\r\nc\n\r\n")
            closed.withLock { $0 = connection.waitForClose() }
        }
        defer { server.stop() }
        let client = client
        let url = server.url
        let seen = Mutex<[String]>([])
        let reader = Task {
            for try await line in client.lines(HTTPRequest(url: url, limits: .endless)) {
                seen.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
            }
        }
        #expect(try await eventually { seen.withLock { $0 } == ["a", "b", "c"] })
        let start = ContinuousClock.now
        reader.cancel()
        _ = await reader.result
        #expect(ContinuousClock.now - start < .seconds(10))
        #expect(try await eventually { closed.withLock { $0 } })
    }

    @Test
    func `lines of a refused request throw the answer`() async throws {
        let server = try HTTPTestServer { _, connection in connection.answer(409, [:], Array("{\"code\":\"x\"}".utf8)) }
        defer { server.stop() }
        do {
            for try await _ in client.lines(HTTPRequest(url: server.url)) { Issue.record("no line expected") }
            Issue.record("an error was expected")
        } catch let error as HTTPError {
            #expect(error.code == .status)
            #expect(error.response?.status == 409)
            #expect(error.response?.body == Array("{\"code\":\"x\"}".utf8))
        }
    }

    @Test
    func `a slow consumer holds the sender back`() async throws {
        let sent = Mutex(0)
        let total = 64 << 20
        let server = try HTTPTestServer { _, connection in
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: \(total)\r\n\r\n")
            let block = [UInt8](repeating: 7, count: 1 << 20)
            for _ in 0..<(total >> 20) where connection.send(block) { sent.withLock { $0 += block.count } }
        }
        defer { server.stop() }
        let stream = try await client.stream(HTTPRequest(url: server.url))
        var count = 0
        var iterator = stream.body.makeAsyncIterator()
        count += try await iterator.next()?.count ?? 0
        // Sender, kernel and client together settle on a bounded amount.
        var last = -1
        _ = try await eventually(5) {
            let now = sent.withLock { $0 }
            defer { last = now }
            try await Task.sleep(for: .milliseconds(150))
            return now == last
        }
        #expect(sent.withLock { $0 } < 32 << 20)
        while let bytes = try await iterator.next() { count += bytes.count }
        #expect(count == total)
    }

    @Test
    func `a silent server ends in a timeout`() async throws {
        let server = try HTTPTestServer { _, connection in _ = connection.waitForClose() }
        defer { server.stop() }
        for limits in [HTTPLimits(stall: .milliseconds(200)), HTTPLimits(total: .milliseconds(200))] {
            let error = await #expect(throws: HTTPError.self) {
                _ = try await client.send(HTTPRequest(url: server.url, limits: limits))
            }
            #expect(error?.code == .timeout)
        }
    }

    @Test
    func `failures have a code`() async throws {
        let server = try HTTPTestServer { request, connection in
            switch request.path {
            case "/long": connection.answer(200, [:], [UInt8](repeating: 1, count: 2000))
            case "/cut":
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            default: connection.answer(302, ["Location": "/again"])
            }
        }
        defer { server.stop() }
        var short = HTTPLimits()
        short.bodyBytesMax = 1000
        let cases: [(HTTPRequest, HTTPError.Code)] = [
            (HTTPRequest(url: "http://127.0.0.1:1/"), .couldNotConnect),
            (HTTPRequest(url: "http://x/", unixSocket: "/nonexistent/socket"), .couldNotConnect),
            (HTTPRequest(url: "ftp://127.0.0.1/"), .badRequest),
            (HTTPRequest(url: server.url + "/a b"), .badRequest),
            (HTTPRequest(url: server.url, headers: ["X": "a\r\nB: c"]), .badRequest),
            (HTTPRequest(method: "PUT", url: server.url, body: .file(path: "/nonexistent")), .badRequest),
            (HTTPRequest(url: server.url + "/long", limits: short), .tooLarge),
            (HTTPRequest(url: server.url + "/cut"), .connectionLost),
            (HTTPRequest(url: server.url + "/circle"), .tooManyRedirects),
            (HTTPRequest(url: server.url.replacing("http:", with: "https:")), .tls),
        ]
        for (request, code) in cases {
            let error = await #expect(throws: HTTPError.self, "\(request.url)") { _ = try await client.send(request) }
            #expect(error?.code == code, "\(request.url): \(error?.description ?? "")")
            #expect(error?.message.isEmpty == false)
        }
    }

    @Test
    func `many requests share few threads`() async throws {
        let server = try HTTPTestServer { request, connection in connection.answer(200, [:], Array(request.path.utf8)) }
        defer { server.stop() }
        let few = HTTPClient(transfersMax: 2)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for number in 0..<40 {
                group.addTask {
                    let response = try await few.send(HTTPRequest(url: server.url + "/\(number)"))
                    return response.body == Array("/\(number)".utf8)
                }
            }
            for try await isRight in group { #expect(isRight) }
        }
    }

    @Test
    func `a missing library is named`() {
        let error = CurlErrors.libraryMissing("libnothing.so.9: cannot open shared object file")
        #expect(error.code == .libraryMissing)
        #expect(error.message.contains("libnothing.so.9"))
        #expect(error.hint?.contains("libcurl4") == true)
    }
}
