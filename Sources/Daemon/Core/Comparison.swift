// SPDX-License-Identifier: Apache-2.0
internal import Raft
internal import Store
internal import Synchronization

/// What the members' whole states were at the same index, and who is alone with his.
final class Comparison: Sendable {
    /// Indexes under comparison, at most; older ones are forgotten.
    static let indexesMax = 8

    private let seen = Mutex<[UInt64: [MemberID: [UInt8]]]>([:])

    /// Takes one in.
    /// - Returns: true when `own` differs there from what a quorum of the voters has: a quorum decides who is right, not
    ///   whoever leads.
    func add(_ digest: [UInt8], of member: MemberID, at index: UInt64, own: MemberID, among membership: Membership)
        -> Bool
    {
        seen.withLock { seen in
            seen[index, default: [:]][member] = digest
            while seen.count > Self.indexesMax, let oldest = seen.keys.min() { seen[oldest] = nil }
            guard let mine = seen[index]?[own] else { return false }
            let others = Dictionary(grouping: membership.voters.compactMap { seen[index]?[$0] }, by: { $0 })
            return others.contains { $0.key != mine && $0.value.count >= membership.quorum }
        }
    }
}
