// SPDX-License-Identifier: Apache-2.0

/// Leadership being handed on.
struct Transfer: Sendable {
    var token: UInt64
    var target: MemberID
    var ticks = 0
    /// The target was told to stand for election.
    var isTold = false
}

// Members come and go one step at a time; leadership is handed on. Source: Ongaro, 3.10, 4.1, 4.2.
extension RaftNode {
    /// Where every member stands, for people; empty unless this member leads.
    public var memberProgress: [MemberProgress] {
        guard isLeader else { return [] }
        return members.members.map { member in
            let known = progress[member]
            return MemberProgress(
                id: member, isVoter: members.isVoter(member), match: member == id ? durableIndex : known?.match ?? 0,
                silentTicks: known?.silentTicks ?? 0, needsSnapshot: known?.state == .snapshot)
        }
    }

    // MARK: - Membership

    mutating func changeMembership(_ token: UInt64, _ change: MembershipChange) {
        if let refusal = refusal(for: change) {
            staged.output.refused.append(Refused(token: token, reason: refusal))
            return
        }
        guard case .success(let next) = members.applying(change) else { return }
        let entry = Entry(index: log.last.index + 1, term: term, kind: .configuration, payload: next.encoded())
        append(entry)
        staged.output.accepted.append(Accepted(token: token, position: entry.position))
    }

    private func refusal(for change: MembershipChange) -> Refusal? {
        guard isLeader else { return .notLeader(leader: leader) }
        if let transfer { return .membership(.transferUnderWay(to: transfer.target)) }
        // Without an entry of its own term committed, a change of an earlier leader may still come to light.
        guard isReady || Planted.isActive(.changeWithoutOwnEntry) else { return .membership(.leaderNotReady) }
        guard membership.index <= commitIndex else { return .membership(.changeUnderWay(index: membership.index)) }
        switch members.applying(change) {
        case .failure(let refusal): return .membership(refusal)
        case .success(let next):
            if case .promote(let member) = change {
                let behind = log.last.index - min(progress[member]?.match ?? 0, log.last.index)
                if behind > configuration.promotionLagMax {
                    return .membership(.learnerBehind(member, entries: behind))
                }
            }
            let answering = next.voters.filter { voter in
                voter == id || (progress[voter]?.silentTicks ?? .max) < configuration.electionTicks
            }.count
            guard answering >= next.quorum else {
                return .membership(.quorumUnreachable(answering: answering, quorum: next.quorum))
            }
            return nil
        }
    }

    /// A membership came into force or was taken back.
    mutating func membershipChanged() {
        staged.output.membership = membership
        guard isLeader else { return }
        for member in members.members where member != id && progress[member] == nil {
            progress[member] = Progress(next: log.last.index + 1)
        }
        for member in progress.keys where !members.contains(member) { progress[member] = nil }
        advanceCommit()
    }

    /// A leader that is no voter any more hands on and follows, once that is agreed.
    mutating func leaveIfRemoved() {
        guard isLeader, !members.isVoter(id), membership.index <= commitIndex else { return }
        // The others learn of the commit with this step's messages, before anybody stands.
        sendNews()
        if let target = furthestVoter() { send(.timeoutNow, to: target) }
        follow(nil, term: term)
    }

    private func furthestVoter() -> MemberID? {
        members.voters.filter { $0 != id && (progress[$0]?.silentTicks ?? .max) < configuration.electionTicks }
            .max { (progress[$0]?.match ?? 0, $1) < (progress[$1]?.match ?? 0, $0) }
    }

    // MARK: - Transfer

    mutating func beginTransfer(_ token: UInt64, to target: MemberID?) {
        guard isLeader else { return report(token, .notLeader(leader: leader)) }
        if let target, target == id { return report(token, .transferred(to: id)) }
        let chosen = target ?? furthestVoter()
        guard transfer == nil, let chosen, chosen != id, members.isVoter(chosen) else {
            return report(token, .noTarget)
        }
        transfer = Transfer(token: token, target: chosen)
        continueTransfer(to: chosen)
    }

    private mutating func report(_ token: UInt64, _ outcome: TransferResult.Outcome) {
        staged.output.transfers.append(TransferResult(token: token, outcome: outcome))
    }

    /// Tells the target to stand as soon as it has everything.
    mutating func continueTransfer(to member: MemberID) {
        guard let transfer, transfer.target == member, !transfer.isTold, progress[member]?.match == log.last.index
        else {
            return
        }
        self.transfer?.isTold = true
        send(.timeoutNow, to: member)
    }

    mutating func tickTransfer() {
        guard let transfer else { return }
        self.transfer?.ticks += 1
        if transfer.ticks >= configuration.electionTicks { transferTimedOut(transfer) }
    }

    mutating func transferTimedOut(_ transfer: Transfer) {
        self.transfer = nil
        report(transfer.token, .timedOut(transfer.target))
    }

    /// As a follower: the transfer that ended this leadership is reported when the new leader is known.
    mutating func tickTransferResult() {
        guard let transfer else { return }
        self.transfer?.ticks += 1
        guard transfer.ticks >= configuration.electionTicks * 2 else { return }
        self.transfer = nil
        report(transfer.token, .notLeader(leader: leader))
    }

    mutating func transferEnded(with leader: MemberID) {
        guard let transfer, leader != id else { return }
        self.transfer = nil
        report(transfer.token, .transferred(to: leader))
    }

    mutating func timeoutNow(from member: MemberID) {
        guard !isLeader, member == leader, members.isVoter(id), installing == nil else { return }
        stand(isTransfer: true)
    }
}
