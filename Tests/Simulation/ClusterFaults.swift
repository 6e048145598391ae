// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import Store
internal import TestSupport

// What goes wrong, what operators do, and how it all is made whole again.
extension Cluster {
    // MARK: - Faults

    func causeFault() throws {
        guard !isHealing else { return }
        plan(.fault, after: delay(options.faultPause))
        let present = roster.filter { $0.fate == .present }
        guard !options.faults.isEmpty, !present.isEmpty else { return }
        let fault = options.faults[Int.random(in: options.faults.indices, using: &random)]
        // Leaders meet more trouble than others.
        let leading = present.filter { $0.raft?.isLeader == true }
        let pool = !leading.isEmpty && random.oneIn(3) ? leading : present
        let member = pool[Int.random(in: pool.indices, using: &random)]
        switch fault {
        case .kill: stop(member, powerCut: false)
        case .powerCut:
            if random.oneIn(4) {
                for member in present { stop(member, powerCut: true) }
            } else {
                stop(member, powerCut: true)
            }
        case .crashInDiskWork:
            if member.log != nil, member.isUp {
                member.disk.crashAfter = member.disk.operations + Int.random(in: 0...12, using: &random)
            }
        case .pause:
            if member.isUp { member.pausedUntil = now + delay(options.faultPause) }
        case .drift: member.tickFactorPerMille = UInt64.random(in: 500...2_000, using: &random)
        case .partition: partitionNetwork()
        case .clog:
            let other = present[Int.random(in: present.indices, using: &random)]
            cloggedUntil[member.slot * Self.slotsMax + other.slot] = now + delay(options.faultPause)
        case .syncError: if member.isUp { member.disk.failingSyncs = 1 }
        case .fullDisk:
            if member.isUp {
                let disk = member.disk
                let taken = disk.fileNames.reduce(0) { $0 + (disk.content($1)?.count ?? 0) }
                disk.capacityBytes = disk.capacityBytes == .max ? taken + options.segmentBytes / 2 : .max
            }
        case .bitRot: if mayLose(member) { rot(member) }
        case .loseDisk:
            if mayLose(member) {
                note("\(member.id) loses its disk")
                stop(member, powerCut: true)
                member.fate = .destroyed
                lost.insert(member.id)
            }
        }
    }

    /// What the leader is told comes late, then nobody hears it any more: it is replaced and does not know. Its clock is slow,
    /// and answers to what it asked before are still to come.
    func freeze(_ leader: Member) {
        guard !isHealing else { return }
        let end = now + 800_000 + delay(300_000)
        for other in roster where other !== leader {
            cloggedUntil[other.slot * Self.slotsMax + leader.slot] = end
        }
        for member in roster { member.tickFactorPerMille = member === leader ? 2_000 : 1_000 }
        note("\(leader.id) hears late until \(end / 1_000) ms")
        partition += 1
        plan(.silence(leader, partition: partition, until: end), after: delay(options.tick * 2))
    }

    func silence(_ leader: Member, until end: UInt64) {
        blocked = [Bool](repeating: false, count: blocked.count)
        for other in roster where other !== leader { setBlocked(leader, other) }
        isPartitioned = true
        note("\(leader.id) is heard no more")
        plan(.heal(partition: partition), after: max(1, end - min(end, now)))
    }

    /// A new leader goes, or is left with one follower at most, while clients still write to it.
    func fall(_ leader: Member) {
        guard !isHealing else { return }
        if options.leadersFreeze { return freeze(leader) }
        if random.oneIn(3) { return stop(leader, powerCut: false) }
        partition += 1
        isPartitioned = true
        blocked = [Bool](repeating: false, count: blocked.count)
        let others = roster.filter { $0 !== leader && $0.fate == .present }.shuffled(using: &random)
        let left = random.oneIn(3) ? 0 : 1
        for other in others.dropFirst(left) {
            for one in [leader] + others.prefix(left) {
                setBlocked(one, other)
                setBlocked(other, one)
            }
        }
        note("\(leader.id) is cut off with \(others.prefix(left).map(\.id))")
        plan(.heal(partition: partition), after: delay(options.tick * UInt64(options.electionTicks) * 2))
    }

