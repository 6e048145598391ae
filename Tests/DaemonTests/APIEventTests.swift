// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import Synchronization
import Testing

@testable import Daemon

/// One frame of an event stream, as a client reads it.
struct EventFrame: Sendable, Hashable {
    var id: String?
    var event: String?
    var data: String?
    var comment: String?
}

extension RawConnection {
    /// Opens the stream and reads its head.
    func openEvents(_ query: String = "", _ headers: String = "") throws -> Answer {
        try send("GET /v1/events\(query) HTTP/1.1\r\nHost: h\r\n\(headers)\r\n")
        return try head()
    }

    /// Frames of the next chunk; nil at the end of the body.
    func frames() throws -> [EventFrame]? {
        guard let chunk = try chunk() else { return nil }
        return String(decoding: chunk, as: UTF8.self).components(separatedBy: "\n\n").filter { !$0.isEmpty }.map {
            text in
            var frame = EventFrame()
            for line in text.split(separator: "\n") {
                let halves = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
                let value = halves[1].trimmingCharacters(in: .whitespaces)
                switch halves[0] {
                case "id": frame.id = value
                case "event": frame.event = value
                case "data": frame.data = value
                default: frame.comment = value
                }
            }
            return frame
        }
    }

    /// Frames with data until there are `count`.
    func events(_ count: Int) throws -> [EventFrame] {
        var found: [EventFrame] = []
        while found.count < count, let frames = try frames() { found += frames.filter { $0.data != nil } }
        return found
    }
}

@Suite struct APIEventTests {
    private func opened(
        _ server: TestServer, _ query: String = "", _ headers: String = "", receiveBytes: Int32? = nil
    ) async throws -> RawConnection {
        let socket = server.socket
        return try await onThread {
            let connection = try RawConnection(socket, receiveBytes: receiveBytes)
            let head = try connection.openEvents(query, headers)
            #expect(head.status == 200)
            #expect(head.headers["content-type"] == "text/event-stream")
            return connection
        }
    }

    @Test func `an event comes with its index as id, its kind and the object as it is now`() async throws {
        let backend = FakeBackend()
        try await withServer(backend) { server async throws in
            backend.happen("config", "before")
            let connection = try await opened(server)
            let first = try await onThread { try connection.frames() }
            // Where a stream without a resume point begins.
            #expect(first == [EventFrame(id: "8", event: nil, data: nil, comment: "bookmark 8")])
            backend.happen("config", "a")
            let frame = try #require(try await onThread { try connection.events(1) }.first)
            #expect(frame.id == "9" && frame.event == "config")
            let event = try JSON.decode(EventView.self, from: Data((frame.data ?? "").utf8))
            #expect(event.name == "a" && event.namespace == "default" && event.index == 9 && event.sub == 0)
            #expect(event.object == .config(ConfigView(name: "a", namespace: "default", data: "now", version: 9)))
            connection.hangUp()
        }
    }

    @Test(arguments: ["?after=8", "Last-Event-ID: 8", "both"])
    func `a stream resumes after the index it is given`(how: String) async throws {
        let backend = FakeBackend()
        for name in ["a", "b", "c"] { backend.happen("config", name) }
        try await withServer(backend) { server async throws in
            let query = how == "both" ? "?after=10" : how.hasPrefix("?") ? how : ""
            let headers = how.hasPrefix("?") ? "" : "Last-Event-ID: 8\r\n"
            let connection = try await opened(server, query, headers)
            #expect(try await onThread { try connection.events(2) }.map(\.id) == ["9", "10"])
            connection.hangUp()
        }
    }

    @Test func `a stream cut in the middle of an entry resumes in its middle`() async throws {
        let backend = FakeBackend()
        backend.happen("task", "a", "b", "c")
        backend.happen("task", "d")
        try await withServer(backend) { server async throws in
            let whole = try await opened(server, "?after=7")
            #expect(try await onThread { try whole.events(4) }.map(\.id) == ["8.0", "8.1", "8", "9"])
            let rest = try await opened(server, "", "Last-Event-ID: 8.0\r\n")
            #expect(try await onThread { try rest.events(3) }.map(\.id) == ["8.1", "8", "9"])
            whole.hangUp()
            rest.hangUp()
        }
    }

