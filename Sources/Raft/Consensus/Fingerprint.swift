// SPDX-License-Identifier: Apache-2.0

extension RaftNode {
    /// Hashes everything that decides what this member will do, so that an exploration knows a place it has been to. Left
    /// out are election timeouts and randomness, and what no exploration drives: loads, snapshots, reads and transfers.
    public func hashState(into hasher: inout Hasher) {
        hasher.combine(role)
        hasher.combine(term)
        hasher.combine(vote)
        hasher.combine(leader)
        hasher.combine(commitIndex)
        hasher.combine(durableIndex)
        hasher.combine(handedOut)
        hasher.combine(log.terms.starts)
        hasher.combine(log.last)
        hasher.combine(durableHardState)
        hasher.combine(hardStatesUnderWay.count)
        hasher.combine(silentTicks)
        hasher.combine(heartbeatAge)
        hasher.combine(membership)
        for voter in members.members {
            hasher.combine(votes[voter])
            guard let known = progress[voter] else { continue }
            hasher.combine(known.state)
            hasher.combine(known.match)
            hasher.combine(known.next)
            hasher.combine(known.isPaused)
            hasher.combine(known.isActive)
            hasher.combine(known.inFlight)
        }
    }
}