    /// Enough other copies are left: only the loss of a minority can be made good.
    private func mayLose(_ member: Member) -> Bool {
        let membership = checker.membership.membership
        guard membership.voters.count >= 3, membership.contains(member.id), member.isUp, lost.isEmpty,
            rotten.isEmpty
        else { return false }
        return roster.allSatisfy { other in
            // A change that waits to be taken up may leave fewer voters than there are now.
            let isAsked = other.inbox.contains { if case .changeMembership = $0 { true } else { false } }
            guard !isAsked else { return false }
            guard other.fate == .present, let raft = other.raft else { return true }
            return raft.membership.index <= checker.commitIndex && raft.membership.index <= checker.membership.index
        } && roster.allSatisfy { $0.isUp || $0.fate != .present }
    }

    private func rot(_ member: Member) {
        stop(member, powerCut: false)
        let names = member.disk.fileNames.filter { $0.hasSuffix(".log") }
        guard let name = names.randomElement(using: &random), var bytes = member.disk.content(name) else { return }
        guard let used = bytes.lastIndex(where: { $0 != 0 }) else { return }
        bytes[Int.random(in: 0...used, using: &random)] ^= UInt8(1 << Int.random(in: 0..<8, using: &random))
        member.disk.replace(name, with: bytes)
        rotten.insert(member.id)
        lost.insert(member.id)
        note("a bit of \(name) of \(member.id) flips")
    }

    // MARK: - Operators

    func addMember(_ id: MemberID) throws {
        let member = try Member(
            id: id, slot: roster.count, options: options, founding: founding, seed: random.next())
        members[id] = member
        roster.append(member)
        try restart(member)
    }

    /// Who leads, as far as operators can see.
    var leading: Member? {
        roster.filter { $0.isUp && $0.raft?.isLeader == true }.max { ($0.raft?.term ?? 0) < ($1.raft?.term ?? 0) }
    }

    func change(_ leader: Member, _ change: MembershipChange) {
        note("operators ask \(leader.id) to \(change)")
        feed(leader, .changeMembership(token: leader.token(), change))
    }

    func operate() {
        plan(.operate, after: delay(options.operationPause))
        retireRemoved()
        guard let leader = leading, let raft = leader.raft else { return }
        let membership = raft.membership.membership
        // A lost disk is seen to first: with another member gone the rest might be too few.
        let broken = membership.members.filter { members[$0]?.fate == .destroyed }
        if let first = broken.first { return change(leader, .remove(first)) }
        // A removal that is not committed may be taken back.
        let agreed = checker.membership.membership
        lost = lost.filter { (agreed.contains($0) || membership.contains($0)) && members[$0]?.fate != .present }
        if !lost.isEmpty || isHealing { return }
        if members.values.contains(where: { rotten.contains($0.id) && !$0.isUp && $0.fate == .present }) { return }
        guard let operation = options.operations.randomElement(using: &random) else { return }
        switch operation {
        case .transfer:
            let target = Bool.random(using: &random) ? nil : membership.voters.randomElement(using: &random)
            note("operators ask \(leader.id) to hand on to \(target ?? 0)")
            feed(leader, .transfer(token: leader.token(), to: target))
        case .addLearner, .replace:
            let waiting = roster.filter {
                $0.fate == .present && !membership.contains($0.id) && !everRemoved.contains($0.id)
            }
            if let first = waiting.first { return change(leader, .addLearner(first.id)) }
            guard membership.members.count < 6, roster.count < Self.slotsMax else { return }
            let id = (random.next() >> 40) &* 256 + UInt64(roster.count + 1)
            do { try addMember(id) } catch { pendingViolation = error as? Violation ?? Violation(.noTrap, "\(error)") }
            change(leader, .addLearner(id))
        case .promote:
            if let learner = membership.learners.randomElement(using: &random) { change(leader, .promote(learner)) }
        case .demote:
            guard membership.voters.count > 2 || random.oneIn(4) else { return }
            if let voter = membership.voters.randomElement(using: &random) { change(leader, .demote(voter)) }
        case .remove:
            guard membership.voters.count > 2 || random.oneIn(4) else { return }
            let victim = random.oneIn(3) ? leader.id : membership.members.randomElement(using: &random)
            if let victim { change(leader, .remove(victim)) }
        case .readd:
            if let id = everRemoved.sorted().randomElement(using: &random) { change(leader, .addLearner(id)) }
        }
    }

