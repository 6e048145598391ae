// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Raft
import Store
import Testing

@Suite struct MembershipPlanTests {
    private static func node(
        _ member: UInt64, pin: NodeRow.Pin = .auto, liveness: NodeRow.Liveness = .ready, zone: String? = nil
    ) -> NodeRow {
        NodeRow(
            id: NodeID("n\(member)"), name: "n\(member)", member: member, address: "192.0.2.\(member)",
            peerAddress: "192.0.2.\(member):4484", subnet: AddressRanges.standard.containers, pin: pin,
            liveness: liveness, labels: zone.map { ["zone": $0] } ?? [:], cpuMillis: 1000, memoryBytes: 1 << 30,
            version: "test")
    }

    /// Takes steps until there are none.
    private func settle(
        _ nodes: [NodeRow], _ start: Membership, silent: Set<MemberID> = [], leader: MemberID = 1
    ) throws -> (end: Membership, steps: [MembershipChange]) {
        var membership = start
        var steps: [MembershipChange] = []
        let answering = Set(nodes.map(\.member)).subtracting(silent)
        while let change = MembershipPlan.next(
            nodes: nodes, membership: membership, answering: answering, leader: leader)
        {
            membership = try membership.applying(change).get()
            steps.append(change)
            guard steps.count < 100 else { break }
        }
        #expect(steps.count < 100, "it comes to an end: \(steps.suffix(4))")
        return (membership, steps)
    }

    @Test(arguments: [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 5)])
    func `a cluster that grows has 1, 3 or 5 voters`(count: Int, voters: Int) throws {
        let nodes = (1...UInt64(count)).map { Self.node($0) }
        let (end, steps) = try settle(nodes, Membership(voters: [1]))
        #expect(end.voters.count == voters && end.members.count == count)
        #expect(steps.allSatisfy { if case .remove = $0 { false } else { true } })
    }

    @Test func `a voter that is down gives its vote to one that is up, and only then loses it`() throws {
        let nodes = [Self.node(1), Self.node(2, liveness: .down), Self.node(3), Self.node(4)]
        let (end, steps) = try settle(nodes, Membership(voters: [1, 2, 3], learners: [4]), silent: [2])
        #expect(steps == [.promote(4), .demote(2)])
        #expect(end.voters == [1, 3, 4])
    }

    @Test func `a voter that is silent for a moment keeps its vote`() throws {
        let nodes = (1...4).map { Self.node($0) }
        #expect(try settle(nodes, Membership(voters: [1, 2, 3], learners: [4]), silent: [2]).steps.isEmpty)
    }

    @Test func `nothing is promoted that does not answer`() throws {
        let nodes = [Self.node(1), Self.node(2, liveness: .down), Self.node(3), Self.node(4)]
        #expect(try settle(nodes, Membership(voters: [1, 2, 3], learners: [4]), silent: [2, 4]).steps.isEmpty)
    }

    @Test func `pins count, and an observer never votes`() throws {
        let nodes = [Self.node(1), Self.node(2, pin: .observer), Self.node(3, pin: .observer), Self.node(4)]
        #expect(try settle(nodes, Membership(voters: [1])).end.voters == [1], "two may vote, so one does")
        let demoted = try settle(nodes + [Self.node(5)], Membership(voters: [1, 2, 4], learners: [3, 5]))
        #expect(demoted.end.voters == [1, 4, 5])
        let pinned = [Self.node(1), Self.node(2), Self.node(3), Self.node(4, pin: .voter)]
        #expect(try settle(pinned, Membership(voters: [1, 2, 3], learners: [4])).end.voters.count == 3)
    }

    @Test func `votes are spread over zones`() throws {
        let nodes = [
            Self.node(1, zone: "a"), Self.node(2, zone: "a"), Self.node(3, zone: "b"), Self.node(4, zone: "c"),
        ]
        #expect(try settle(nodes, Membership(voters: [1])).end.voters == [1, 3, 4])
    }

    @Test func `a removed member is never asked back, and the leader is not demoted`() throws {
        let nodes = [Self.node(1), Self.node(2), Self.node(9)]
        let (end, _) = try settle(nodes, Membership(voters: [1, 2], removed: [9]), leader: 2)
        #expect(!end.contains(9))
        #expect(end.isVoter(2))
    }
}
