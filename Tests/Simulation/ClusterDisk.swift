// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import Store
internal import TestSupport

// The log's thread of each member, and what happens when a machine stops.
extension Cluster {
    /// As the log's writer does: each piece fits a record; a commit index is written no earlier than its entries.
    func pieces(_ write: Write) -> [Write] {
        let limit = options.segmentBytes / 2
        guard LogFile.payloadBytes(of: write) > limit else { return [write] }
        var pieces: [Write] = []
        var piece = Write(sequence: write.sequence - 1, hardState: write.hardState, truncateFrom: write.truncateFrom)
        let last = write.entries.first.map { $0.index - 1 } ?? 0
        if let commit = piece.hardState?.commit { piece.hardState?.commit = min(commit, last) }
        for entry in write.entries {
            if LogFile.payloadBytes(of: piece) > limit {
                pieces.append(piece)
                piece = Write(sequence: write.sequence - 1)
            }
            piece.entries.append(entry)
        }
        piece.sequence = write.sequence
        piece.unlocks = write.unlocks
        return pieces + [piece]
    }

    /// Begins the next piece of work of the log's thread, if it has none.
    func startDisk(_ member: Member) throws {
        guard member.isUp, !member.isDiskBusy, !member.jobs.isEmpty else { return }
        member.isDiskBusy = true
        if case .write(let first) = member.jobs[0] {
            member.jobs.removeFirst()
            var batch = first
            while case .write(let next) = member.jobs.first, next.truncateFrom == nil, !random.oneIn(5),
                LogFile.payloadBytes(of: batch) + LogFile.payloadBytes(of: next) < options.segmentBytes / 2
            {
                member.jobs.removeFirst()
                if let state = next.hardState { batch.hardState = state }
                batch.entries += next.entries
                batch.sequence = next.sequence
                batch.unlocks += next.unlocks
            }
            guard try beginWrite(batch, member) else { return }
        }
        plan(
            .disk(member, life: member.life), after: member.flushing?.changesLog == false ? 1 : delay(options.diskDelay)
        )
    }

    private func beginWrite(_ batch: Write, _ member: Member) throws -> Bool {
        member.flushing = batch
        guard batch.changesLog, let log = member.log else { return true }
        do {
            try log.append(batch)
            return true
        } catch {
            if error.code == .noSpace, !member.disk.isCrashed {
                // It waits and is tried again.
                note("\(member.id) has a full disk")
                member.flushing = nil
                member.jobs.insert(.write(batch), at: 0)
                member.isDiskBusy = false
                plan(.disk(member, life: member.life), after: 500_000)
                return false
            }
            try failed(member, error)
            return false
        }
    }

    func diskDone(_ member: Member) throws {
        guard let log = member.log else { return }
        member.isDiskBusy = false
        do {
            if let write = member.flushing {
                member.flushing = nil
                if write.changesLog {
                    // Until it returns the write may be on the disk or not.
                    member.flushing = write
                    try log.sync()
                    member.flushing = nil
                    member.beforeLastSync = (member.durable.lastIndex, member.durable.hardState)
                    member.durable.add(write)
                }
                feed(member, .persisted(write.receipt))
                for message in write.unlocks { try send(message, from: member) }
                if log.wantsPreparation, random.oneIn(3) { try log.prepare() }
            } else if !member.jobs.isEmpty {
                try perform(member.jobs[0], member, log)
            }
        } catch let error as LogError {
            return try failed(member, error)
        }
        try startDisk(member)
    }

    private func perform(_ job: Member.Job, _ member: Member, _ log: LogFile) throws {
        switch job {
        case .write: return
        case .load(let load):
            member.jobs.removeFirst()
            var entries: [Entry]?
            do {
                let end = min(load.range.upperBound, log.extent.last.index + 1)
                entries =
                    load.range.lowerBound < end
                    ? try log.entries(load.range.lowerBound..<end, bytesMax: load.bytesMax) : nil
            } catch {
                guard error.code == .notAvailable else { throw error }
            }
            feed(member, .loaded(for: load.member, entries: entries))
        case .compact(let index):
            member.jobs.removeFirst()
            try log.compact(through: index)
        case .install(let install):
            member.jobs.removeFirst()
            guard let state = member.snapshots[install.meta] else { return }
            note("\(member.id) installs \(install.meta.position)\(install.keepsLog ? ", keeps its log" : "")")
            member.pendingInstall = (install, state)
            if random.oneIn(8), options.faults.contains(.crashInDiskWork), !isHealing {
                return stop(member, powerCut: Bool.random(using: &random))
            }
            if Planted.isActive(.oldStateReplayed) { member.replacedState = member.state.replaced(by: state) }
            member.state = state
            try member.real?.install(state.image)
            member.isStateWrong = false
            member.durableState = state
            member.betweenState = nil
            member.applyQueue = []
            if !install.keepsLog { try log.reset(to: install.meta.position) }
            try installed(install, member)
            member.pendingInstall = nil
            feed(member, .installed(install))
            snapshotTaken(install.meta, by: member)
            try checkWaiting(member)
        }
    }

    /// The book of the log after a snapshot took its place.
    private func installed(_ install: Install, _ member: Member) throws {
        guard install.meta.position.index <= checker.commitIndex else {
            throw Violation(.committedStays, "\(member.id) installs \(install.meta), which was never committed")
        }
        try checker.compare(member.state, member)
        if let real = member.real { try checker.digested(real.digest(), of: member) }
        guard !install.keepsLog else { return }
        let terms = checker.committed.prefix(Int(install.meta.position.index)).map(\.position.term)
        member.written.terms = terms
        member.durable.terms = terms
    }

