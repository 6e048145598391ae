// SPDX-License-Identifier: Apache-2.0
import NIOCore
import Testing

@testable import Discovery

@Suite struct AnswerCacheTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000)

    private func key(_ number: Int) -> AnswerCache.Key {
        AnswerCache.Key(question: Array("\(number)".utf8), wantsDNSSEC: nil, checkingDisabled: false)
    }

    private func negative(_ rcode: UInt16, ttl: UInt32, minimum: UInt32) throws -> DNSMessage {
        var message = try question("nope.example").reply([], flags: rcode)
        let soa = DNSMessage.SOA(
            primary: .root, mailbox: .root, serial: 1, refresh: 1, retry: 1, expire: 1, minimum: minimum)
        message.authorities = [DNSMessage.Record(name: .root, ttl: ttl, data: .soa(soa))]
        return message
    }

    private func store(_ cache: inout AnswerCache, _ number: Int, _ message: DNSMessage) throws {
        var offsets: [Int] = []
        let bytes = message.encoded
        let decoded = try DNSMessage.decode(bytes, ttlOffsets: &offsets)
        cache.store(key(number), bytes, decoded, ttlOffsets: offsets, now: start)
    }

    @Test func `TTLs count down and end the entry`() throws {
        var cache = AnswerCache()
        try store(&cache, 1, try question("a.example", payload: 1232).reply(ttl: 10, [1]))
        let later = cache.find(key(1), now: start + .seconds(4))
        let message = try DNSMessage.decode(try #require(later))
        #expect(message.answers[0].ttl == 6)
        #expect(message.additionals[0].ttl == 0)
        let expired = cache.find(key(1), now: start + .seconds(10))
        #expect(expired == nil)
        #expect(cache.count == 0)
    }

    @Test func `lifetimes follow TTL and SOA and have caps`() throws {
        #expect(AnswerCache.lifetime(try question("a.b").reply(ttl: 90000, [1])) == 300)
        #expect(AnswerCache.lifetime(try question("a.b").reply(ttl: 0, [1])) == 0)
        #expect(AnswerCache.lifetime(try question("a.b").reply(ttl: 1 << 31, [1])) == 0)
        #expect(AnswerCache.lifetime(try question("a.b").reply([1], flags: DNSFlags.truncated)) == nil)
        #expect(AnswerCache.lifetime(try question("a.b").reply([])) == nil)
        #expect(AnswerCache.lifetime(try negative(DNSRcode.noSuchName, ttl: 900, minimum: 900)) == 60)
        #expect(AnswerCache.lifetime(try negative(DNSRcode.noSuchName, ttl: 900, minimum: 7)) == 7)
        #expect(AnswerCache.lifetime(try negative(DNSRcode.noError, ttl: 8, minimum: 900)) == 8)
        #expect(AnswerCache.lifetime(try negative(DNSRcode.serverFailure, ttl: 8, minimum: 8)) == nil)
    }

    @Test func `it never grows above its bound and keeps the newest`() throws {
        var cache = AnswerCache()
        let message = try question("a.example").reply(ttl: 100, [1])
        for number in 0..<(AnswerCache.entriesMax + 500) {
            try store(&cache, number, message)
            #expect(cache.count <= AnswerCache.entriesMax)
        }
        let newest = cache.find(key(AnswerCache.entriesMax + 499), now: start)
        #expect(newest != nil)
    }

    @Test func `a long answer is not kept`() throws {
        var cache = AnswerCache()
        try store(&cache, 1, try question("a.example").reply(Array(1...200)))
        #expect(cache.count == 0)
    }
}
