// SPDX-License-Identifier: Apache-2.0

// Who leads: pre-vote, votes, check-quorum. Source: Ongaro, 3.4, 6.2, 9.6.
extension RaftNode {
    /// It heard from a leader so lately that nobody else should stand.
    var hearsLeader: Bool {
        isLeader || (leader != nil && silentTicks < configuration.electionTicks)
    }

    /// A voter, or one that was until a change that may not be committed: perhaps only its log brings that change to those
    /// who go on, and they do not vote for anybody behind it. It is elected by the new voters alone. Source: Ongaro, 4.2.2.
    private var mayStand: Bool {
        members.isVoter(id)
            || membership.index > commitIndex && committedMembers.isVoter(id) && !Planted.isActive(.removedNeverStands)
    }

    mutating func resetElectionTimer() {
        silentTicks = 0
        electionTimeout = Int.random(
            in: configuration.electionTicks..<configuration.electionTicks * 2, using: &random)
    }

    mutating func followerTick() {
        tickTransferResult()
        guard mayStand, installing == nil else { return }
        if members.voters == [id] {
            // Nobody else can lead: waiting for an election timeout would only delay the start.
            if role == .follower || silentTicks >= electionTimeout { stand(isTransfer: false) }
        } else if silentTicks >= electionTimeout {
            askForVotes()
        }
    }

    /// Follows `leader` (or nobody yet) in `term`, which is not below the own.
    mutating func follow(_ leader: MemberID?, term: UInt64) {
        if term > self.term {
            self.term = term
            vote = nil
            self.leader = nil
        }
        if isLeader { endLeadership() }
        if self.leader != leader { forwardedReads.abandon(results: &staged.output.reads) }
        if role != .follower || self.leader != leader {
            role = .follower
            votes = [:]
        }
        if let leader, self.leader != leader {
            self.leader = leader
            transferEnded(with: leader)
        } else if leader == nil {
            self.leader = nil
        }
        resetElectionTimer()
    }

    private mutating func askForVotes() {
        role = .preCandidate
        leader = nil
        votes = [:]
        resetElectionTimer()
        for voter in members.voters where voter != id {
            staged.messages.append(
                Message(from: id, to: voter, term: term + 1, body: .preVote(last: log.last)))
        }
        count(vote: true, of: id)
    }

    /// Stands in a new term. The own vote counts when it is durable.
    mutating func stand(isTransfer: Bool) {
        role = .candidate
        term += 1
        vote = id
        leader = nil
        votes = [:]
        resetElectionTimer()
        for voter in members.voters where voter != id {
            send(.vote(last: log.last, isTransfer: isTransfer), to: voter)
        }
    }

    mutating func count(vote granted: Bool, of voter: MemberID) {
        votes[voter] = granted
        let counted = members.voters.filter { votes[$0] != nil }
        let won = counted.filter { votes[$0] == true }.count
        if won >= members.quorum {
            switch role {
            case .preCandidate: stand(isTransfer: false)
            case .candidate: lead()
            default: break
            }
        } else if counted.count - won >= members.quorum {
            // Lost: wait for whoever wins, or for the next timeout.
            role = .follower
            votes = [:]
        }
    }

    private mutating func lead() {
        let noop = Entry(index: log.last.index + 1, term: term, kind: .noop)
        role = .leader(firstIndex: noop.index)
        leader = id
        votes = [:]
        silentTicks = 0
        heartbeatAge = 0
        if let transfer { transferTimedOut(transfer) }
        forwardedReads.abandon(results: &staged.output.reads)
        progress = [:]
        for member in members.members where member != id { progress[member] = Progress(next: noop.index) }
        append(noop)
    }

    /// Everybody who waits for this leader is told that it leads no more.
    mutating func endLeadership() {
        progress = [:]
        for asker in readIndex.abandon() { refuseRead(asker) }
    }

    // MARK: - Answers

    mutating func answerPreVote(_ message: Message, _ last: LogPosition) {
        let granted = message.term > term && isUpToDate(last) && !hearsLeader
        // Granted in the term that was asked for, refused in the own, from which the asker may learn.
        staged.messages.append(
            Message(
                from: id, to: message.from, term: granted ? message.term : term, body: .preVoteReply(granted: granted)))
    }

    mutating func preVoteReplied(_ message: Message, _ granted: Bool) {
        guard role == .preCandidate else { return }
        guard !granted || message.term == term + 1 else { return }
        count(vote: granted, of: message.from)
    }

    mutating func answerVote(_ message: Message, _ last: LogPosition) {
        let granted = (vote == nil && leader == nil || vote == message.from) && isUpToDate(last)
        if granted {
            vote = message.from
            resetElectionTimer()
        }
        send(.voteReply(granted: granted), to: message.from)
    }

    mutating func voteReplied(_ message: Message, _ granted: Bool) {
        guard role == .candidate else { return }
        count(vote: granted, of: message.from)
        // Most likely two stood at once: whoever tries again first soon wins, and nobody waits out a whole timeout.
        if !granted, !isLeader {
            silentTicks = max(silentTicks, electionTimeout - Int.random(in: 2...12, using: &random))
        }
    }

    /// The sender lives in the past: it is told, where that helps it.
    mutating func answerStale(_ message: Message) {
        switch message.body {
        case .append, .heartbeat: send(.heartbeatReply(round: 0), to: message.from)
        case .preVote: send(.preVoteReply(granted: false), to: message.from)
        case .vote: send(.voteReply(granted: false), to: message.from)
        case .readIndex(let readID): send(.readIndexReply(id: readID, index: nil), to: message.from)
        default: break
        }
    }

    private func isUpToDate(_ last: LogPosition) -> Bool {
        last.term > log.last.term || last.term == log.last.term && last.index >= log.last.index
    }

    /// Hears the leader of this term; false when the message cannot be one of its.
    mutating func heardFromLeader(_ member: MemberID) -> Bool {
        guard !isLeader else { return false }
        follow(member, term: term)
        return true
    }

    mutating func lost(_ member: MemberID) {
        if isLeader {
            if let known = progress[member], known.state == .replicate {
                progress[member]?.becomeProbe(next: known.match + 1)
            }
        } else if leader == member {
            // Others who lost it, too, will agree to an election; those who still hear it will not.
            leader = nil
            silentTicks = max(silentTicks, electionTimeout - Int.random(in: 1...4, using: &random))
        }
    }

    // MARK: - Check-quorum

    mutating func leaderTick() {
        for member in progress.keys { progress[member]?.silentTicks += 1 }
        tickTransfer()
        if silentTicks >= configuration.electionTicks {
            silentTicks = 0
            let active = members.voters.filter { $0 == id || progress[$0]?.isActive == true }.count
            guard active >= members.quorum else { return follow(nil, term: term) }
            for member in progress.keys { progress[member]?.isActive = false }
        }
        heartbeatAge += 1
        if heartbeatAge >= configuration.heartbeatTicks {
            beats += 1
            sendHeartbeats(round: readIndex.nextRound())
        }
    }

    mutating func sendHeartbeats(round: UInt64) {
        heartbeatAge = 0
        for member in members.members where member != id {
            guard let known = progress[member] else { continue }
            let commit = min(known.match, commitIndex)
            progress[member]?.commitSent = max(known.commitSent, commit)
            send(.heartbeat(Heartbeat(commit: commit, round: round)), to: member)
        }
    }
}
