// SPDX-License-Identifier: Apache-2.0
import Model
import Raft
import Store
import Testing

@Suite struct NodeCommandTests {
    typealias F = StateFixture

    private static func token(_ id: String, uses: Int? = nil, expires: Int64 = .max / 4) -> Change {
        .putJoinToken(
            JoinTokenRow(
                id: id, hash: "00", role: .auto, usesLeft: uses, createdAt: Timestamp(milliseconds: 0),
                expiresAt: Timestamp(milliseconds: expires)))
    }

    private static func admission(_ name: String, token: String = "t") -> Change {
        var node = F.node(name, subnet: "10.210.0.0/24")
        node.member = 0
        return .admitNode(AdmitNode(token: token, node: node))
    }

    @Test func `who is let in gets an id and a subnet nobody has or had`() throws {
        let fixture = try StateFixture()
        try fixture.apply(Self.token("t"))
        for name in ["b", "c"] { #expect(try fixture.apply(Self.admission(name)).outcome == .done(.changed)) }
        let before = try fixture.state.read { try $0.nodes() }
        #expect(Set(before.map(\.member)).count == 3 && Set(before.map(\.subnet)).count == 3)
        let gone = try #require(before.first { $0.name == "c" })
        try fixture.apply(.removeNode(NodeChange(node: gone.id)))
        try fixture.apply(Self.admission("d"))
        let new = try #require(try fixture.state.read { try $0.nodes() }.first { $0.name == "d" })
        #expect(new.member > gone.member && new.subnet != gone.subnet)
        // The same machine under its old id: told what happened, not let in.
        let refusal = try fixture.refusal(Self.admission("c"))
        #expect(refusal?.code == .conflict && refusal?.detail.contains("was removed") == true)
    }

    @Test func `a token is no key to a node that is there already`() throws {
        let fixture = try StateFixture()
        try fixture.apply(Self.token("t", uses: 2))
        try fixture.apply(Self.admission("b"))
        let first = try fixture.state.read { try $0.node("b") }
        let refusal = try fixture.refusal(Self.admission("b"))
        #expect(refusal?.code == .conflict && refusal?.hint?.contains("node remove b") == true)
        #expect(try fixture.state.read { try $0.node("b") } == first)
        #expect(try fixture.state.read { try $0.joinToken("t")?.usesLeft } == 1)
    }

    @Test func `a member id that left the log for ever is exchanged, any other stays`() throws {
        let fixture = try StateFixture()
        try fixture.apply(Self.token("t"))
        for name in ["b", "c"] { try fixture.apply(Self.admission(name)) }
        func member(_ id: NodeID) throws -> UInt64 { try fixture.state.read { try $0.node(id)?.member ?? 0 } }
        let (first, second) = (try member("b"), try member("c"))
        #expect(try fixture.apply(.giveMember(NodeChange(node: "b"))).outcome == .done(.unchanged))
        try fixture.adopt(Membership(voters: [1], removed: [first]))
        #expect(try fixture.apply(.giveMember(NodeChange(node: "b"))).outcome == .done(.changed))
        #expect(try fixture.apply(.giveMember(NodeChange(node: "b"))).outcome == .done(.unchanged), "once")
        #expect(try member("b") > second && member("c") == second)
        #expect(try fixture.state.read { try $0.node("b")?.role } == .observer)
        #expect(try fixture.refusal(.giveMember(NodeChange(node: "x")))?.code == .notFound)
    }

    @Test func `whose place a cluster took is in the log, and the same whether it was known before or not`() throws {
        let change = Change.succeedCluster(SucceedCluster(clusterID: "new", previousClusterID: "old"))
        let (told, knows) = (try StateFixture(), try StateFixture())
        try knows.state.beginCluster(id: "new")
        #expect(try told.apply(change).outcome == .done(.changed))
        #expect(try knows.apply(change).outcome == .done(.changed))
        for fixture in [told, knows] {
            let meta = try fixture.state.read { try $0.meta() }
            #expect(meta.clusterID == "new" && meta.previousClusterID == "old")
        }
    }

    @Test func `a token that is used up, expired or unknown lets nobody in`() throws {
        let fixture = try StateFixture()
        try fixture.apply(Self.token("once", uses: 1))
        try fixture.apply(Self.admission("b", token: "once"))
        let cases = [("once", "used up"), ("old", "expired"), ("never", "not known")]
        try fixture.apply(Self.token("old", expires: 1))
        for (token, says) in cases {
            let refusal = try fixture.refusal(Self.admission("c", token: token))
            #expect(refusal?.code == .unauthenticated && refusal?.detail.contains(says) == true, "\(token)")
        }
        #expect(try fixture.state.read { try $0.nodes() }.count == 2)
    }

    @Test func `an exchanged token keeps role, uses and length of life, and the old one is gone`() throws {
        let fixture = try StateFixture()
        let start = try fixture.state.read { try $0.meta().logTime }
        try fixture.apply(
            .putJoinToken(
                JoinTokenRow(
                    id: "t", hash: "00", role: .voter, usesLeft: 3, createdAt: start, expiresAt: start + 3_600_000)))
        try fixture.apply(Self.admission("b"))
        #expect(
            try fixture.apply(.rotateJoinToken(RotateJoinToken(id: "t", newID: "u", hash: "11"))).outcome
                == .done(.created))
        let (now, tokens) = try fixture.state.read { (try $0.meta().logTime, try $0.joinTokens()) }
        let new = try #require(tokens.first)
        #expect(tokens.count == 1 && new.id == "u" && new.hash == "11" && new.role == .voter && new.usesLeft == 2)
        #expect(new.createdAt == now && new.expiresAt == now + 3_600_000)
        // What was checked against the old secret before and is applied only now.
        #expect(try fixture.refusal(Self.admission("c"))?.code == .unauthenticated)
        #expect(try fixture.apply(Self.admission("c", token: "u")).outcome == .done(.changed))
    }

