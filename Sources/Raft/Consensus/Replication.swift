// SPDX-License-Identifier: Apache-2.0

// The leader's side of the log: proposals, appends with flow control, commitment. Source: Ongaro, 3.5, 3.6, 10.2.
extension RaftNode {
    // MARK: - Proposals

    mutating func propose(_ proposals: [Proposal]) {
        for proposal in proposals {
            if let reason = refusal(for: proposal) {
                staged.output.refused.append(Refused(token: proposal.token, reason: reason))
                continue
            }
            let entry = Entry(index: log.last.index + 1, term: term, kind: .command, payload: proposal.payload)
            append(entry)
            staged.output.accepted.append(Accepted(token: proposal.token, position: entry.position))
        }
    }

    private func refusal(for proposal: Proposal) -> Refusal? {
        let limits = configuration
        let bytes = proposal.payload.count
        if bytes > limits.entryBytesMax { return .tooLarge(bytes: bytes, limit: limits.entryBytesMax) }
        guard isLeader else { return .notLeader(leader: leader) }
        if let transfer, !Planted.isActive(.proposesWhileTransferring) { return .transferring(to: transfer.target) }
        if log.last.index - appliedIndex >= UInt64(limits.unappliedEntriesMax) {
            return .busyEntries(limit: limits.unappliedEntriesMax)
        }
        if unappliedBytes + bytes + 64 > limits.unappliedBytesMax {
            return .busyBytes(limit: limits.unappliedBytesMax)
        }
        return nil
    }

    // MARK: - Sending

    /// Once a step: to every member what it lacks, or else the commit index when that is news.
    mutating func sendNews() {
        guard isLeader else { return }
        for member in members.members where member != id {
            sendAppends(to: member)
            guard let known = progress[member] else { continue }
            let commit = min(known.match, commitIndex)
            if commit > known.commitSent {
                progress[member]?.commitSent = commit
                send(.commit(commit), to: member)
            }
        }
    }

    /// - Parameter isProbe: sends an empty append when there is nothing to send, to learn whether appends were lost.
    mutating func sendAppends(to member: MemberID, isProbe: Bool = false) {
        var isProbe = isProbe
        while let known = progress[member] {
            switch known.state {
            case .snapshot: return
            case .probe where known.isPaused: return
            case .replicate where known.inFlight.count >= configuration.inFlightMax: return
            default: break
            }
            guard known.next <= log.last.index || isProbe else { return }
            let previous = known.next - 1
            guard let previousTerm = log.term(at: previous) else { return needSnapshot(member) }
            var entries: [Entry] = []
            if known.next <= log.last.index {
                guard known.next >= log.memoryStart else { return load(for: member, from: known.next) }
                entries = Array(log.slice(from: known.next, bytesMax: configuration.appendBytesMax))
            }
            sendAppend(to: member, previous: LogPosition(index: previous, term: previousTerm), entries)
            isProbe = false
        }
    }

    private mutating func sendAppend(to member: MemberID, previous: LogPosition, _ entries: [Entry]) {
        send(.append(Append(previous: previous, entries: entries, commit: commitIndex)), to: member)
        guard var known = progress[member] else { return }
        if let last = entries.last {
            known.commitSent = max(known.commitSent, min(commitIndex, last.index))
            if known.state == .replicate {
                known.next = last.index + 1
                known.inFlight.append(last.index)
            }
        }
        if known.state == .probe {
            known.isPaused = true
            known.beat = beats
        }
        progress[member] = known
    }

    private mutating func load(for member: MemberID, from index: UInt64) {
        guard progress[member]?.isLoading == false else { return }
        progress[member]?.isLoading = true
        let end = min(log.memoryStart, log.last.index + 1)
        staged.output.loads.append(Load(member: member, range: index..<end, bytesMax: configuration.appendBytesMax))
    }

