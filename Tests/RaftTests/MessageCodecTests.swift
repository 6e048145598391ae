// SPDX-License-Identifier: Apache-2.0

internal import TestSupport
internal import Testing

@testable internal import Raft

extension SeededRandom {
    /// Small numbers, huge ones and those in between.
    fileprivate mutating func number() -> UInt64 { next() >> UInt64.random(in: 0..<64, using: &self) }
    fileprivate mutating func position() -> LogPosition { LogPosition(index: number(), term: number()) }
    fileprivate mutating func bytes(_ range: Range<Int>) -> [UInt8] {
        (0..<Int.random(in: range, using: &self)).map { _ in UInt8.random(in: 0...255, using: &self) }
    }

    fileprivate mutating func body(_ kind: Int) -> Message.Body {
        switch kind % 14 {
        case 0: .preVote(last: position())
        case 1: .preVoteReply(granted: oneIn(2))
        case 2: .vote(last: position(), isTransfer: oneIn(2))
        case 3: .voteReply(granted: oneIn(2))
        case 4:
            .append(
                Append(
                    previous: position(),
                    entries: (0..<Int.random(in: 0..<5, using: &self)).map { _ in
                        let place = position()
                        let kind = Entry.Kind(rawValue: UInt8.random(in: 1...3, using: &self)) ?? .noop
                        return Entry(index: place.index, term: place.term, kind: kind, payload: bytes(0..<40))
                    }, commit: number()))
        case 5: .appendReply(.accepted(match: number()))
        case 6: .appendReply(.rejected(previous: number(), hint: position()))
        case 7: .heartbeat(Heartbeat(commit: number(), round: number()))
        case 8: .heartbeatReply(round: number())
        case 9: .commit(number())
        case 10: .timeoutNow
        case 11: .readIndex(id: number())
        case 12: .readIndexReply(id: number(), index: number())
        default: .readIndexReply(id: number(), index: nil)
        }
    }

    fileprivate mutating func message(_ kind: Int) -> Message {
        Message(from: number() | 1, to: number() | 1, term: number(), body: body(kind))
    }
}

@Suite struct MessageCodecTests {
    @Test func `every message comes back as it was, at the size foretold`() throws {
        var random = SeededRandom(seed: 1)
        for kind in 0..<14 {
            for _ in 0..<200 {
                let message = random.message(kind)
                let bytes = MessageCodec.encoded(message)
                #expect(bytes.count == MessageCodec.encodedBytes(of: message))
                #expect(try MessageCodec.decode(bytes[...]) == message)
                // As a part of something longer, too.
                #expect(try MessageCodec.decode(([7] + bytes + [7])[1..<bytes.count + 1]) == message)
            }
        }
    }

    @Test func `bytes of a message stay what they are`() throws {
        let message = Message(
            from: 1, to: 2, term: 3,
            body: .append(
                Append(
                    previous: LogPosition(index: 4, term: 3),
                    entries: [Entry(index: 5, term: 3, kind: .command, payload: [0xAA])], commit: 4)))
        let expected: [UInt8] =
            [1, 5, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
            + [4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
            + [5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0xAA]
        #expect(MessageCodec.encoded(message) == expected)
    }

    @Test func `a message cut anywhere is refused`() {
        var random = SeededRandom(seed: 2)
        for kind in 0..<14 {
            let bytes = MessageCodec.encoded(random.message(kind))
            for length in 0..<bytes.count {
                #expect(throws: MessageError.self) { try MessageCodec.decode(bytes[..<length]) }
            }
            #expect(throws: MessageError.self) { try MessageCodec.decode((bytes + [0])[...]) }
        }
    }

    @Test func `counts beyond the bytes are refused before anything is reserved`() {
        var bytes = MessageCodec.encoded(
            Message(from: 1, to: 2, term: 3, body: .append(Append(previous: .origin, entries: [], commit: 0))))
        bytes.replaceSubrange(bytes.count - 4..<bytes.count, with: [0xFF, 0xFF, 0xFF, 0xFF])
        #expect(throws: MessageError.truncated) { try MessageCodec.decode(bytes[...]) }
    }

    @Test func `messages of another format or kind, or from nobody, are named`() {
        var bytes = MessageCodec.encoded(Message(from: 1, to: 2, term: 3, body: .timeoutNow))
        bytes[0] = 9
        #expect(throws: MessageError.unknownFormat(9)) { try MessageCodec.decode(bytes[...]) }
        bytes[0] = 1
        bytes[1] = 200
        #expect(throws: MessageError.unknownKind(200)) { try MessageCodec.decode(bytes[...]) }
        let nobody = MessageCodec.encoded(Message(from: 0, to: 2, term: 3, body: .timeoutNow))
        #expect(throws: MessageError.malformed("member id 0")) { try MessageCodec.decode(nobody[...]) }
    }

    /// Whatever decodes must encode to the very same bytes: then nothing was overlooked. `FUZZ_SECONDS` makes it go on.
    @Test func `any bytes give a message or an error`() throws {
        var random = TestRandom.fromEnvironment()
        let seed = random.seed
        var generator = SeededRandom(seed: random.next())
        let clock = ContinuousClock()
        let end = clock.now + .seconds(Host.environment("FUZZ_SECONDS").flatMap { Int($0) } ?? 0)
        var rounds = 0
        var decoded = 0
        repeat {
            for _ in 0..<5_000 {
                var bytes: [UInt8]
                if generator.oneIn(4) {
                    bytes = generator.bytes(0..<120)
                    if bytes.count > 1 { (bytes[0], bytes[1]) = (1, UInt8.random(in: 0...16, using: &generator)) }
                } else {
                    bytes = MessageCodec.encoded(generator.message(Int.random(in: 0..<14, using: &generator)))
                    generator.mutate(&bytes)
                }
                if let message = try? MessageCodec.decode(bytes[...]) {
                    decoded += 1
                    try #require(MessageCodec.encoded(message) == bytes, "SEED=\(seed)")
                }
            }
            rounds += 1
        } while rounds < 20 || clock.now < end
        // The mutations are mild enough that some still are messages: the far side of the decoder is reached.
        #expect(decoded > rounds * 100, "SEED=\(seed)")
    }
}

extension SeededRandom {
    fileprivate mutating func mutate(_ bytes: inout [UInt8]) {
        for _ in 0..<Int.random(in: 1...3, using: &self) where !bytes.isEmpty {
            let place = Int.random(in: bytes.indices, using: &self)
            switch Int.random(in: 0..<6, using: &self) {
            case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &self)
            case 1: bytes[place] = [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &self) ?? 0
            case 2: bytes.removeLast(bytes.count - place)
            case 3: bytes.insert(contentsOf: self.bytes(1..<9), at: place)
            case 4: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 1...8, using: &self)))
            default:
                // A number as wide as a length or an index, at its edges.
                let value = [UInt64.max, .max >> 1, 1 << 32, 0xFFFF_FFFF, 0].randomElement(using: &self) ?? 0
                for (offset, byte) in withUnsafeBytes(of: value.littleEndian, Array.init).enumerated()
                where place + offset < bytes.count {
                    bytes[place + offset] = byte
                }
            }
        }
    }
}
