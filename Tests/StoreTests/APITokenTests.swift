// SPDX-License-Identifier: Apache-2.0
import Model
import Store
import Testing

@Suite struct APITokenTests {
    private static func row(_ id: String, expires: Int64 = .max / 4) -> APITokenRow {
        APITokenRow(
            id: id, name: "ci", hash: "00", role: .operator, namespace: "shop",
            createdAt: Timestamp(milliseconds: 0), expiresAt: Timestamp(milliseconds: expires))
    }

    @Test func `a token is kept as it was made, and gone when it is removed`() throws {
        let fixture = try StateFixture()
        try fixture.apply(.putAPIToken(Self.row("a")))
        #expect(try fixture.state.read { try $0.apiToken("a") } == Self.row("a"))
        #expect(try fixture.refusal(.putAPIToken(Self.row("a")))?.code == .conflict, "none is replaced")
        #expect(try fixture.apply(.removeAPIToken(APITokenChange(id: "a"))).outcome == .done(.changed))
        #expect(try fixture.apply(.removeAPIToken(APITokenChange(id: "a"))).outcome == .done(.unchanged))
        #expect(try fixture.state.read { try $0.apiTokens() }.isEmpty)
    }

    @Test func `there are only so many, and those that ended make room`() throws {
        let fixture = try StateFixture()
        // Ended long before the fixture's time.
        try fixture.apply(.putAPIToken(Self.row("old", expires: 1)))
        for number in 0..<1_000 { try fixture.apply(.putAPIToken(Self.row("t\(number)"))) }
        #expect(try fixture.state.read { try $0.apiToken("old") } == nil)
        let refusal = try fixture.refusal(.putAPIToken(Self.row("more")))
        #expect(refusal?.code == .conflict && refusal?.hint?.contains("revoke") == true)
        try fixture.apply(.removeAPIToken(APITokenChange(id: "t7")))
        try fixture.apply(.putAPIToken(Self.row("more")))
        #expect(try fixture.state.read { try $0.apiTokens() }.count == 1_000)
    }
}
