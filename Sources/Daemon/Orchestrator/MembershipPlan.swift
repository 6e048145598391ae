// SPDX-License-Identifier: Apache-2.0
internal import Model
public import Raft
public import Store

/// Which nodes are members of the log, and which of them vote. Pure: what is known goes in, the next single step comes out.
///
/// 1, 3 or 5 nodes decide, two more stand by; every other node observes. A node is added as a learner first. A voter that is
/// down gives its vote to a node that is up, so that the next loss can be borne, too. A member never becomes an observer
/// again: an id that left the membership is refused for ever.
public enum MembershipPlan {
    /// With so many nodes that may vote.
    public static func voters(of nodes: Int) -> Int { nodes < 3 ? 1 : nodes < 5 ? 3 : 5 }

    /// Learners that may be given a vote at once.
    public static let standbys = 2
    /// Members that are down keep their place until they are removed: beyond so many no others are taken in their place.
    public static let membersMax = 11

    /// - Parameters:
    ///   - nodes: all there are, in any order.
    ///   - answering: members the leader hears from, itself included, and observers that report to it.
    ///   - leader: never demoted while another can be.
    /// - Returns: nil when all is as it should be, or nothing can be done now.
    public static func next(
        nodes: [NodeRow], membership: Membership, answering: Set<MemberID>, leader: MemberID
    ) -> MembershipChange? {
        let known = Dictionary(nodes.map { ($0.member, $0) }, uniquingKeysWith: { first, _ in first })
        func isUp(_ member: MemberID) -> Bool {
            answering.contains(member) && known[member].map { $0.liveness != .down } ?? false
        }
        let eligible = nodes.filter { $0.pin != .observer && membership.contains($0.member) }
        let observers = nodes.filter {
            $0.pin != .observer && !membership.contains($0.member) && !membership.removed.contains($0.member)
                && !$0.peerAddress.isEmpty && isUp($0.member)
        }
        let pinned = (eligible + observers).count { $0.pin == .voter }
        let target = max(voters(of: eligible.count + observers.count), min(pinned, 5))
        // A node becomes a member: it learns first.
        let serving = eligible.filter { $0.liveness != .down }
        if serving.count < target + standbys || serving.count(where: { $0.pin == .voter }) < min(pinned, 5),
            membership.members.count < membersMax, let new = best(observers, beside: serving)
        {
            return .addLearner(new.member)
        }
        // A voter that is silent for a moment keeps its vote; one that is down does not.
        let good = membership.voters.filter {
            known[$0].map { $0.liveness != .down && $0.pin != .observer } ?? false
        }
        let candidates = eligible.filter { !membership.isVoter($0.member) && isUp($0.member) }
        if good.count < target, let next = best(candidates, beside: good.compactMap { known[$0] }) {
            return .promote(next.member)
        }
        guard membership.voters.count > 1 else { return nil }
        // One that may not vote, or one too many: rather one that is down, never the leader.
        let others = membership.voters.filter { $0 != leader }
        if let unwanted = others.first(where: { known[$0]?.pin == .observer }), good.count > 0 {
            return .demote(unwanted)
        }
        let zones = Dictionary(
            grouping: membership.voters.compactMap { known[$0]?.labels[Placement.zoneLabel] }, by: \.self
        ).mapValues(\.count)
        func crowd(_ node: NodeRow?) -> Int { node?.labels[Placement.zoneLabel].map { zones[$0] ?? 0 } ?? 0 }
        let order = others.sorted { left, right in
            func rank(_ member: MemberID) -> (Int, Int, Int, UInt64) {
                let node = known[member]
                return (isUp(member) ? 1 : 0, node?.pin == .voter ? 1 : 0, -crowd(node), .max - member)
            }
            return rank(left) < rank(right)
        }
        guard membership.voters.count <= target else { return order.first.map { .demote($0) } }
        // Zones were named later, or nodes of others came later: a vote goes where fewer are. The next step takes the one too many.
        guard good.count == target, membership.voters.allSatisfy(isUp), let most = order.first.flatMap({ known[$0] })
        else { return nil }
        func isBetter(_ node: NodeRow) -> Bool {
            node.labels[Placement.zoneLabel] != nil && crowd(most) - crowd(node) >= 2
                && (most.pin != .voter || node.pin == .voter)
        }
        if let next = best(candidates.filter(isBetter), beside: good.compactMap { known[$0] }) {
            return .promote(next.member)
        }
        guard membership.members.count < membersMax else { return nil }
        return best(observers.filter(isBetter), beside: serving).map { .addLearner($0.member) }
    }

    /// Pinned ones first, then one of a zone that has the fewest voters, then the one that came first.
    private static func best(_ candidates: [NodeRow], beside voters: [NodeRow]) -> NodeRow? {
        func crowd(_ node: NodeRow) -> Int {
            guard let zone = node.labels[Placement.zoneLabel] else { return 0 }
            return voters.count { $0.labels[Placement.zoneLabel] == zone }
        }
        return candidates.min { left, right in
            (left.pin == .voter ? 0 : 1, crowd(left), left.member)
                < (right.pin == .voter ? 0 : 1, crowd(right), right.member)
        }
    }
}
