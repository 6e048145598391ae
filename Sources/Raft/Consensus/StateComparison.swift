// SPDX-License-Identifier: Apache-2.0

/// What the members' whole states were at the same index, and who is alone with his.
public struct StateComparison: Sendable {
    /// Indexes under comparison, at most; older ones are forgotten.
    public static let indexesMax = 8

    private var seen: [UInt64: [MemberID: [UInt8]]] = [:]

    public init() {}

    /// Takes one in: the digest of `member`'s state at `index`.
    /// - Returns: true when `own` differs there from what a quorum of the voters has: a quorum decides who is right, not
    ///   whoever leads.
    public mutating func add(
        _ digest: [UInt8], of member: MemberID, at index: UInt64, own: MemberID, among membership: Membership
    ) -> Bool {
        seen[index, default: [:]][member] = digest
        while seen.count > Self.indexesMax, let oldest = seen.keys.min() { seen[oldest] = nil }
        guard let mine = seen[index]?[own] else { return false }
        let others = Dictionary(grouping: membership.voters.compactMap { seen[index]?[$0] }, by: { $0 })
        return others.contains { $0.key != mine && $0.value.count >= membership.quorum }
    }
}
