// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import Testing

@testable import Daemon

@Suite struct APIErrorTests {
    @Test(arguments: [
        ("GET", "/nothing", "", 404, Problem.Code.notFound, "`/nothing`"),
        ("GET", "/", "", 404, .notFound, "nothing at"),
        ("GET", "/v1/apps/gone", "", 404, .notFound, "`gone`"),
        ("POST", "/v1/apps", "", 405, .methodNotAllowed, "POST"),
        ("PATCH", "/v1/apps/web", "{}", 405, .methodNotAllowed, "PATCH"),
        ("GET", "/v1/apps/Web", "", 400, .invalidName, "`Web`"),
        ("GET", "/v1/apps/a%00", "", 400, .invalidName, "`a?`"),
        ("GET", "/v1/apps/%zz", "", 400, .badRequest, "percent"),
        ("GET", "/v1/apps?a=%f", "", 400, .badRequest, "`a=%f`"),
        ("GET", "/v1/apps?namespace=A", "", 400, .invalidName, "namespace"),
        ("GET", "/v1/apps?consistency=maybe", "", 400, .badRequest, "maybe"),
        ("GET", "/v1/tasks?all=perhaps", "", 400, .badRequest, "all"),
        ("GET", "/v1/apps/web/logs?tail=-1", "", 400, .badRequest, "tail"),
        ("GET", "/v1/apps/web/logs?since=yesterday", "", 400, .badRequest, "RFC 3339"),
        ("GET", "/v1/apps/gone/logs?follow=true", "", 404, .notFound, "gone"),
        ("PUT", "/v1/apps/web", "", 400, .badRequest, "no body"),
        ("PUT", "/v1/apps/web", "{", 400, .badRequest, "not valid JSON"),
        ("PUT", "/v1/apps/web", "{}", 400, .badRequest, "`services` is missing"),
        (
            "PUT", "/v1/apps/web", #"{"services":[{"name":"web","image":"a","replicas":"x"}]}"#, 400, .badRequest,
            "`services[0].replicas`"
        ),
        (
            "PUT", "/v1/apps/web", #"{"services":[{"name":"web","image":"a","stop_timeout_milliseconds":true}]}"#, 400,
            .badRequest, "`services[0].stop_timeout_milliseconds`"
        ),
        ("PUT", "/v1/apps/web", #"{"services":[]}"#, 422, .invalidSpec, "1...100"),
        ("PUT", "/v1/apps/web", #"{"services":[{"name":"web","image":"a b"}]}"#, 422, .invalidSpec, "image"),
        ("POST", "/v1/apps/web/scale", #"{"replicas":1001}"#, 422, .invalidSpec, "1001"),
        ("POST", "/v1/images/pull", #"{"image":""}"#, 400, .invalidName, "empty"),
        ("DELETE", "/v1/images", "", 400, .badRequest, "which image"),
        ("POST", "/v1/images/import?name=x", "", 400, .badRequest, "no body"),
        ("DELETE", "/v1/volumes/used", "", 409, .volumeInUse, "used by web"),
        ("GET", "/v1/configs/a%20b", "", 400, .invalidName, "config"),
    ])
    func `a refusal is a problem with code, words and request id`(
        _ row: (method: String, target: String, body: String, status: Int, code: Problem.Code, words: String)
    ) async throws {
        try await withServer { server async throws in
            let answer = try await server.request(
                row.method, row.target, headers: ["X-Request-Id": "abc-1"], body: row.body.isEmpty ? nil : row.body)
            #expect(answer.status == row.status)
            #expect(answer.headers["content-type"] == "application/problem+json")
            #expect(answer.headers["x-request-id"] == "abc-1")
            let problem = try #require(answer.problem, "\(answer.text)")
            #expect(problem.code == row.code)
            #expect(problem.status == row.status)
            #expect(problem.requestId == "abc-1")
            #expect(problem.detail.contains(row.words), "\(problem.detail)")
        }
    }

    @Test func `a wrong method is told which ones are right`() async throws {
        try await withServer { server async throws in
            let answer = try await server.request("POST", "/v1/configs/a")
            #expect(answer.headers["allow"] == "DELETE, GET, PUT")
        }
    }

    @Test func `a request id that could not stand in a log is replaced`() async throws {
        try await withServer { server async throws in
            let answer = try await server.request("GET", "/version", headers: ["X-Request-Id": "a b"])
            let id = try #require(answer.headers["x-request-id"])
            #expect(id.count == 12 && id != "a b")
            let next = try await server.request("GET", "/version")
            #expect(next.headers["x-request-id"] != id)
        }
    }

    @Test func `an error of an effect room keeps its meaning and an unknown one is internal`() async throws {
        let reason = Reason(.registryDenied, "the registry wants a login", hint: "log in")
        try await withServer(FakeBackend(fault: SimulatedError(reason))) { server async throws in
            let problem = try #require(try await server.request("GET", "/v1/apps").problem)
            #expect(problem.code == .registryDenied)
            #expect(problem.hint == "log in")
        }
        struct Odd: Error {}
        try await withServer(FakeBackend(fault: Odd())) { server async throws in
            let answer = try await server.request("GET", "/v1/apps")
            #expect(answer.status == 500)
            #expect(answer.problem?.code == .internal)
        }
    }

    @Test func `a JSON body above the limit is refused by its length and by its bytes`() async throws {
        try await withServer { server async throws in
            let socket = server.socket
            let declared = try await server.request(
                "PUT", "/v1/configs/a", body: String(repeating: " ", count: 4 << 20 + 1))
            #expect(declared.status == 413)
            #expect(declared.problem?.code == .payloadTooLarge)
            let chunked = try await onThread {
                let connection = try RawConnection(socket)
                try connection.send("PUT /v1/configs/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
                let part = [UInt8]("100000\r\n".utf8) + [UInt8](repeating: 32, count: 1 << 20) + [13, 10]
                for _ in 0..<5 { try connection.send(part) }
                try connection.send("0\r\n\r\n")
                return try connection.answer()
            }
            #expect(chunked.status == 413)
            #expect(try await server.request("GET", "/health").status == 200)
        }
    }

    @Test func `a body of exactly the limit is read`() async throws {
        var limits = RequestLimits()
        limits.jsonBytesMax = 12
        try await withServer(limits: limits) { server async throws in
            #expect(try await server.request("PUT", "/v1/configs/a", body: #"{"data":"a"}"#).status == 200)
            #expect(try await server.request("PUT", "/v1/configs/a", body: #"{"data":"ab"}"#).status == 413)
        }
    }

    @Test func `a client that waits to be asked for its body is asked, or refused without it`() async throws {
        try await withServer { server async throws in
            let socket = server.socket
            let (asked, final, refused) = try await onThread {
                let first = try RawConnection(socket)
                let head = "PUT /v1/configs/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                try first.send(head + "Content-Length: 12\r\n\r\n")
                let asked = try first.answer()
                try first.send(#"{"data":"a"}"#)
                let final = try first.answer()
                let second = try RawConnection(socket)
                try second.send(head + "Content-Length: 99999999999\r\n\r\n")
                return (asked.status, final.status, try second.answer().status)
            }
            #expect(asked == 100)
            #expect(final == 200)
            #expect(refused == 413)
        }
    }

    @Test func `headers without end are refused`() async throws {
        try await withServer { server async throws in
            let answer = try await server.request(
                "GET", "/version", headers: ["X-Long": String(repeating: "a", count: 40_000)])
            #expect(answer.status == 400)
        }
    }

    @Test func `a request is answered at its deadline whatever the backend does`() async throws {
        var limits = RequestLimits()
        limits.ordinary = .milliseconds(100)
        let (released, release) = AsyncStream.makeStream(of: Void.self)
        // Does not listen to cancellation until the test lets it go.
        let backend = FakeBackend(onStatus: {
            await Task.detached { for await _ in released {} }.value
        })
        try await withServer(backend, limits: limits) { server async throws in
            let answer = try await server.request("GET", "/v1/status")
            #expect(answer.status == 504)
            #expect(answer.problem?.code == .timeout)
            release.finish()
        }
    }

    @Test func `a body that does not come ends at the deadline`() async throws {
        var limits = RequestLimits()
        limits.ordinary = .milliseconds(100)
        try await withServer(limits: limits) { server async throws in
            let socket = server.socket
            let answer = try await onThread {
                let connection = try RawConnection(socket)
                try connection.send("PUT /v1/configs/a HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n{")
                return try connection.answer()
            }
            #expect(answer.status == 504)
        }
    }
}
