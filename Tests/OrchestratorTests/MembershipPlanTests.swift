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
        #expect(end.voters.count == voters && end.members.count == min(count, voters + 2))
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

    @Test func `a hundred nodes have seven members, and one that is down is stood in for by an observer`() throws {
        var nodes = (1...100).map { Self.node($0) }
        let (end, _) = try settle(nodes, Membership(voters: [1]))
        #expect(end.voters.count == 5 && end.learners.count == 2)
        nodes[1].liveness = .down
        let (after, steps) = try settle(nodes, end, silent: [2])
        #expect(!after.isVoter(2) && after.voters.count == 5)
        #expect(after.members.count { $0 != 2 } == 7, "five that vote and two that stand by are up")
        #expect(steps.count == 3 && steps.first == .addLearner(8))
        // It comes back and is one too many, which costs nothing: its id is not thrown away.
        nodes[1].liveness = .ready
        #expect(try settle(nodes, after).steps.isEmpty)
    }

    @Test func `however many come and go, members are few`() throws {
        var nodes = (1...40).map { Self.node($0) }
        var membership = try settle(nodes, Membership(voters: [1])).end
        for _ in 0..<20 {
            let lost = try #require(membership.voters.last { $0 != 1 })
            nodes[Int(lost) - 1].liveness = .down
            membership = try settle(nodes, membership, silent: [lost]).end
            #expect(membership.voters.count <= 5 && membership.members.count <= MembershipPlan.membersMax)
            nodes[Int(lost) - 1].liveness = .ready
            membership = try settle(nodes, membership).end
            #expect(membership.voters.count == 5)
        }
    }

    @Test func `an observer that is silent, pinned or removed is not made a member, one pinned as voter is`() throws {
        let nodes = [Self.node(1), Self.node(2), Self.node(3), Self.node(4, pin: .observer)]
        let (end, _) = try settle(nodes, Membership(voters: [1]), silent: [3])
        #expect(end == Membership(voters: [1], learners: [2]))
        var many = (1...9).map { Self.node($0) }
        many[8].pin = .voter
        #expect(try settle(many, Membership(voters: [1, 2, 3, 4, 5], learners: [6, 7])).end.members.contains(9))
    }

    @Test func `votes are spread over zones`() throws {
        let nodes = [
            Self.node(1, zone: "a"), Self.node(2, zone: "a"), Self.node(3, zone: "b"), Self.node(4, zone: "c"),
        ]
        #expect(try settle(nodes, Membership(voters: [1])).end.voters == [1, 3, 4])
    }

    @Test func `zones that are named later move votes, one at a time, and then nothing`() throws {
        func zones(_ names: [String?]) -> [NodeRow] {
            names.enumerated().map { Self.node(UInt64($0.offset + 1), zone: $0.element) }
        }
        let three = Membership(voters: [1, 2, 3], learners: [4])
        #expect(try settle(zones(["a", "a", "a", "b"]), three).steps == [.promote(4), .demote(3)])
        #expect(try settle(zones(["a", "a", "a", "b"]), three, leader: 3).end.voters == [1, 3, 4])
        for names in [["a", "a", "b", "b"], ["a", "a", "a", nil], ["a", nil, nil, "b"], ["a", "b", "c", "d"]] {
            #expect(try settle(zones(names), three).steps.isEmpty, "\(names)")
        }
        // Not while a voter is down, nor to one that is.
        #expect(try settle(zones(["a", "a", "a", "b"]), three, silent: [4]).steps.isEmpty)
        #expect(try settle(zones(["a", "a", "a", "b"]), three, silent: [2]).steps.isEmpty)
        // Observers of other zones are made members, as many as that takes.
        let many = zones(["a", "a", "a", "a", "a", "a", "a", "b", "c", "b", "c"])
        let (end, _) = try settle(many, Membership(voters: [1, 2, 3, 4, 5], learners: [6, 7]))
        #expect(
            Dictionary(grouping: end.voters) { many[Int($0) - 1].labels["zone"] ?? "" }.mapValues(\.count).values
                .sorted() == [1, 2, 2])
        #expect(end.members.count <= MembershipPlan.membersMax)
    }

    @Test func `a removed member is never asked back, and the leader is not demoted`() throws {
        let nodes = [Self.node(1), Self.node(2), Self.node(9)]
        let (end, _) = try settle(nodes, Membership(voters: [1, 2], removed: [9]), leader: 2)
        #expect(!end.contains(9))
        #expect(end.isVoter(2))
    }
}
