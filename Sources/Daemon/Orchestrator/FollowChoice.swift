// SPDX-License-Identifier: Apache-2.0
public import Model
public import Raft

/// Which member an observer follows. Pure; times are milliseconds of a clock that never jumps.
///
/// Observers spread evenly: each has an order of its own, by a hash of node and member. One that does not answer, errs or
/// is behind is left alone for a while; one the state calls down is asked last.
public struct FollowChoice: Sendable {
    public static let pauseFirst: Int64 = 250
    /// Above the time after which a node that does not answer is called down.
    public static let pauseLast: Int64 = 8_000

    private struct Fault {
        var count: Int
        var until: Int64
    }

    private let seed: UInt64
    private var faults: [MemberID: Fault] = [:]

    public init(node: NodeID) {
        // FNV-1a: the same in every run, unlike Hasher.
        seed = node.raw.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01B3 }
    }

    /// - Parameters:
    ///   - members: all that could be followed; others are forgotten.
    ///   - down: of them, those that probably do not answer.
    /// - Returns: nil when each of them was tried just now.
    public mutating func next(_ members: [MemberID], down: Set<MemberID> = [], at now: Int64) -> MemberID? {
        let known = Set(members)
        faults = faults.filter { known.contains($0.key) }
        return members.filter { (faults[$0]?.until ?? now) <= now }
            .min { (down.contains($0) ? 1 : 0, place($0), $0) < (down.contains($1) ? 1 : 0, place($1), $1) }
    }

    public mutating func failed(_ member: MemberID, at now: Int64) {
        let count = faults[member]?.count ?? 0
        let pause = min(Self.pauseFirst << Int64(min(count, 16)), Self.pauseLast)
        faults[member] = Fault(count: count + 1, until: now + pause)
    }

    public mutating func answered(_ member: MemberID) { faults[member] = nil }

    private func place(_ member: MemberID) -> UInt64 {
        var random = SplitMix64(seed: seed ^ member &* 0x9E37_79B9_7F4A_7C15)
        return random.next()
    }
}