    /// Members the cluster agreed to be without are switched off, some time after.
    private func retireRemoved() {
        for member in roster where member.fate == .present {
            guard checker.membership.membership.removed.contains(member.id) else { continue }
            everRemoved.insert(member.id)
            if random.oneIn(3) {
                member.fate = .retired
                stop(member, powerCut: false)
                note("\(member.id) is switched off")
            }
        }
    }

    // MARK: - Healing

    /// All faults end: the cluster must elect, finish what was asked, and become equal.
    func heal() throws {
        isHealing = true
        note("healing begins")
        healNetwork()
        cloggedUntil = [UInt64](repeating: 0, count: cloggedUntil.count)
        for member in roster where member.fate == .present {
            member.tickFactorPerMille = 1_000
            member.pausedUntil = 0
            member.disk.capacityBytes = .max
            member.disk.failingSyncs = 0
            member.disk.crashAfter = nil
            if !member.isUp { try restart(member) }
        }
        let timeout = options.tick * UInt64(options.electionTicks) * 2
        // What was under way may take as long as it takes: slow disks and late messages are no fault.
        let slack = options.tail * 3 + options.diskDelay * 400 + options.applyDelay * 400 + 3_000_000
        guard try advance(limit: now + slack + 10 * timeout, until: { self.leading?.raft?.isReady == true }) else {
            throw Violation(.electsLeader, "nobody leads \(10 * timeout / 1_000_000) s after healing: \(standing)")
        }
        guard try advance(limit: now + slack + 20 * timeout, until: { self.clients.allSatisfy { $0.request == nil } })
        else { throw Violation(.finishes, "operations hang: \(clients.compactMap(\.request)) \(standing)") }
        var progress = -1
        while try !advance(limit: now + slack + 20 * timeout, until: { self.difference == nil }) {
            // Many that lack much may share one slow disk: as long as they come nearer, they converge.
            let reached = roster.reduce(0) { $0 + Int($1.state.applied.index) }
            guard reached > progress else { throw Violation(.converges, "\(difference ?? ""): \(standing)") }
            progress = reached
        }
        try checkHistory()
        try checkHandover()
        try settleStates()
    }

    /// In a healthy cluster leadership can be handed on while writes keep coming.
    private func checkHandover() throws {
        let voters = checker.membership.membership.voters.compactMap { members[$0] }.filter(\.isUp)
        guard voters.count >= 2, voters.count == checker.membership.membership.voters.count,
            max(options.delay, options.diskDelay, options.applyDelay) <= 2_000, options.inboxDelay <= 500
        else { return }
        let before = transferred
        let attempt = options.tick * UInt64(options.electionTicks) * 5
        plan(.load(until: now + 5 * attempt), after: 1)
        for _ in 0..<5 where transferred == before {
            // One that was asked for before may be on its way, so that nobody leads for a moment.
            try advance(limit: now + attempt, until: { self.leading?.raft?.isReady == true })
            guard let leader = leading else { continue }
            feed(leader, .transfer(token: leader.token(), to: nil))
            try advance(limit: now + attempt, until: { self.transferred > before })
        }
        guard transferred == before else { return }
        throw Violation(.handsOn, "five transfers under load come to nothing: \(standing)")
    }

    var standing: String {
        roster.map { member in
            guard let raft = member.raft else { return "\(member.id) \(member.fate)" }
            return
                "\(member.id) \(raft.role) term \(raft.term) last \(raft.lastPosition.index) commit \(raft.commitIndex) "
                + "applied \(member.state.applied.index) membership \(raft.membership.membership.voters)"
        }.joined(separator: "; ")
    }

    /// What still differs among those who should be equal.
    private var difference: String? {
        let present = checker.membership.membership.members.compactMap { members[$0] }.filter { $0.fate == .present }
        guard let last = present.compactMap({ $0.raft?.lastPosition.index }).max() else { return "nobody is up" }
        for member in present where !member.isUp || member.state.applied.index != last {
            return "\(member.id) has applied \(member.state.applied.index) of \(last)"
        }
        guard checker.commitIndex == last else { return "\(checker.commitIndex) of \(last) is committed" }
        return nil
    }

    private func checkHistory() throws {
        for member in roster where member.isUp {
            try checker.compare(member.state, member)
            if let real = member.real { try checker.digested(real.digest(), of: member) }
        }
        switch Linearizability.check(checker.history, initial: 0, stepsMax: 300_000) {
        case .linearizable, .undecided: break
        case .violated(let key, let detail): throw Violation(.linearizable, "key \(key): \(detail)")
        }
    }
}
