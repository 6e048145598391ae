// SPDX-License-Identifier: Apache-2.0
import NIOCore
import Testing

@testable import Discovery

@Suite struct AnswerShapeTests {
    private let asker = Asker()

    @Test(arguments: [nil, 100, 512, 700, 1232] as [UInt16?])
    func `a cut answer has as many records as fit and says so`(_ payload: UInt16?) throws {
        let name = "tasks.huge.default.hive.internal"
        let bytes = try #require(asker.bytes(try question(name, payload: payload)))
        let limit = max(Int(payload ?? 512), 512)
        #expect(bytes.count <= limit)
        #expect(bytes.count > limit - 16)
        let answer = try DNSMessage.decode(bytes)
        #expect(answer.isTruncated)
    }

    @Test func `an answer that fits the client's size is whole`() throws {
        let answer = try #require(try asker.ask("many.default.hive.internal", payload: 1232))
        #expect(answer.addresses.count == 60)
        #expect(!answer.isTruncated)
    }

    @Test func `a client's size is believed only so far`() throws {
        let bytes = try #require(
            asker.bytes(try question("huge.default.hive.internal", payload: 65535)))
        #expect(bytes.count <= Responder.udpBytesMax)
    }

    @Test func `TCP gets everything`() throws {
        let answer = try #require(try asker.ask("huge.default.hive.internal", overTCP: true))
        #expect(Set(answer.addresses).count == 400)
        #expect(!answer.isTruncated)
    }

    @Test func `OPT is answered with OPT and only then`() throws {
        for name in ["web.default.hive.internal", "nope.hive.internal"] {
            let extended = try asker.ask(name, payload: 4096)
            #expect(extended?.isEDNS == true)
            let plain = try asker.ask(name)
            #expect(plain?.isEDNS == false)
        }
    }

    @Test func `an unknown EDNS version is told so`() throws {
        var message = try question("web.default.hive.internal", payload: 1232)
        message.additionals[0].ttl = 1 << 16
        let answer = try DNSMessage.decode(try #require(asker.bytes(message)))
        #expect(answer.answers.isEmpty)
        #expect(answer.additionals.first.map { $0.ttl >> 24 } == 1)
    }

    @Test func `other opcodes, classes and broken packets are refused`() throws {
        var notify = try question("web.default.hive.internal")
        notify.flags |= 4 << 11
        let refused = try DNSMessage.decode(try #require(asker.bytes(notify)))
        #expect(refused.rcode == DNSRcode.notImplemented)

        var chaos = try question("version.bind", 16)
        chaos.questions[0].dnsClass = 3
        let foreignClass = try DNSMessage.decode(try #require(asker.bytes(chaos)))
        #expect(foreignClass.rcode == DNSRcode.refused)

        let cut = Array(try question("web.default.hive.internal").encoded.dropLast())
        guard case .answer(let answer) = asker.outcome(cut) else {
            Issue.record("no answer")
            return
        }
        let message = try DNSMessage.decode(Array(answer.readableBytesView))
        #expect(message.rcode == DNSRcode.formatError)
        #expect(message.id == 4711)
    }

    @Test func `a response is never answered`() throws {
        var message = try question("web.default.hive.internal")
        message.flags |= DNSFlags.response
        guard case .drop = asker.outcome(message.encoded) else {
            Issue.record("answered")
            return
        }
    }
}