    mutating func loaded(for member: MemberID, _ entries: [Entry]?) {
        progress[member]?.isLoading = false
        guard isLeader, let known = progress[member], known.state != .snapshot else { return }
        // The log begins later than was thought: what is missing can only come as a snapshot.
        if entries == nil { return needSnapshot(member) }
        // Read meanwhile what was asked for then: it may have been cut off or sent another way since.
        guard let entries, let first = entries.first, let last = entries.last, first.index == known.next,
            log.holds(first.position), log.holds(last.position), let term = log.term(at: first.index - 1)
        else { return }
        switch known.state {
        case .probe where known.isPaused: return
        case .replicate where known.inFlight.count >= configuration.inFlightMax: return
        default: sendAppend(to: member, previous: LogPosition(index: first.index - 1, term: term), entries)
        }
    }

    private mutating func needSnapshot(_ member: MemberID) {
        // One that is away would only hold the snapshot's files for nothing.
        guard let known = progress[member], known.silentTicks < configuration.electionTicks else { return }
        progress[member]?.becomeSnapshot()
        staged.output.snapshots.append(member)
    }

    mutating func snapshotSent(to member: MemberID, _ meta: SnapshotMeta, succeeded: Bool) {
        guard isLeader, let known = progress[member], known.state == .snapshot else { return }
        progress[member]?.becomeProbe(next: succeeded ? meta.position.index + 1 : known.match + 1)
        // After a failure the next heartbeat's answer starts again, not a busy loop.
        progress[member]?.isPaused = !succeeded
    }

    // MARK: - Answers

    mutating func appendReplied(_ reply: AppendReply, from member: MemberID) {
        guard isLeader, let known = progress[member] else { return }
        progress[member]?.beat = beats
        switch reply {
        case .accepted(let match):
            // Beyond the own log: not an answer to anything this leader sent.
            guard match <= log.last.index, progress[member]?.accept(match) == true else {
                if known.state == .probe { progress[member]?.isPaused = false }
                return
            }
            switch known.state {
            case .probe: progress[member]?.becomeReplicate()
            case .snapshot:
                // It got ahead of what the log begins with some other way.
                if match >= log.base.index { progress[member]?.becomeProbe(next: match + 1) }
            case .replicate: break
            }
            advanceCommit()
            continueTransfer(to: member)
        case .rejected(let previous, let hint):
            switch known.state {
            case .snapshot: return
            case .replicate:
                // Of an append before the last accepted one.
                guard previous > known.match else { return }
                progress[member]?.becomeProbe(next: known.match + 1)
            case .probe:
                guard previous == known.next - 1 else { return }
                let common = log.terms.lastPosition(atMost: hint.index, term: hint.term)
                progress[member]?.becomeProbe(next: min(previous, common.index + 1))
            }
        }
    }

    mutating func heartbeatReplied(_ round: UInt64, from member: MemberID) {
        guard isLeader, let known = progress[member] else { return }
        progress[member]?.round = Planted.isActive(.olderRoundCounts) ? readIndex.lastRound : max(known.round, round)
        confirmReads()
        // Rounds for reads may follow one another quickly: what was sent since the last beat may still be under way.
        guard known.beat < beats else { return }
        switch known.state {
        case .probe:
            progress[member]?.isPaused = false
            sendAppends(to: member, isProbe: known.match < log.last.index)
        case .replicate where known.inFlight.count >= configuration.inFlightMax:
            // As much as may be is under way and none of it was answered for a beat: it was lost.
            progress[member]?.becomeProbe(next: known.match + 1)
            sendAppends(to: member)
        case .replicate where known.match < log.last.index && known.next > log.last.index:
            // Everything was sent and not all acknowledged: the answer shows whether something was lost.
            progress[member]?.beat = beats
            sendAppends(to: member, isProbe: true)
        case .replicate, .snapshot: break
        }
    }

    // MARK: - Commitment

    mutating func advanceCommit() {
        guard isLeader else { return }
        let counted = Planted.isActive(.learnerCounted) ? members.members : members.voters
        let matches = counted.map { $0 == id ? durableIndex : progress[$0]?.match ?? 0 }.sorted(by: >)
        guard matches.count >= members.quorum else { return }
        let index = matches[members.quorum - 1]
        guard index > commitIndex, log.term(at: index) == term || Planted.isActive(.oldTermCommitted) else { return }
        commit(through: index)
        leaveIfRemoved()
    }

    mutating func commit(through index: UInt64) {
        commitIndex = max(commitIndex, index)
    }
}
