// SPDX-License-Identifier: Apache-2.0
import NIOCore
import NIOPosix
import TestSupport
import Testing

@testable import Discovery

@Suite struct UpstreamTests {
    private let group = MultiThreadedEventLoopGroup.singleton
    private static let resolvers = "search lan\nnameserver 169.254.20.10\nnameserver 127.0.0.1\n"

    private func withUpstream(
        _ limits: Upstream.Limits = Upstream.Limits(), resolvers: String = Self.resolvers,
        answer: @escaping @Sendable (DNSMessage, Bool) -> DNSMessage?,
        _ body: (_ port: Int, _ upstream: FakeUpstream, _ directory: TemporaryDirectory) async throws -> Void
    ) async throws {
        let upstream = try await FakeUpstream.start(group, answer)
        var limits = limits
        limits.port = upstream.port
        do {
            try await withServer(resolvers: resolvers, limits: limits) { _, port, directory in
                try await body(port, upstream, directory)
            }
        } catch {
            await upstream.stop()
            throw error
        }
        await upstream.stop()
    }

    @Test func `a foreign name is asked upstream once and then remembered`() async throws {
        try await withUpstream(answer: { query, _ in query.reply([0x0102_0304]) }) { port, upstream, _ in
            let first = try await exchange(question("Example.com", id: 1), port: port, on: group)
            #expect(first.addresses == ["1.2.3.4"])
            #expect(first.id == 1)
            let second = try await exchange(question("exAMPLE.com", id: 2), port: port, on: group)
            #expect(second.addresses == ["1.2.3.4"])
            #expect(second.id == 2)
            #expect(second.questions.first?.name.description == "exAMPLE.com.")
            #expect(upstream.questions.count == 1)
        }
    }

    @Test func `names of the zone and known bare names never leave`() async throws {
        try await withUpstream(answer: { query, _ in query.reply([1]) }) { port, upstream, _ in
            _ = try await exchange(question("nope.hive.internal"), port: port, on: group)
            _ = try await exchange(question("db"), port: port, from: "127.0.0.20", on: group)
            #expect(upstream.questions.isEmpty)
            _ = try await exchange(question("other"), port: port, from: "127.0.0.20", on: group)
            #expect(upstream.questions.count == 1)
        }
    }

    @Test func `a cut answer is passed on and TCP gets the whole`() async throws {
        try await withUpstream(answer: { query, overTCP in
            overTCP ? query.reply(Array(1...100)) : query.reply([1], flags: DNSFlags.truncated)
        }) { port, upstream, _ in
            let cut = try await exchange(question("big.example"), port: port, on: group)
            #expect(cut.isTruncated && cut.answers.count == 1)
            let whole = try await exchange(question("big.example"), port: port, overTCP: true, on: group)
            #expect(whole.answers.count == 100)
            let again = try await exchange(question("big.example"), port: port, on: group)
            #expect(again.isTruncated)
        }
    }

    @Test func `EDNS is asked for only when the client has it`() async throws {
        try await withUpstream(answer: { query, _ in query.reply(ttl: 0, [1]) }) { port, upstream, _ in
            _ = try await exchange(question("a.example"), port: port, on: group)
            let answer = try await exchange(question("a.example", payload: 4096), port: port, on: group)
            #expect(answer.isEDNS)
            #expect(upstream.questions.map(\.isEDNS) == [false, true])
            #expect(upstream.questions.last?.additionals.first?.dnsClass == Responder.ednsPayload)
        }
    }

    @Test func `an answer with the wrong id or question is not believed`() async throws {
        var limits = Upstream.Limits()
        limits.tryTimeout = .milliseconds(150)
        try await withUpstream(
            limits,
            answer: { query, _ in
                var reply = query.reply([1])
                if query.questions[0].type == DNSType.a { reply.id ^= 1 } else { reply.questions[0].type = DNSType.a }
                return reply
            }
        ) { port, _, _ in
            for type in [DNSType.a, DNSType.aaaa] {
                let answer = try await exchange(question("a.example", type), port: port, on: group)
                #expect(answer.rcode == DNSRcode.serverFailure)
                #expect(answer.answers.isEmpty)
            }
        }
    }

