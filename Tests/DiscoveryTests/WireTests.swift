// SPDX-License-Identifier: Apache-2.0
import NIOCore
import TestSupport
import Testing

@testable import Discovery

@Suite struct WireTests {
    private func sample() throws -> DNSMessage {
        let name = try #require(DNSName("Web.default.hive.internal"))
        let soa = DNSMessage.SOA(
            primary: name, mailbox: .root, serial: 1, refresh: 2, retry: 3, expire: 4, minimum: 5)
        return DNSMessage(
            id: 9, flags: 0x8580, questions: [DNSMessage.Question(name: name, type: DNSType.a)],
            answers: [
                DNSMessage.Record(name: name, ttl: 5, data: .a(0x0ad3_0001)),
                DNSMessage.Record(name: name, ttl: 6, data: .aaaa(Array(0..<16))),
                DNSMessage.Record(name: name, ttl: 7, data: .other(type: 16, [2, 104, 105])),
            ],
            authorities: [DNSMessage.Record(name: .root, ttl: 8, data: .soa(soa))],
            additionals: [DNSMessage.Record(name: .root, dnsClass: 1232, ttl: 0, data: .opt([0, 10, 0, 1, 7]))])
    }

    @Test func `a message survives encoding and decoding`() throws {
        let message = try sample()
        #expect(try DNSMessage.decode(message.encoded) == message)
    }

    @Test func `every cut message is refused`() throws {
        let bytes = try sample().encoded
        for length in 0..<bytes.count {
            #expect(throws: DNSWireError.self) { try DNSMessage.decode(Array(bytes.prefix(length))) }
        }
    }

    @Test func `pointers are followed backwards only`() throws {
        let head: [UInt8] = [0, 1, 0x80, 0, 0, 2, 0, 0, 0, 0, 0, 0]
        let first: [UInt8] = [3, 119, 119, 119, 0, 0, 1, 0, 1]
        let back = try DNSMessage.decode(head + first + [1, 97, 0xc0, 12, 0, 1, 0, 1])
        #expect(back.questions[1].name == DNSName("a.www"))
        for target: UInt8 in [21, 23, 40] {
            #expect(throws: DNSWireError.self) {
                try DNSMessage.decode(head + first + [1, 97, 0xc0, target, 0, 1, 0, 1])
            }
        }
    }

    @Test func `names have bounds`() throws {
        let label = String(repeating: "a", count: 63)
        #expect(DNSName(label) != nil)
        #expect(DNSName(label + "a") == nil)
        #expect(DNSName("a..b") == nil)
        #expect(DNSName([label, label, label, String(repeating: "b", count: 61)].joined(separator: ".")) != nil)
        #expect(DNSName([label, label, label, String(repeating: "b", count: 62)].joined(separator: ".")) == nil)
    }

    @Test func `a count without records allocates nothing and is refused`() {
        let bytes: [UInt8] = [0, 1, 0x80, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        #expect(throws: DNSWireError.short) { try DNSMessage.decode(bytes) }
    }

    @Test func `mutated messages never break the decoder or the responder`() throws {
        var random = SeededRandom(seed: 53)
        let asker = Asker()
        let seeds = [
            try sample().encoded, try question("tasks.web.default.hive.internal", payload: 1232).encoded,
            try #require(asker.bytes(try question("nope.hive.internal"))),
        ]
        var refused = 0
        var forwarded = 0
        let start = ContinuousClock.now
        for _ in 0..<20_000 {
            var bytes = seeds[Int.random(in: 0..<seeds.count, using: &random)]
            for _ in 0..<Int.random(in: 1...6, using: &random) where !bytes.isEmpty {
                let at = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes[at] = 0xc0 | (bytes[at] & 1)
                case 2: bytes.removeSubrange(at...)
                default: bytes.insert(UInt8.random(in: 0...255, using: &random), at: at)
                }
            }
            do { _ = try DNSMessage.decode(bytes) } catch { refused += 1 }
            switch asker.outcome(bytes, from: "10.210.0.20") {
            case .answer(let answer): _ = try DNSMessage.decode(Array(answer.readableBytesView))
            case .forward: forwarded += 1
            case .drop: #expect(bytes.count < 12 || bytes[2] & 0x80 != 0)
            }
        }
        #expect(refused > 1000)
        #expect(forwarded > 100)
        #expect(ContinuousClock.now - start < .seconds(60))
    }
}
