// SPDX-License-Identifier: Apache-2.0
internal import Model
public import Raft
public import Store

/// Which nodes vote. Pure: what is known goes in, the next single step comes out.
///
/// Every node follows the log; 1, 3 or 5 of them decide it. A node is added as a learner first. A voter that is down gives
/// its vote to a node that is up, so that the next loss can be borne, too.
public enum MembershipPlan {
    /// With so many nodes that may vote.
    public static func voters(of nodes: Int) -> Int { nodes < 3 ? 1 : nodes < 5 ? 3 : 5 }

    /// - Parameters:
    ///   - nodes: all there are, in any order.
    ///   - answering: members the leader hears from, itself included.
    ///   - leader: never demoted while another can be.
    /// - Returns: nil when all is as it should be, or nothing can be done now.
    public static func next(
        nodes: [NodeRow], membership: Membership, answering: Set<MemberID>, leader: MemberID
    ) -> MembershipChange? {
        let known = Dictionary(nodes.map { ($0.member, $0) }, uniquingKeysWith: { first, _ in first })
        func isUp(_ member: MemberID) -> Bool {
            answering.contains(member) && known[member].map { $0.liveness != .down } ?? false
        }
        // A node comes: it learns first.
        let strangers = nodes.filter {
            !membership.contains($0.member) && !membership.removed.contains($0.member) && !$0.peerAddress.isEmpty
        }
        if let new = strangers.min(by: { $0.member < $1.member }), membership.members.count < Membership.membersMax {
            return .addLearner(new.member)
        }
        let eligible = nodes.filter { $0.pin != .observer && membership.contains($0.member) }
        let pinned = eligible.count { $0.pin == .voter }
        let target = max(voters(of: eligible.count), min(pinned, 5))
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
        guard membership.voters.count > target else { return nil }
        let order = others.sorted { rank($0, isUp($0), known[$0]) < rank($1, isUp($1), known[$1]) }
        return order.first.map { .demote($0) }
    }

    private static func rank(_ member: MemberID, _ isUp: Bool, _ node: NodeRow?) -> (Int, Int, UInt64) {
        (isUp ? 1 : 0, node?.pin == .voter ? 1 : 0, .max - member)
    }

    /// Pinned ones first, then one of a zone that has the fewest voters, then the one that came first.
    private static func best(_ candidates: [NodeRow], beside voters: [NodeRow]) -> NodeRow? {
        func crowd(_ node: NodeRow) -> Int {
            guard let zone = node.labels["zone"] else { return 0 }
            return voters.count { $0.labels["zone"] == zone }
        }
        return candidates.min { left, right in
            (left.pin == .voter ? 0 : 1, crowd(left), left.member)
                < (right.pin == .voter ? 0 : 1, crowd(right), right.member)
        }
    }
}
