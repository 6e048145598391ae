// SPDX-License-Identifier: Apache-2.0

/// Who takes part in the log: voters decide, learners follow and may be promoted, removed ids are refused for ever.
///
/// Lists are sorted and without repeats, so that equal memberships are equal values and equal bytes.
public struct Membership: Hashable, Sendable {
    public private(set) var voters: [MemberID]
    public private(set) var learners: [MemberID]
    /// Ids that were members once. Never a member again: whoever holds one has a past this cluster does not know.
    public private(set) var removed: [MemberID]

    /// Voters and learners together, at most.
    public static let membersMax = 64
    /// Removed ids remembered, at most; changes that would need more are refused.
    public static let removedMax = 4_096

    public init(voters: [MemberID], learners: [MemberID] = [], removed: [MemberID] = []) {
        self.voters = Self.ordered(voters)
        self.learners = Self.ordered(learners)
        self.removed = Self.ordered(removed)
        precondition(!self.voters.contains(0) && !self.learners.contains(0), "member id 0 is reserved")
        precondition(Set(self.voters).isDisjoint(with: self.learners), "a member is voter and learner: \(self)")
    }

    private static func ordered(_ ids: [MemberID]) -> [MemberID] { Set(ids).sorted() }

    /// Votes needed to decide.
    public var quorum: Int { voters.count / 2 + 1 }
    /// Voters and learners, sorted.
    public var members: [MemberID] { (voters + learners).sorted() }

    public func isVoter(_ id: MemberID) -> Bool { voters.contains(id) }
    public func contains(_ id: MemberID) -> Bool { voters.contains(id) || learners.contains(id) }

    /// The membership after one step, or why it cannot be taken.
    public func applying(_ change: MembershipChange) -> Result<Membership, MembershipRefusal> {
        var next = self
        switch change {
        case .addLearner(let id):
            guard id != 0, !removed.contains(id) || Planted.isActive(.removedReturns) else {
                return .failure(.wasRemoved(id))
            }
            guard !contains(id) else { return .failure(.isMember(id)) }
            guard voters.count + learners.count < Self.membersMax else { return .failure(.tooMany(Self.membersMax)) }
            next.learners = Self.ordered(learners + [id])
        case .promote(let id):
            guard learners.contains(id) else { return .failure(.isNoLearner(id)) }
            next.learners.removeAll { $0 == id }
            next.voters = Self.ordered(voters + [id])
        case .demote(let id):
            guard voters.contains(id) else { return .failure(.isNoVoter(id)) }
            guard voters.count > 1 else { return .failure(.lastVoter(id)) }
            next.voters.removeAll { $0 == id }
            next.learners = Self.ordered(learners + [id])
        case .remove(let id):
            guard contains(id) else { return .failure(.isNoMember(id)) }
            guard voters != [id] else { return .failure(.lastVoter(id)) }
            guard removed.count < Self.removedMax else { return .failure(.tooMany(Self.removedMax)) }
            next.voters.removeAll { $0 == id }
            next.learners.removeAll { $0 == id }
            next.removed = Self.ordered(removed + [id])
        }
        return .success(next)
    }
}

/// One step of membership. Any two memberships one step apart share a voter in every pair of their quorums.
///
/// Source: Ongaro, "Consensus: Bridging Theory and Practice", 4.1.
public enum MembershipChange: Hashable, Sendable {
    case addLearner(MemberID)
    /// Learner to voter.
    case promote(MemberID)
    /// Voter to learner.
    case demote(MemberID)
    case remove(MemberID)
}

/// Why a membership cannot change that way now. Nothing was changed.
public enum MembershipRefusal: Error, Hashable, Sendable {
    case isMember(MemberID)
    case isNoMember(MemberID)
    case isNoLearner(MemberID)
    case isNoVoter(MemberID)
    case lastVoter(MemberID)
    case wasRemoved(MemberID)
    case tooMany(Int)
    /// The change before is not committed yet.
    case changeUnderWay(index: UInt64)
    /// The leader has not committed an entry of its own term yet.
    case leaderNotReady
    case transferUnderWay(to: MemberID)
    /// The learner lacks that many entries.
    case learnerBehind(MemberID, entries: UInt64)
    /// Fewer of the new voters answer than it takes to decide: going on would stop the cluster.
    case quorumUnreachable(answering: Int, quorum: Int)
}

/// A membership and the entry that brought it. Index 0: the one the cluster was made with.
public struct ConfigurationPoint: Hashable, Sendable {
    public var index: UInt64
    public var membership: Membership

    public init(index: UInt64, membership: Membership) {
        self.index = index
        self.membership = membership
    }
}

// MARK: - Bytes

/// Payload of a configuration entry: format u8 (1), counts of voters, learners, removed and of two lists kept free for
/// joint memberships (u16 each), then the ids (u64). Little-endian.
extension Membership {
    private static let format: UInt8 = 1

    public func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.put(Self.format)
        for list in [voters, learners, removed, [], []] { writer.put(UInt16(list.count)) }
        for id in voters + learners + removed { writer.put(id) }
        return writer.bytes
    }

    /// Nil when the bytes are not exactly one membership this build understands.
    public init?(decoding bytes: [UInt8]) {
        var reader = ByteReader(bytes[...])
        guard reader.take(UInt8.self) == Self.format else { return nil }
        var counts: [Int] = []
        for _ in 0..<5 {
            guard let count = reader.take(UInt16.self) else { return nil }
            counts.append(Int(count))
        }
        guard counts[3] == 0, counts[4] == 0, counts[0] + counts[1] <= Self.membersMax, counts[2] <= Self.removedMax,
            reader.rest.count == counts.reduce(0, +) * 8
        else { return nil }
        var lists: [[MemberID]] = []
        for count in counts.prefix(3) { lists.append((0..<count).compactMap { _ in reader.take(UInt64.self) }) }
        guard !lists[0].contains(0), !lists[1].contains(0), Set(lists[0]).isDisjoint(with: lists[1]) else { return nil }
        self.init(voters: lists[0], learners: lists[1], removed: lists[2])
    }
}
