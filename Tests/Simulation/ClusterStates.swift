// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport

// States that go wrong without anybody noticing, and members that compare theirs.
extension Cluster {
    /// One state at most is wrong at a time: a quorum has to be right.
    func rotState() {
        plan(.rotState, after: delay(1_500_000))
        guard !isHealing, checker.membership.membership.voters.count >= 3,
            roster.allSatisfy({ $0.state.dust == 0 && $0.durableState.dust == 0 }),
            streams.allSatisfy({ $0.isOver || $0.state.dust == 0 })
        else { return }
        let voters = roster.filter { $0.isUp && checker.membership.membership.isVoter($0.id) }
        guard let member = voters.randomElement(using: &random) else { return }
        member.state.gather(dust: random.next() | 1)
        note("the state of \(member.id) goes wrong")
    }

    /// The product's members compare their states where an entry says so.
    func proposeComparison() throws {
        guard !isHealing else { return }
        plan(.compare, after: delay(500_000))
        guard let leader = leading else { return }
        let payload = try ModelCommand.comparison(at: clock(of: leader))
        feed(leader, .propose([Proposal(token: leader.token(), payload: payload)]))
    }

    /// In milliseconds, not the same on every machine.
    func clock(of member: Member) -> UInt64 { 1_700_000_000_000 + now / 1_000 + UInt64(member.slot) * 137 }

    /// It is at an index where all compare: the others hear what its state is.
    func compareState(of member: Member) throws {
        let index = member.state.applied.index
        let digest = member.state.comparable
        checker.compared(digest, of: member, at: index)
        try takeDigest(digest, from: member.id, to: member.id, at: index)
        for other in roster where other !== member {
            guard !perMille(isHealing ? 0 : options.dropPerMille) else { continue }
            plan(.digest(from: member.id, to: other.id, index: index, digest), after: delay(options.delay))
        }
    }

    func takeDigest(_ digest: [UInt8], from sender: MemberID, to receiver: MemberID, at index: UInt64) throws {
        guard let member = members[receiver], member.isUp, !isBlocked(sender, receiver), let raft = member.raft else {
            return
        }
        let membership = raft.membership.membership
        guard membership.contains(sender) else { return }
        var voices = membership
        if Planted.isActive(.leaderDecides), let leader = raft.leader { voices = Membership(voters: [leader]) }
        guard member.comparison.add(digest, of: sender, at: index, own: receiver, among: voices), !member.isStateWrong
        else { return }
        try checker.givesWay(member, at: index, among: membership)
        note("\(member.id) finds its state wrong at \(index)")
        member.isStateWrong = true
        plan(.replace(member, life: member.life), after: 1)
    }

    /// Until a snapshot is in force. A wrong state does not lead: what it decides is wrong, too.
    func replaceState(of member: Member) throws {
        guard member.isStateWrong, let raft = member.raft else { return }
        plan(.replace(member, life: member.life), after: 2_000_000)
        if raft.isLeader {
            feed(member, .transfer(token: member.token(), to: nil))
        } else if let leader = raft.leader.flatMap({ members[$0] }), leader.isUp, let other = leader.raft,
            other.isLeader
        {
            try beginStream(from: leader, to: member.id, term: other.term)
        }
    }

    /// In a healed cluster whatever a quorum of the voters has becomes the state of all.
    func settleStates() throws {
        guard options.comparedEvery > 0 else { return }
        func outvoted() -> [Member] {
            let membership = checker.membership.membership
            let present = membership.members.compactMap { members[$0] }.filter(\.isUp)
            let votes = Dictionary(
                grouping: present.filter { membership.isVoter($0.id) }, by: { $0.state.comparable })
            guard let right = votes.first(where: { $0.value.count >= membership.quorum })?.key else { return [] }
            return present.filter { $0.state.comparable != right }
        }
        for _ in 0..<20 where !outvoted().isEmpty {
            for member in roster where member.isUp { try compareState(of: member) }
            try advance(limit: now + 3_000_000 + options.delay * 20, until: { outvoted().isEmpty })
        }
        let wrong = outvoted()
        guard !wrong.isEmpty else { return }
        throw Violation(.wrongStatesGo, "\(wrong.map(\.id)) keep their states: \(standing)")
    }
}
