// SPDX-License-Identifier: Apache-2.0
import Model
import Raft
import Store
import TestSupport
import Testing

/// What nodes show, and the way from one authority to the next.
@Suite struct CertificateTests {
    typealias F = StateFixture

    static func authority(_ id: String, _ phase: AuthorityRow.Phase = .issuing) -> AuthorityRow {
        AuthorityRow(
            id: id, certificate: "certificate \(id)", sealedKey: "key \(id)",
            createdAt: Timestamp(milliseconds: Int64(id.utf8.first ?? 0)), phase: phase)
    }

    static func shown(_ serial: String, _ authority: String, trusts: [String]) -> NodeCertificate {
        NodeCertificate(
            serial: serial, authority: authority, notBefore: Timestamp(milliseconds: 0),
            notAfter: Timestamp(milliseconds: 90 * 86_400_000), trusted: trusts)
    }

    /// Nodes `node`, that the fixture has, `b` and `c`, and the authority `1`.
    private static func cluster() throws -> (StateFixture, [NodeID]) {
        let fixture = try StateFixture()
        try fixture.apply(.putAuthority(authority("1")))
        for (place, name) in ["b", "c"].enumerated() {
            try fixture.apply(.putNode(F.node(name, subnet: "10.210.\(200 + place).0/24")))
        }
        return (fixture, try fixture.state.read { try $0.nodes() }.map(\.id))
    }

    private static func record(_ node: NodeID, _ authority: String, trusts: [String], serial: String = "s") -> Change {
        .changeCertificates(.record(node: node, shown("\(serial) \(authority)", authority, trusts: trusts)))
    }

    private static func exchange(_ fixture: StateFixture) throws -> AuthorityExchange {
        try fixture.state.read { view in
            AuthorityExchange(
                nodes: try view.nodes().map(\.id), authorities: try view.authorities(),
                certificates: try view.certificates())
        }
    }

    @Test func `an authority takes the place of another in steps, each when every node is ready for it`() throws {
        let (fixture, nodes) = try Self.cluster()
        try fixture.apply(
            .putJoinToken(
                JoinTokenRow(
                    id: "t", hash: "00", role: .auto, usesLeft: nil, createdAt: Timestamp(milliseconds: 0),
                    expiresAt: Timestamp(milliseconds: .max / 4))))
        for node in nodes { try fixture.apply(Self.record(node, "1", trusts: ["1"])) }
        #expect(try Self.exchange(fixture).step == .none)
        #expect(try fixture.apply(.changeAuthority(.add(Self.authority("2")))).outcome == .done(.created))
        func phases() throws -> [String] {
            try fixture.state.read { try $0.authorities() }.map { "\($0.id) \($0.phase)" }
        }
        #expect(try phases() == ["1 issuing", "2 coming"])
        for (count, node) in nodes.enumerated() {
            #expect(try Self.exchange(fixture).waiting == Array(nodes[count...]))
            // Too early, whoever asks for it.
            #expect(try fixture.apply(.changeAuthority(.issue("2"))).outcome == .done(.unchanged))
            try fixture.apply(Self.record(node, "1", trusts: ["1", "2"]))
        }
        #expect(try Self.exchange(fixture).next == .issue("2"))
        #expect(try fixture.apply(.changeAuthority(.drop("1"))).outcome == .done(.unchanged))
        #expect(try fixture.state.read { try $0.joinTokens() }.count == 1)
        #expect(try fixture.apply(.changeAuthority(.issue("2"))).outcome == .done(.changed))
        #expect(try phases() == ["2 issuing", "1 going"])
        #expect(try fixture.state.read { try $0.joinTokens() }.isEmpty, "they name the one that goes")
        for (count, node) in nodes.enumerated() {
            #expect(try Self.exchange(fixture).waiting == Array(nodes[count...]))
            #expect(try fixture.apply(.changeAuthority(.drop("1"))).outcome == .done(.unchanged))
            try fixture.apply(Self.record(node, "2", trusts: ["1", "2"]))
        }
        #expect(try Self.exchange(fixture).next == .drop("1"))
        #expect(try fixture.apply(.changeAuthority(.drop("1"))).outcome == .done(.changed))
        #expect(try phases() == ["2 issuing", "1 gone"])
        #expect(try fixture.state.read { try $0.authorities() }.last?.sealedKey == "", "its key is erased")
        #expect(try Self.exchange(fixture).step == .none)
    }

