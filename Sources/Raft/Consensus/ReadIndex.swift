// SPDX-License-Identifier: Apache-2.0

/// Reads waiting for the proof that this member still leads: a round of heartbeats that began after they were asked for.
///
/// Rounds are numbered once and never again, so that a late answer to an earlier round proves nothing. One round is under
/// way at a time; what comes meanwhile shares the next. Source: Ongaro, 6.4; a reused id gave stale reads in etcd (#20418).
struct ReadIndex: Sendable {
    enum Asker: Hashable, Sendable {
        case local(token: UInt64)
        case remote(MemberID, id: UInt64)
    }

    struct Confirmed: Sendable {
        var askers: [Asker]
        var index: UInt64
    }

    /// Not yet part of a round.
    private(set) var waiting: [Asker] = []
    private var underWay: (round: UInt64, index: UInt64, askers: [Asker])?
    private(set) var lastRound: UInt64 = 0

    /// Waiting and under way, at most.
    static let askersMax = 20_000

    var isFull: Bool { waiting.count + (underWay?.askers.count ?? 0) >= Self.askersMax }
    var isUnderWay: Bool { underWay != nil }

    mutating func ask(_ asker: Asker) {
        waiting.append(asker)
    }

    mutating func nextRound() -> UInt64 {
        lastRound += 1
        return lastRound
    }

    /// Begins a round for everybody who waits; nil when nobody does or one is under way.
    mutating func begin(commit: UInt64) -> UInt64? {
        guard underWay == nil, !waiting.isEmpty else { return nil }
        let round = nextRound()
        underWay = (round, commit, waiting)
        waiting = []
        return round
    }

    /// - Parameter round: confirmed by a quorum.
    mutating func confirm(_ round: UInt64) -> Confirmed? {
        guard let current = underWay, round >= current.round else { return nil }
        underWay = nil
        return Confirmed(askers: current.askers, index: current.index)
    }

    /// Leadership is over: everybody is told to ask again.
    mutating func abandon() -> [Asker] {
        defer {
            waiting = []
            underWay = nil
        }
        return (underWay?.askers ?? []) + waiting
    }
}