    @Test func `a silent upstream costs two tries and then fails`() async throws {
        var limits = Upstream.Limits()
        limits.tryTimeout = .milliseconds(150)
        try await withUpstream(limits, answer: { _, _ in nil }) { port, upstream, _ in
            let start = ContinuousClock.now
            let answer = try await exchange(question("a.example"), port: port, on: group)
            #expect(answer.rcode == DNSRcode.serverFailure)
            #expect(ContinuousClock.now - start >= .milliseconds(300))
            #expect(ContinuousClock.now - start < .seconds(10))
            #expect(upstream.questions.count == 2)
        }
    }

    @Test func `more than the bound at once fails without waiting`() async throws {
        var limits = Upstream.Limits()
        limits.tryTimeout = .seconds(60)
        limits.outstandingMax = 3
        let upstream = try await FakeUpstream.start(group) { _, _ in nil }
        limits.port = upstream.port
        let limited = limits
        try await withTemporaryDirectory("dns") { directory in
            let forwarder = Upstream(path: try directory.write(Self.resolvers, to: "resolv.conf"), limits: limited)
            try await forwarder.open(own: "127.0.0.1")
            let request = Upstream.Request(
                question: Array(try question("a.example").encoded.dropFirst(12)), flags: 0, edns: nil, overTCP: false,
                limit: 512)
            let loop = group.next()
            for _ in 0..<3 { _ = forwarder.ask(request, on: loop) }
            #expect(forwarder.outstanding == 3)
            let refused = try await forwarder.ask(request, on: loop).get()
            #expect(refused == nil)
            #expect(forwarder.outstanding == 3)
        }
        await upstream.stop()
    }

    @Test func `the next server is asked when the first is dead or failing`() async throws {
        var limits = Upstream.Limits()
        // The living one has as much, on a machine where everything else runs, too.
        limits.tryTimeout = .seconds(3)
        // Nothing listens on 127.0.0.99.
        let resolvers = "nameserver 127.0.0.99\nnameserver 127.0.0.1\n"
        try await withUpstream(limits, resolvers: resolvers, answer: { query, _ in query.reply([9]) }) { port, _, _ in
            let answer = try await exchange(question("a.example"), port: port, on: group)
            #expect(answer.addresses == ["0.0.0.9"])
        }
    }

    @Test func `without an upstream a foreign name fails at once`() async throws {
        try await withServer(resolvers: "# none\n") { _, port, _ in
            let answer = try await exchange(question("a.example"), port: port, on: group)
            #expect(answer.rcode == DNSRcode.serverFailure)
        }
    }

    @Test func `a changed configuration is read again`() async throws {
        var limits = Upstream.Limits()
        limits.checkInterval = .milliseconds(20)
        try await withUpstream(limits, resolvers: "", answer: { query, _ in query.reply([5]) }) { port, _, directory in
            let before = try await exchange(question("a.example"), port: port, on: group)
            #expect(before.rcode == DNSRcode.serverFailure)
            _ = try directory.write(Self.resolvers, to: "resolv.conf")
            try await eventually("the new server is asked") {
                try await exchange(question("a.example"), port: port, on: group).addresses == ["0.0.0.5"]
            }
        }
    }

    @Test func `nameservers are read as the C library reads them, ourselves left out`() {
        let text = """
            # comment
            nameserver 169.254.20.10
            nameserver nonsense
            options ndots:1
            nameserver\t10.0.0.1
            nameserver 10.0.0.1
            nameserver ::1
            nameserver 10.0.0.2
            nameserver 10.0.0.3
            """
        let servers = ResolverConfiguration.servers(text, port: 53, skipping: ["169.254.20.10"])
        #expect(servers.map(\.ipAddress) == ["10.0.0.1", "::1", "10.0.0.2"])
    }
}