    @Test func `pages that end in the middle of an entry lose and repeat nothing`() async throws {
        let backend = FakeBackend()
        // More than one page, in entries of three.
        for number in 0..<150 { backend.happen("task", "a\(number)", "b\(number)", "c\(number)") }
        try await withServer(backend) { server async throws in
            let connection = try await opened(server, "?after=0")
            let frames = try await onThread { try connection.events(450) }
            let names = try frames.map { try JSON.decode(EventView.self, from: Data(($0.data ?? "").utf8)).name }
            #expect(names == (0..<150).flatMap { ["a\($0)", "b\($0)", "c\($0)"] })
            let ids = (8..<158).flatMap { ["\($0).0", "\($0).1", "\($0)"] }
            // Where a page ends with an entry nobody knows yet that it was its last: the id says so, and resumes alike.
            #expect(frames.map { $0.id.map { $0.hasSuffix(".2") ? String($0.dropLast(2)) : $0 } } == ids)
            connection.hangUp()
        }
    }

    @Test func `only the kinds and the namespace asked for come, and the place moves on with a bookmark`() async throws
    {
        let backend = FakeBackend()
        backend.happen("config", "a")
        backend.happen("task", "t")
        backend.happen("config", "b", namespace: "other")
        backend.happen("app", "web")
        backend.happen("node", "n", namespace: nil)
        var limits = RequestLimits()
        limits.bookmark = .milliseconds(50)
        try await withServer(backend, limits: limits) { server async throws in
            let connection = try await opened(server, "?after=7&kind=config,app&namespace=default")
            #expect(try await onThread { try connection.events(2) }.map(\.id) == ["8", "11"])
            let bookmark = try #require(try await onThread { try connection.frames() }?.first)
            #expect(bookmark == EventFrame(id: "12", event: nil, data: nil, comment: "bookmark 12"))
            connection.hangUp()
        }
    }

    @Test func `too old an index is refused with the oldest and the present one`() async throws {
        let backend = FakeBackend()
        for name in ["a", "b", "c"] { backend.happen("config", name) }
        backend.state.withLock { $0.eventsGone = 9 }
        try await withServer(backend) { server async throws in
            let answer = try await server.request("GET", "/v1/events?after=8")
            #expect(answer.status == 410)
            let problem = try #require(answer.problem)
            #expect(problem.code == .compacted && problem.oldestIndex == 9 && problem.currentIndex == 10)
            #expect(answer.text.contains("\"oldest_index\":9"))
            let connection = try await opened(server, "?after=9")
            #expect(try await onThread { try connection.events(1) }.map(\.id) == ["10"])
            connection.hangUp()
        }
    }

    @Test func `an index in the future waits for it and keeps the place`() async throws {
        let backend = FakeBackend()
        var limits = RequestLimits()
        limits.bookmark = .milliseconds(20)
        try await withServer(backend, limits: limits) { server async throws in
            let connection = try await opened(server, "?after=9")
            let waiting = try #require(try await onThread { try connection.frames() }?.first)
            #expect(waiting == EventFrame(id: nil, event: nil, data: nil, comment: "bookmark 7"))
            for name in ["early", "also early", "due"] { backend.happen("config", name) }
            let frame = try #require(try await onThread { try connection.events(1) }.first)
            #expect(frame.id == "10" && frame.data?.contains("due") == true)
            connection.hangUp()
        }
    }

