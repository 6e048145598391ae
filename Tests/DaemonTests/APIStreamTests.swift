// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import Synchronization
import Testing

@testable import Daemon

@Suite struct APIStreamTests {
    private let follow =
        "GET /v1/apps/web/logs?follow=true&tail=5&service=web&task=t1&since=2026-03-01T00:00:00Z HTTP/1.1\r\n"
        + "Host: h\r\n\r\n"

    @Test func `logs come as one JSON line each and end with the logs`() async throws {
        let backend = FakeBackend()
        try await withServer(backend) { server async throws in
            let answer = try await server.request("GET", "/v1/apps/web/logs?tail=3")
            #expect(answer.status == 200)
            #expect(answer.headers["content-type"] == "application/x-ndjson")
            let lines = try answer.text.split(separator: "\n").map {
                try JSON.decode(AppLogLine.self, from: Data($0.utf8))
            }
            #expect(lines.map(\.text) == ["line 1", "line 2", "line 3"])
            #expect(
                backend.state.withLock { $0.filters }
                    == [LogFilter(service: nil, task: nil, tail: 3, since: nil, follow: false)])
        }
    }

    @Test func `a followed line arrives at once and the source ends when the client goes away`() async throws {
        let ended = Mutex(false)
        let (lines, source) = AsyncThrowingStream.makeStream(of: AppLogLine.self, throwing: (any Error).self)
        source.onTermination = { _ in ended.withLock { $0 = true } }
        let backend = FakeBackend(lines: { lines })
        try await withServer(backend) { server async throws in
            let socket = server.socket, follow = follow
            let connection = try await onThread {
                let connection = try RawConnection(socket)
                try connection.send(follow)
                _ = try connection.head()
                return connection
            }
            for number in 1...3 {
                source.yield(FakeBackend.line("now \(number)"))
                let chunk = try await onThread { try connection.chunk() }
                #expect(chunk.map { String(decoding: $0, as: UTF8.self) }?.contains("now \(number)") == true)
            }
            let filter = try #require(backend.state.withLock { $0.filters.first })
            #expect(filter.follow && filter.tail == 5 && filter.service == "web" && filter.task == "t1")
            #expect(filter.since == Timestamp("2026-03-01T00:00:00Z"))
            #expect(!ended.withLock { $0 })
            connection.hangUp()
            // Nothing is written meanwhile: the server has to notice by itself.
            #expect(await eventually { ended.withLock { $0 } })
        }
    }

    @Test(arguments: [false, true])
    func `a client that does not read stops the source`(follow: Bool) async throws {
        let produced = Mutex(0)
        let text = String(repeating: "x", count: 10_000)
        let backend = FakeBackend(lines: {
            AsyncThrowingStream(unfolding: {
                produced.withLock { $0 += 1 }
                return FakeBackend.line(text)
            })
        })
        try await withServer(backend) { server async throws in
            let socket = server.socket
            let connection = try await onThread {
                let connection = try RawConnection(socket, receiveBytes: 4096)
                try connection.send("GET /v1/apps/web/logs?follow=\(follow) HTTP/1.1\r\nHost: h\r\n\r\n")
                _ = try connection.head()
                return connection
            }
            // It stands still when two looks a while apart see the same number.
            let last = Mutex(-1)
            let still = await eventually {
                let count = produced.withLock { $0 }
                try? await Task.sleep(for: .milliseconds(200))
                return produced.withLock { $0 } == count && count > 0
            }
            last.withLock { $0 = produced.withLock { $0 } }
            #expect(still)
            #expect(last.withLock { $0 } < 500, "lines made for a client that reads none")
            // And goes on when the client does.
            let start = last.withLock { $0 }
            _ = try await onThread { for _ in 0..<(start + 10) { _ = try connection.chunk() } }
            #expect(await eventually { produced.withLock { $0 } > start })
            connection.hangUp()
        }
    }

    @Test func `a source that fails cuts the body off`() async throws {
        struct Lost: Error {}
        let backend = FakeBackend(lines: {
            AsyncThrowingStream { continuation in
                continuation.yield(FakeBackend.line("last"))
                continuation.finish(throwing: Lost())
            }
        })
        try await withServer(backend) { server async throws in
            await #expect(throws: RawConnection.Failure.self) {
                try await server.request("GET", "/v1/apps/web/logs")
            }
            let health = try await server.request("GET", "/health")
            #expect(health.status == 200)
        }
    }

    @Test(arguments: [false, true])
    func `a graceful stop ends open log streams within 2 seconds`(readsNothing: Bool) async throws {
        let text = String(repeating: "x", count: 10_000)
        let (quiet, source) = AsyncThrowingStream.makeStream(of: AppLogLine.self, throwing: (any Error).self)
        let backend = FakeBackend(lines: {
            readsNothing ? AsyncThrowingStream(unfolding: { FakeBackend.line(text) }) : quiet
        })
        let clock = ContinuousClock()
        let stopping = Mutex(clock.now)
        let held = Mutex<RawConnection?>(nil)
        try await withServer(backend) { server async throws in
            let socket = server.socket, follow = follow
            let connection = try await onThread {
                let connection = try RawConnection(socket, receiveBytes: 4096)
                try connection.send(follow)
                _ = try connection.head()
                return connection
            }
            held.withLock { $0 = connection }
            stopping.withLock { $0 = clock.now }
        }
        #expect(clock.now - stopping.withLock { $0 } < .seconds(2))
        if !readsNothing {
            // It was ended, not cut off.
            let connection = try #require(held.withLock { $0 })
            #expect(try await onThread { try connection.chunk() } == nil)
        }
        source.finish()
    }

    @Test func `a request under way is answered during a graceful stop`() async throws {
        let (entered, enter) = AsyncStream.makeStream(of: Void.self)
        let (released, release) = AsyncStream.makeStream(of: Void.self)
        let backend = FakeBackend(onStatus: {
            enter.finish()
            for await _ in released {}
        })
        try await withServer(backend) { server async throws in
            async let answer = server.request("GET", "/v1/status")
            for await _ in entered {}
            await server.stop()
            release.finish()
            let status = try await answer.status
            #expect(status == 200)
        }
    }

    @Test func `a request that does not end is refused some time after the stop began`() async throws {
        var limits = RequestLimits()
        limits.drain = .milliseconds(100)
        let (entered, enter) = AsyncStream.makeStream(of: Void.self)
        let backend = FakeBackend(onStatus: {
            enter.finish()
            try await Task.sleep(for: .seconds(60))
        })
        try await withServer(backend, limits: limits) { server async throws in
            async let answer = server.request("GET", "/v1/status")
            for await _ in entered {}
            await server.stop()
            let problem = try await answer.problem
            #expect(problem?.code == .runtimeUnavailable)
        }
    }
}