    @Test func `a token that is unknown, expired or used up cannot be exchanged`() throws {
        let fixture = try StateFixture()
        try fixture.apply(Self.token("once", uses: 1))
        try fixture.apply(Self.admission("b", token: "once"))
        try fixture.apply(Self.token("old", expires: 1))
        let before = try fixture.state.read { try $0.joinTokens() }
        for (id, code, says) in [
            ("never", Problem.Code.notFound, "no join token"), ("once", .conflict, "used up"),
            ("old", .conflict, "expired"),
        ] {
            let refusal = try fixture.refusal(.rotateJoinToken(RotateJoinToken(id: id, newID: "u", hash: "11")))
            #expect(refusal?.code == code && refusal?.detail.contains(says) == true, "\(id)")
        }
        #expect(try fixture.state.read { try $0.joinTokens() } == before)
    }

    @Test func `what a node says of itself leaves alone what is said of it`() throws {
        let fixture = try StateFixture()
        let own = try #require(try fixture.state.read { try $0.nodes() }.first)
        try fixture.apply(
            .setNode(
                SetNode(node: own.id, availability: .cordoned, pin: .voter, labels: ["zone": "a"], addTaints: ["gpu"])))
        try fixture.apply(.setLiveness(SetLiveness(items: [SetLiveness.Item(node: own.id, liveness: .suspect)])))
        var facts = own.facts
        facts.version = "next"
        try fixture.apply(.putNode(facts))
        let now = try #require(try fixture.state.read { try $0.node(own.id) })
        #expect(now.version == "next" && now.availability == .cordoned && now.pin == .voter)
        #expect(now.labels == ["zone": "a"] && now.taints == ["gpu"] && now.liveness == .suspect)
        try fixture.apply(.setNode(SetNode(node: own.id, labels: ["zone": nil], removeTaints: ["gpu"])))
        let bare = try #require(try fixture.state.read { try $0.node(own.id) })
        #expect(bare.labels.isEmpty && bare.taints.isEmpty)
    }

    @Test func `a name belongs to one node, and a member of the log is not removed`() throws {
        let fixture = try StateFixture()
        try fixture.apply(Self.token("t"))
        var same = F.node("b", subnet: "10.210.0.0/24")
        same.name = try #require(try fixture.state.read { try $0.nodes() }.first).name
        #expect(try fixture.refusal(.admitNode(AdmitNode(token: "t", node: same)))?.code == .conflict)
    }
}
