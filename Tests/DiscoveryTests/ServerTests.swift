// SPDX-License-Identifier: Apache-2.0
import Model
import NIOCore
import NIOPosix
import TestSupport
import Testing

@testable import Discovery

/// A started server with the sample table and the given upstreams (all on one port).
func withServer(
    resolvers: String = "", limits: Upstream.Limits = Upstream.Limits(),
    _ body: (_ server: DNSServer, _ port: Int, _ configuration: TemporaryDirectory) async throws -> Void
) async throws {
    try await withTemporaryDirectory("dns") { directory in
        let path = try directory.write(resolvers, to: "resolv.conf")
        let server = DNSServer(
            upstream: Upstream(path: path, limits: limits), eventLoopGroup: MultiThreadedEventLoopGroup.singleton)
        // The kernel's free TCP port may be taken for UDP: then another one is asked for.
        try await eventually("the server listens") {
            try await server.start(address: "127.0.0.1", port: 0)
            return true
        }
        let port = try #require(server.port)
        await server.publish(sampleTable())
        do { try await body(server, port, directory) } catch {
            await server.stop()
            throw error
        }
        await server.stop()
    }
}

@Suite struct ServerTests {
    private let group = MultiThreadedEventLoopGroup.singleton

    @Test func `UDP and TCP answer on the same port`() async throws {
        try await withServer { _, port, _ in
            for overTCP in [false, true] {
                let answer = try await exchange(
                    question("web.default.hive.internal"), port: port, overTCP: overTCP, on: group)
                #expect(answer.addresses == ["10.211.0.1"])
                #expect(answer.id == 4711)
            }
            let cut = try await exchange(question("huge.default.hive.internal"), port: port, on: group)
            #expect(cut.isTruncated && !cut.answers.isEmpty)
            let whole = try await exchange(
                question("huge.default.hive.internal"), port: port, overTCP: true, on: group)
            #expect(whole.answers.count == 400)
        }
    }

    @Test func `a bare name means what the source address says`() async throws {
        try await withServer { _, port, _ in
            let own = try await exchange(question("db"), port: port, from: "127.0.0.20", on: group)
            #expect(own.addresses == ["10.211.0.2"])
            let stranger = try await exchange(question("db"), port: port, from: "127.0.0.21", on: group)
            #expect(stranger.rcode == DNSRcode.serverFailure)
        }
    }

    @Test func `many queries at once are all answered`() async throws {
        try await withServer { _, port, _ in
            let count = try await withThrowingTaskGroup(of: Int.self) { tasks in
                for id in 0..<100 {
                    tasks.addTask {
                        let query = try question("tasks.web.default.hive.internal", id: UInt16(id))
                        let answer = try await exchange(query, port: port, on: MultiThreadedEventLoopGroup.singleton)
                        return answer.id == UInt16(id) && answer.addresses.count == 3 ? 1 : 0
                    }
                }
                return try await tasks.reduce(0, +)
            }
            #expect(count == 100)
        }
    }

    @Test func `a taken port is an error that names it, and the loser leaves the winner alone`() async throws {
        try await withServer { _, port, _ in
            let second = DNSServer(
                upstreamConfiguration: "/nonexistent", eventLoopGroup: MultiThreadedEventLoopGroup.singleton)
            let error = await #expect(throws: DNSServerError.self) {
                try await second.start(address: "127.0.0.1", port: port)
            }
            #expect(error?.reason.code == .networkFailed)
            #expect(error?.reason.message.contains("127.0.0.1 port \(port)") == true)
            let answer = try await exchange(question("web.default.hive.internal"), port: port, on: group)
            #expect(answer.addresses == ["10.211.0.1"])
        }
    }

    @Test func `a stopped server frees its port and starts again`() async throws {
        try await withServer { server, port, _ in
            await server.stop()
            #expect(server.port == nil)
            // Whoever asks the kernel for any port may get this one for a moment.
            try await eventually("the server listens again") {
                try await server.start(address: "127.0.0.1", port: port)
                return true
            }
            let answer = try await exchange(question("web.default.hive.internal"), port: port, on: group)
            #expect(answer.addresses == ["10.211.0.1"])
        }
    }
}
