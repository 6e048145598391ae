// SPDX-License-Identifier: Apache-2.0

// The follower's side of the log. Source: Ongaro, 3.5, 3.6, 5.1.
extension RaftNode {
    mutating func appendReceived(_ append: Append, from member: MemberID) {
        guard heardFromLeader(member), installing == nil else { return }
        let previous = append.previous
        guard isContiguous(append) else { return }
        guard log.holds(previous) else {
            if previous.index < commitIndex {
                // Below what is known to be common: the leader has only to learn where this member stands.
                return acknowledge(commitIndex, to: member)
            }
            let hint = log.terms.lastPosition(atMost: previous.index, term: previous.term)
            return send(.appendReply(.rejected(previous: previous.index, hint: hint)), to: member)
        }
        // The state machine is far behind: without an answer the leader slows down and tries again.
        guard unappliedBytes < configuration.unappliedBytesMax * 2 || append.entries.isEmpty else { return }
        var fresh = append.entries[...]
        while let first = fresh.first, log.holds(first.position) || first.index <= log.base.index {
            fresh.removeFirst()
        }
        if let first = fresh.first {
            if first.index <= log.last.index { truncate(from: first.index) }
            for entry in fresh { self.append(entry) }
        }
        let last = previous.index + UInt64(append.entries.count)
        if Planted.isActive(.staleAppendTruncates), fresh.isEmpty, last < log.last.index, last >= commitIndex {
            truncate(from: last + 1)
        }
        commit(through: min(append.commit, last))
        acknowledge(last, to: member)
    }

    /// A leader's append is well-formed; one that is not comes from a defect or a forger, and is not worth a crash.
    private func isContiguous(_ append: Append) -> Bool {
        var before = append.previous
        for entry in append.entries {
            guard entry.index == before.index + 1, entry.term >= before.term, entry.term <= term else { return false }
            if entry.kind == .configuration, Membership(decoding: entry.payload) == nil { return false }
            before = entry.position
        }
        return true
    }

    mutating func heartbeatReceived(_ heartbeat: Heartbeat, from member: MemberID) {
        guard heardFromLeader(member) else { return }
        if installing == nil { commit(through: min(heartbeat.commit, log.last.index)) }
        send(.heartbeatReply(round: heartbeat.round), to: member)
    }

    // MARK: - Snapshots

    mutating func snapshotReceived(from member: MemberID, term: UInt64, _ meta: SnapshotMeta, replacesState: Bool) {
        guard term >= self.term, installing == nil, !isLeader else { return }
        follow(member, term: term)
        if meta.position.index > commitIndex {
            if log.holds(meta.position), !replacesState {
                // The log has all of it already.
                commit(through: meta.position.index)
                return acknowledge(meta.position.index, to: member)
            }
            // What lies beyond is kept only where it is known to follow.
            installing = Install(meta: meta, keepsLog: log.holds(meta.position))
        } else if replacesState, meta.position.index >= log.base.index, log.holds(meta.position) {
            installing = Install(meta: meta, keepsLog: true)
        } else {
            return acknowledge(commitIndex, to: member)
        }
        staged.output.install = installing
    }

    mutating func compact(through index: UInt64) {
        guard installing == nil else { return }
        log.compact(through: index)
        staged.output.compact = log.base.index
    }

    mutating func installed(_ install: Install) {
        guard install == installing else { return }
        installing = nil
        let meta = install.meta
        if install.keepsLog {
            commit(through: meta.position.index)
            configurations.removeAll { $0.index <= meta.configuration.index }
            configurations.insert(meta.configuration, at: 0)
        } else {
            log = LogTail(terms: TermMap(base: meta.position))
            commitIndex = meta.position.index
            durableIndex = meta.position.index
            unappliedBytes = 0
            configurations = [meta.configuration]
            membershipChanged()
        }
        appliedIndex = meta.position.index
        handedOut = meta.position.index
        // What a kept log holds beyond the snapshot need not be what the leader holds.
        if let leader, leader != id { acknowledge(min(durableIndex, meta.position.index), to: leader) }
    }
}