    @Test func `a client that reads too slowly is told so and never skips`() async throws {
        let backend = FakeBackend()
        let name = String(repeating: "x", count: 5000)
        for _ in 0..<1000 { backend.happen("config", name) }
        try await withServer(backend) { server async throws in
            let connection = try await opened(server, "?after=7", receiveBytes: 4096)
            // What the connection holds is far less than all: the rest goes while nobody reads.
            _ = try await onThread { try connection.frames() }
            backend.state.withLock { $0.eventsGone = 1006 }
            let frames = try await onThread {
                var frames: [EventFrame] = []
                while let some = try connection.frames() { frames += some.filter { $0.data != nil } }
                return frames
            }
            let end = try #require(frames.last)
            #expect(end.event == "compacted" && end.id == nil)
            let problem = try JSON.decode(Problem.self, from: Data((end.data ?? "").utf8))
            #expect(problem.code == .compacted && problem.currentIndex == 1007)
            let ids = frames.dropLast().compactMap { $0.id.flatMap { UInt64($0) } }
            #expect(ids.count < 1000)
            #expect(ids == Array(8..<8 + UInt64(ids.count)), "a gap")
        }
    }

    @Test func `a client that does not read at all is let go and resumes where it was`() async throws {
        let backend = FakeBackend()
        let name = String(repeating: "x", count: 5000)
        for _ in 0..<1000 { backend.happen("config", name) }
        var limits = RequestLimits()
        limits.stall = .milliseconds(200)
        try await withServer(backend, limits: limits) { server async throws in
            let connection = try await opened(server, "?after=7", receiveBytes: 4096)
            let isLetGo = await eventually {
                guard let metrics = try? await server.request("GET", "/metrics") else { return false }
                return metrics.text.contains("hivemind_api_streams 0")
            }
            #expect(isLetGo)
            // What had left before the end is whole up to some event; from there another stream goes on.
            let seen = try await onThread {
                var ids: [UInt64] = []
                do {
                    while let frames = try connection.frames() {
                        ids += frames.filter { $0.data != nil }.compactMap { $0.id.flatMap { UInt64($0) } }
                    }
                } catch is RawConnection.Failure {}
                return ids
            }
            #expect(seen.count < 1000 && seen == Array(8..<8 + UInt64(seen.count)), "\(seen.count)")
            let last = seen.last ?? 7
            let again = try await opened(server, "?after=\(last)")
            let next = try #require(try await onThread { try again.events(1) }.first)
            #expect(next.id == "\(last + 1)")
            again.hangUp()
        }
    }

    @Test func `streams beyond the bound are refused and places come back`() async throws {
        var limits = RequestLimits()
        limits.streamsMax = 2
        try await withServer(limits: limits) { server async throws in
            let first = try await opened(server), second = try await opened(server)
            let refused = try await server.request("GET", "/v1/events")
            #expect(refused.status == 429 && refused.problem?.code == .busy, "\(refused.text)")
            #expect(refused.problem?.hint?.isEmpty == false)
            // What ends by itself is no such stream.
            #expect(try await server.request("GET", "/v1/apps").status == 200)
            first.hangUp()
            let socket = server.socket
            let isTaken = await eventually {
                let head = try? await onThread { () -> Int in
                    let connection = try RawConnection(socket)
                    defer { connection.hangUp() }
                    return try connection.openEvents().status
                }
                return head == 200
            }
            #expect(isTaken)
            second.hangUp()
        }
    }

    @Test func `a graceful stop ends the stream whole and soon`() async throws {
        let held = Mutex<RawConnection?>(nil)
        let clock = ContinuousClock()
        let stopping = Mutex(clock.now)
        let backend = FakeBackend()
        try await withServer(backend) { server async throws in
            let connection = try await opened(server)
            _ = try await onThread { try connection.frames() }
            held.withLock { $0 = connection }
            stopping.withLock { $0 = clock.now }
        }
        #expect(clock.now - stopping.withLock { $0 } < .seconds(2))
        let connection = try #require(held.withLock { $0 })
        #expect(try await onThread { try connection.frames() } == nil)
    }

    @Test(arguments: [
        "after=x", "after=-1", "after=5.x", "after=5.-1", "kind=apps", "kind=app,", "kind=", "namespace=A",
    ])
    func `a filter or a place that cannot be is refused`(query: String) async throws {
        try await withServer { server async throws in
            let answer = try await server.request("GET", "/v1/events?\(query)")
            #expect(answer.status == 400, "\(answer.text)")
            #expect(answer.problem?.hint?.isEmpty == false)
        }
    }
}