    @Test func `a node that comes meanwhile is waited for, one that is removed is not`() throws {
        let (fixture, nodes) = try Self.cluster()
        for node in nodes { try fixture.apply(Self.record(node, "1", trusts: ["1", "2"])) }
        try fixture.apply(.putNode(F.node("d", subnet: "10.210.99.0/24")))
        try fixture.apply(.changeAuthority(.add(Self.authority("2"))))
        #expect(try Self.exchange(fixture).waiting == ["d"])
        try fixture.apply(.removeNode(NodeChange(node: "d")))
        #expect(try Self.exchange(fixture).next == .issue("2"))
        #expect(try fixture.refusal(Self.record("d", "1", trusts: ["1"]))?.code == .notFound)
    }

    @Test func `only one exchange at a time, and none without an authority`() throws {
        let (fixture, _) = try Self.cluster()
        try fixture.apply(.changeAuthority(.add(Self.authority("2"))))
        let refusal = try fixture.refusal(.changeAuthority(.add(Self.authority("3"))))
        #expect(refusal?.code == .conflict && refusal?.detail.contains("under way") == true)
        #expect(try fixture.state.read { try $0.authorities() }.count == 2)
        let bare = try StateFixture()
        #expect(try bare.refusal(.changeAuthority(.add(Self.authority("2"))))?.detail.contains("no authority") == true)
    }

    /// Any two nodes must believe what the other one shows, in whatever order they do their part.
    @Test(arguments: UInt64(1)...20)
    func `at any moment all nodes believe each other`(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let (fixture, nodes) = try Self.cluster()
        var real = Dictionary(uniqueKeysWithValues: nodes.map { ($0, Self.shown("0", "1", trusts: ["1"])) })
        var serial = 0
        try fixture.apply(.changeAuthority(.add(Self.authority("2"))))
        // What each node has applied may be old: it acts on any of the states there were since it last looked.
        var history: [[AuthorityRow]] = [try fixture.state.read { try $0.authorities() }]
        var seen = Dictionary(uniqueKeysWithValues: nodes.map { ($0, 0) })
        for _ in 0..<600 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0:  // The leader proposes, maybe the step of a state that is past.
                let changes: [AuthorityChange] = [.issue("2"), .drop("1")]
                let change = try Self.exchange(fixture).next ?? changes[Int.random(in: 0..<2, using: &random)]
                try fixture.apply(.changeAuthority(change))
                history.append(try fixture.state.read { try $0.authorities() })
            case 1:  // A node says what it shows.
                let node = nodes[Int.random(in: 0..<nodes.count, using: &random)]
                if let shown = real[node] { try fixture.apply(.changeCertificates(.record(node: node, shown))) }
            default:  // A node follows, as far as it has come.
                let node = nodes[Int.random(in: 0..<nodes.count, using: &random)]
                let place = Int.random(in: (seen[node] ?? 0)..<history.count, using: &random)
                seen[node] = place
                guard let old = real[node] else { continue }
                var (trusted, issuer) = (Set(old.trusted), old.authority)
                for row in history[place] {
                    if row.phase != .gone { trusted.insert(row.id) } else if row.id != issuer { trusted.remove(row.id) }
                }
                if history[place].contains(where: { $0.id == issuer && $0.phase == .going }) {
                    // Signed by the one that issues at the leader.
                    issuer = try fixture.state.read { try $0.authorities() }[0].id
                    serial += 1
                }
                real[node] = Self.shown("\(serial)", issuer, trusts: trusted.sorted())
            }
            for one in real.values {
                for other in real.values {
                    #expect(one.trusted.contains(other.authority), "seed \(seed)")
                }
            }
        }
        #expect(real.values.allSatisfy { $0.authority == "2" && $0.trusted == ["2"] }, "seed \(seed): it ends")
    }

    @Test func `asked for, a certificate is renewed once`() throws {
        let (fixture, nodes) = try Self.cluster()
        try fixture.apply(Self.record(nodes[0], "1", trusts: ["1"], serial: "old"))
        try fixture.apply(.changeCertificates(.renew(nodes)))
        func row() throws -> CertificateRow? { try fixture.state.read { try $0.certificate(of: nodes[0]) } }
        #expect(try row()?.isToBeRenewed == true)
        // Another authority is believed, the certificate is the old one.
        try fixture.apply(Self.record(nodes[0], "1", trusts: ["1", "2"], serial: "old"))
        #expect(try row()?.isToBeRenewed == true)
        try fixture.apply(Self.record(nodes[0], "1", trusts: ["1", "2"], serial: "new"))
        #expect(try row()?.isToBeRenewed == false)
        #expect(
            try fixture.apply(Self.record(nodes[0], "1", trusts: ["1", "2"], serial: "new")).outcome
                == .done(.unchanged))
        #expect(try fixture.state.read { try $0.certificates() }.count == 1, "nobody else has shown one")
    }
}
