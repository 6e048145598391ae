// SPDX-License-Identifier: Apache-2.0
import Model
import Testing

@Suite struct `Join token` {
    private func token(_ addresses: [String] = ["10.0.0.1:4483", "node-2.example:4483"]) throws -> JoinToken {
        try #require(
            JoinToken(
                identity: Array(1...8), secret: Array(100..<120), digest: Array(200..<232), addresses: addresses))
    }

    @Test func `a token survives its way through chat and paper`() throws {
        let token = try token()
        let text = token.text
        #expect(text.hasPrefix("hmj_"))
        let broken = text.dropFirst(4).uppercased().enumerated()
            .map { ($0.offset > 0 && $0.offset % 20 == 0 ? "-\n" : "") + String($0.element) }.joined()
        for variant in [text, text.uppercased(), "hmj_" + broken, text.replacingOccurrences("0", with: "O")] {
            #expect(
                try JoinToken(variant.lowercased().hasPrefix("hmj_") ? "hmj_" + variant.dropFirst(4) : variant) == token
            )
        }
    }

    @Test func `every slip of one letter is found`() throws {
        let text = try token().text
        for place in text.indices.dropFirst(4) {
            for letter in "0q" where text[place] != letter {
                var slip = text
                slip.replaceSubrange(place...place, with: [letter])
                #expect(throws: Problem.self) { try JoinToken(slip) }
            }
            #expect(throws: Problem.self) { try JoinToken(String(text[..<place])) }
        }
    }

    @Test(arguments: [
        ("", "not a join token"), ("hm_abc", "an API token"), ("SWMTKN-1-abc", "not a join token"),
        ("hmj_", "mistyped or cut off"), ("hmj_u", "mistyped or cut off"),
    ])
    func `another thing is told by name`(_ given: String, _ what: String) {
        let problem = #expect(throws: Problem.self) { try JoinToken(given) }
        #expect(problem?.code == .badRequest)
        #expect(problem?.detail.contains(what) == true, "\(String(describing: problem))")
        #expect(problem?.hint?.isEmpty == false)
    }

    @Test func `the secret is in the text alone`() throws {
        let token = try token()
        var dumped = ""
        dump(token, to: &dumped)
        for shown in ["\(token)", String(reflecting: token), dumped] {
            #expect(shown.contains(token.id))
            #expect(!shown.contains("100"))
            #expect(!shown.contains(Base32.text(token.secret)))
        }
    }

    @Test func `lengths outside the bounds make no token`() {
        let identity = [UInt8](repeating: 0, count: 8), digest = [UInt8](repeating: 0, count: 32)
        let secret = [UInt8](repeating: 0, count: 20)
        for addresses in [[], [""], Array(repeating: "a:1", count: 6), [String(repeating: "a", count: 256)]] {
            #expect(JoinToken(identity: identity, secret: secret, digest: digest, addresses: addresses) == nil)
        }
        #expect(JoinToken(identity: [], secret: secret, digest: digest, addresses: ["a:1"]) == nil)
        #expect(JoinToken(identity: identity, secret: [], digest: digest, addresses: ["a:1"]) == nil)
        #expect(JoinToken(identity: identity, secret: secret, digest: [], addresses: ["a:1"]) == nil)
    }

    @Test func `base32 gives back what it was given`() {
        var random = SystemRandomNumberGenerator()
        for count in 0..<40 {
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            #expect(Base32.bytes(Base32.text(bytes)) == bytes)
        }
        #expect(Base32.bytes("0") == nil)
        #expect(Base32.bytes("zz") == nil)
        #expect(Base32.bytes("u0") == nil)
    }
}

extension String {
    fileprivate func replacingOccurrences(_ letter: Character, with other: Character) -> String {
        String(map { $0 == letter ? other : $0 })
    }
}