    /// Entries skipped by a snapshot are not proposals of this member that anybody will apply here.
    private func checkWaiting(_ member: Member) throws {
        for index in member.proposed.keys.sorted() where index <= member.state.applied.index {
            for proposed in member.proposed.removeValue(forKey: index) ?? [] {
                reply(proposed.request, .refused(leader: nil))
            }
        }
        for waiting in member.readsWaiting where waiting.index <= member.state.applied.index {
            try answerRead(waiting.request, member)
        }
        member.readsWaiting.removeAll { $0.index <= member.state.applied.index }
    }

    // MARK: - Crashes

    /// The log cannot go on: a crash planned for the middle of disk work, or a failed sync.
    private func failed(_ member: Member, _ error: LogError) throws {
        guard member.log != nil else { return }
        if member.disk.isCrashed { return stop(member, powerCut: true) }
        guard error.code == .failed || error.code == .noSpace else {
            throw Violation(.diskOpens, "\(member.id): \(error)")
        }
        note("\(member.id) ends: \(error.message)")
        stop(member, powerCut: false)
    }

    func stop(_ member: Member, powerCut: Bool, downtime: UInt64? = nil) {
        guard member.isUp else { return }
        note("\(member.id) \(powerCut ? "loses power" : "is killed")")
        member.isUp = false
        member.raft = nil
        if let write = member.flushing, write.changesLog { member.lostWrite = write }
        if powerCut {
            member.disk.crash()
            switch Int.random(in: 0..<3, using: &random) {
            case 0:
                member.state = member.durableState
                member.imageLeft = member.state.image
            case 1:
                member.state = member.betweenState ?? member.durableState
                member.imageLeft = member.state.image
            default:
                if Planted.isActive(.appliedIndexApart) { member.state.forgetApplied(member.durableState) }
            }
            if Planted.isActive(.oldStateReplayed), let old = member.replacedState {
                member.state = old
                member.durableState = old
            }
            member.replacedState = nil
        } else {
            member.disk.kill()
        }
        if member.fate == .present {
            plan(.restart(member), after: downtime ?? delay(options.faultPause))
        }
        for other in roster where other.isUp && random.oneIn(2) { feed(other, .unreachable(member.id)) }
    }

    func restart(_ member: Member) throws {
        guard !member.isUp, member.fate == .present else { return }
        let crashesInOpen = !isHealing && options.faults.contains(.crashInDiskWork) && random.oneIn(6)
        let install = member.pendingInstall?.install
        if let real = member.real, let image = member.pendingInstall?.state.image ?? member.imageLeft {
            try real.reopen(image)
            member.imageLeft = nil
        }
        member.disk.crashAfter = crashesInOpen ? Int.random(in: 1...30, using: &random) : nil
        do {
            try member.start(seed: random.next())
        } catch {
            if member.disk.isCrashed {
                member.disk.crash()
                return plan(.restart(member), after: delay(options.faultPause))
            }
            if error.code == .failed || error.code == .noSpace {
                // The supervisor tries again.
                member.disk.kill()
                return plan(.restart(member), after: delay(options.faultPause))
            }
            if error.code == .damaged, rotten.contains(member.id) {
                note("\(member.id) is damaged: \(error.message)")
                member.fate = .destroyed
                return
            }
            throw Violation(.diskOpens, "\(member.id) after a crash: \(error)")
        }
        guard let raft = member.raft, let log = member.log else { return }
        if rotten.contains(member.id), isLastRecordGone(member, raft) {
            // The flipped bit made the last record look unfinished, and no log can tell that from a crash while it was
            // written. Rot that nobody can notice is more than a cluster promises to survive.
            note("\(member.id) has lost its last record and does not know")
            member.fate = .destroyed
            member.isUp = false
            member.raft = nil
            return
        }
        member.disk.crashAfter = nil
        if let install {
            member.durableState = member.state
            member.betweenState = nil
            try installed(install, member)
            if !install.keepsLog { member.lostWrite = nil }
        }
        try checkRecovered(member, raft)
        note(
            "\(member.id) starts in term \(raft.term), log \(log.extent.base)...\(log.extent.last), applied \(raft.appliedIndex)"
        )
        member.membershipSeen = raft.membership.membership
        plan(.tick(member, life: member.life), after: delay(options.tick / 2))
    }

    private func isLastRecordGone(_ member: Member, _ raft: RaftNode) -> Bool {
        let before = member.beforeLastSync
        return before.index == raft.lastPosition.index && before.hardState.term == raft.term
            && (raft.lastPosition.index < member.durable.lastIndex || raft.term < member.durable.hardState.term)
    }

    /// The log holds what was synced, and of a write under way all or nothing.
    private func checkRecovered(_ member: Member, _ raft: RaftNode) throws {
        var possible = [member.durable]
        if let write = member.lostWrite {
            possible.append(member.durable)
            possible[1].add(write)
        }
        let found = possible.first { shadow in
            shadow.lastIndex == raft.lastPosition.index && shadow.hardState.term == raft.term
                && (shadow.terms.last ?? 0) == raft.lastPosition.term
        }
        guard let found else {
            throw Violation(
                .entriesKept,
                "\(member.id) comes back in term \(raft.term) with \(raft.lastPosition), it had synced term "
                    + "\(member.durable.hardState.term) and \(member.durable.lastIndex) entries of term \(member.durable.terms.last ?? 0)"
            )
        }
        member.durable = found
        member.written = found
        member.lostWrite = nil
        guard raft.commitIndex <= checker.commitIndex else {
            throw Violation(.committedStays, "\(member.id) starts with commit \(raft.commitIndex)")
        }
    }
}
