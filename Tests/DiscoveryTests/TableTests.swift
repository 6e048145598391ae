// SPDX-License-Identifier: Apache-2.0
import Model
import NIOCore
import Testing

@testable import Discovery

@Suite struct TableTests {
    private let asker = Asker()

    @Test(
        arguments: [
            ("web.default.hive.internal", nil, ["10.211.0.1"]),
            ("web.prod.hive.internal", nil, ["10.211.1.1"]),
            ("db.shop.default.hive.internal", nil, ["10.211.0.2"]),
            ("tasks.web.default.hive.internal", nil, ["10.210.0.10", "10.210.0.11", "10.210.0.12"]),
            ("tasks.db.shop.default.hive.internal", nil, ["10.210.0.20"]),
            ("ring.shop.default.hive.internal", nil, ["10.210.0.40", "10.210.0.41", "10.210.0.42"]),
            ("quiet.default.hive.internal", nil, ["10.211.0.4"]),
            ("web", "10.210.0.10", ["10.211.0.1"]),
            ("web", "10.210.0.20", ["10.211.0.3"]),
            ("web", "10.210.9.1", ["10.211.1.1"]),
            ("db", "10.210.0.20", ["10.211.0.2"]),
            ("db.shop", "10.210.0.10", ["10.211.0.2"]),
            ("web.web", "10.210.0.20", ["10.211.0.1"]),
            ("quiet", "10.210.0.20", ["10.211.0.4"]),
            ("tasks.web", "10.210.0.20", ["10.210.0.30"]),
            ("tasks.web", "10.210.0.10", ["10.210.0.10", "10.210.0.11", "10.210.0.12"]),
            ("tasks.db.shop", "10.210.0.10", ["10.210.0.20"]),
        ] as [(String, String?, [String])])
    func `a name means its service`(_ name: String, _ client: String?, _ expected: [String]) throws {
        let answer = try #require(try asker.ask(name, from: client))
        #expect(answer.addresses.sorted() == expected)
        #expect(answer.rcode == DNSRcode.noError)
        #expect(answer.isAuthoritative)
        let isEndpoints = name.hasPrefix("tasks.") || name.hasPrefix("ring.")
        #expect(answer.answers.allSatisfy { $0.ttl == (isEndpoints ? 1 : 5) })
    }

    @Test(
        arguments: [
            ("web", nil), ("web", "192.0.2.1"), ("db", "10.210.0.10"), ("db.shop", "10.210.9.1"),
            ("shop", "10.210.0.10"),
            ("db.shop.default", "10.210.0.20"), ("example.com", "10.210.0.10"), ("tasks", "10.210.0.20"),
            ("xhive.internal", nil), ("", "10.210.0.10"),
        ] as [(String, String?)])
    func `a name that is not ours is forwarded`(_ name: String, _ client: String?) throws {
        guard case .forward = asker.outcome(try question(name).encoded, from: client) else {
            Issue.record("\(name) was not forwarded")
            return
        }
    }

    @Test(
        arguments: [
            ("web.default.hive.internal", DNSType.aaaa), ("tasks.web.default.hive.internal", DNSType.aaaa),
            ("web.default.hive.internal", 16), ("tasks.quiet.default.hive.internal", DNSType.a),
            ("empty.default.hive.internal", DNSType.a), ("shop.default.hive.internal", DNSType.a),
            ("default.hive.internal", DNSType.a), ("hive.internal", DNSType.a),
        ] as [(String, UInt16)])
    func `an existing name without such records is no data`(_ name: String, _ type: UInt16) throws {
        let answer = try #require(try asker.ask(name, type))
        #expect(answer.rcode == DNSRcode.noError)
        #expect(answer.answers.isEmpty)
        #expect(answer.hasSOA)
    }

    @Test func `AAAA of a bare name is no data`() throws {
        let answer = try #require(try asker.ask("db", DNSType.aaaa, from: "10.210.0.20"))
        #expect(answer.rcode == DNSRcode.noError)
        #expect(answer.answers.isEmpty && answer.hasSOA)
    }

    @Test(arguments: [
        "nope.default.hive.internal", "web.nowhere.hive.internal", "nowhere.hive.internal",
        "tasks.nope.default.hive.internal", "a.b.c.d.e.hive.internal",
    ])
    func `a name of the zone that does not exist is refused with the SOA`(_ name: String) throws {
        for type in [DNSType.a, DNSType.aaaa] {
            let answer = try #require(try asker.ask(name, type, from: "10.210.0.10"))
            #expect(answer.rcode == DNSRcode.noSuchName)
            #expect(answer.answers.isEmpty && answer.hasSOA)
        }
    }

    @Test func `the SOA is there and carries the table's index`() throws {
        let answer = try #require(try asker.ask("hive.internal", DNSType.soa))
        guard case .soa(let soa) = try #require(answer.answers.first).data else {
            Issue.record("no SOA")
            return
        }
        #expect(soa.serial == 7)
        #expect(soa.primary == DNSName("ns.hive.internal"))
    }

    @Test func `case does not matter and is kept`() throws {
        let answer = try #require(try asker.ask("wEb.DEFAULT.Hive.Internal"))
        #expect(answer.addresses == ["10.211.0.1"])
        #expect(answer.questions.first?.name.description == "wEb.DEFAULT.Hive.Internal.")
        #expect(answer.answers.first?.name.description == "wEb.DEFAULT.Hive.Internal.")
    }

    @Test func `every endpoint comes first equally often, whatever else is asked between`() throws {
        var first: [String: Int] = [:]
        for _ in 0..<300 {
            let answer = try #require(try asker.ask("tasks.web.default.hive.internal"))
            first[try #require(answer.addresses.first), default: 0] += 1
            _ = try asker.ask("ring.shop.default.hive.internal")
            _ = try asker.ask("tasks.web.default.hive.internal", DNSType.aaaa)
        }
        #expect(first == ["10.210.0.10": 100, "10.210.0.11": 100, "10.210.0.12": 100])
    }

    @Test func `a new table is what the next query sees`() throws {
        asker.responder.publish(.empty)
        #expect(try asker.ask("web.default.hive.internal")?.rcode == DNSRcode.noSuchName)
    }

    @Test func `before the first table our names fail and foreign ones are forwarded`() throws {
        let asker = Asker(nil)
        #expect(try asker.ask("web.default.hive.internal")?.rcode == DNSRcode.serverFailure)
        #expect(try asker.ask("db", from: "10.210.0.20")?.rcode == DNSRcode.serverFailure)
        #expect(try asker.ask("example.com") == nil)
    }
}
