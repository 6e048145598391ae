// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Model
import Testing

struct ConfigJSONTests {
    private struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }

    private static let alphabet: [Character] = [
        "a", "Z", "0", " ", "\"", "\\", "/", "\n", "\r", "\t", "\u{8}", "\u{c}", "\u{0}", "\u{1f}", "\u{7f}", "é", "€",
        "🐝",
        "{", "}", ":",
    ]

    @Test(arguments: UInt64(1)...200)
    func `a config is written as the general coder writes it`(seed: UInt64) throws {
        var random = Generator(state: seed)
        func text() -> String {
            String(
                (0..<Int.random(in: 0...20, using: &random)).compactMap { _ in
                    Self.alphabet.randomElement(using: &random)
                })
        }
        let view = ConfigView(name: text(), namespace: text(), data: text(), version: random.next())
        #expect(view.json == Array(try JSON.encode(view)), "seed \(seed)")
    }

    @Test(arguments: UInt64(1)...200)
    func `what the plain reader takes, the general decoder reads alike`(seed: UInt64) throws {
        var random = Generator(state: seed)
        let data = String(
            (0..<Int.random(in: 0...20, using: &random)).compactMap { _ in Self.alphabet.randomElement(using: &random) }
        )
        var bytes = Array(try JSON.encode(PutConfigRequest(data: data), pretty: seed % 2 == 0))
        // Half of them damaged.
        if seed % 4 > 1, let place = bytes.indices.randomElement(using: &random) {
            bytes[place] = UInt8.random(in: 0...255, using: &random)
        }
        let plain = bytes.withUnsafeBytes { PutConfigRequest(plain: $0) }
        if let plain {
            #expect(try JSON.decode(PutConfigRequest.self, from: Data(bytes)) == plain, "seed \(seed)")
        } else if seed % 4 < 2 {
            #expect(bytes.contains(UInt8(ascii: "u")), "only \\u is left to the general decoder, seed \(seed)")
        }
    }

    @Test(arguments: [
        "", "{}", "{\"data\":1}", "{\"data\":\"a\",\"more\":1}", "{\"data\":\"a\"} x", "{\"data\":\"a", "[\"data\"]",
        "{\"data\":\"a\nb\"}", "{\"data\":\"\\",
    ])
    func `other forms are left to the general decoder`(text: String) {
        #expect(Array(text.utf8).withUnsafeBytes { PutConfigRequest(plain: $0) } == nil)
    }
}
