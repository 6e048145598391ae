// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import Store
internal import TestSupport

/// A cluster of whole members on one virtual clock: everything that happens follows from the seed.
///
/// First comes trouble for some seconds of virtual time, then everything is healed and the cluster must come to rest:
/// a leader, every operation finished, all members equal. Invariants are checked after every step.
final class Cluster {
    let seed: UInt64
    let options: Options
    var random: SeededRandom
    var now: UInt64 = 0
    private(set) var steps = 0
    private(set) var trace: UInt64 = 0
    /// Prints what happens.
    let prints: Bool

    var queue = EventQueue<Event>()
    var members: [MemberID: Member] = [:]
    /// In the order they were made: whatever goes over all members goes by it.
    var roster: [Member] = []
    let founding: Membership
    var checker: Checker
    var isHealing = false

    // Network, by slots.
    static let slotsMax = 24
    /// A run that takes more has gone wild.
    static let stepsMax = 2_000_000
    var blocked: [Bool]
    var cloggedUntil: [UInt64]
    var partition = 0
    var isPartitioned = false

    // Snapshots on their way.
    struct Stream {
        var from: MemberID
        var fromLife: Int
        var to: MemberID
        var toLife: Int
        var term: UInt64
        var meta: SnapshotMeta
        var state: ModelState
        var chunks: Int
        var retries = 0
        var isOver = false
    }
    var streams: [Stream] = []

    // Users.
    var clients: [Client] = []
    var watchers: [Watcher] = []
    var nextRequest: UInt64 = 0
    var nextValue: UInt64 = 0
    var transferred = 0
    var lastTransferToken: UInt64 = 0
    /// Members whose disk was made to rot.
    var rotten: Set<MemberID> = []
    /// The one whose disk is gone and that still has to be replaced.
    var lost: Set<MemberID> = []
    /// Found where nothing can be thrown.
    var pendingViolation: Violation?
    /// Members the operators removed.
    var everRemoved: Set<MemberID> = []

    init(seed: UInt64, prints: Bool = false) {
        self.seed = seed
        self.prints = prints
        let options = Options(seed: seed)
        self.options = options
        random = SeededRandom(seed: seed)
        let ids = (0..<options.voters).map { UInt64($0 + 1) }
        founding = Membership(voters: ids)
        checker = Checker(founding: founding)
        blocked = [Bool](repeating: false, count: Self.slotsMax * Self.slotsMax)
        cloggedUntil = [UInt64](repeating: 0, count: Self.slotsMax * Self.slotsMax)
    }

    /// - Throws: `Violation`.
    func run() throws {
        for id in founding.voters { try addMember(id) }
        clients = Array(repeating: Client(), count: options.clients)
        watchers = Array(repeating: Watcher(), count: options.watchers)
        for client in clients.indices { plan(.client(client, attempt: 0), after: delay(options.thinking)) }
        for watcher in watchers.indices { plan(.watch(watcher), after: delay(200_000)) }
        if !options.faults.isEmpty { plan(.fault, after: delay(options.faultPause)) }
        if !options.operations.isEmpty { plan(.operate, after: delay(options.operationPause)) }
        if options.isReal { plan(.compare, after: delay(500_000)) }
        if options.comparedEvery > 0 { plan(.rotState, after: delay(2_000_000)) }
        try advance { self.now >= self.options.duration }
        try heal()
    }

    /// Runs until the condition holds; false when the time limit came first.
    @discardableResult
    func advance(limit: UInt64 = .max, until isDone: () throws -> Bool) throws -> Bool {
        while try !isDone() {
            guard let time = queue.nextTime, time <= limit, let next = queue.take() else { return false }
            now = max(now, next.time)
            steps += 1
            guard steps < Self.stepsMax else { throw Violation(.finishes, "\(steps) steps and no end: \(standing)") }
            try handle(next.event)
            if let pendingViolation { throw pendingViolation }
        }
        return true
    }

    func plan(_ event: Event, after delay: UInt64) { queue.put(event, at: now + delay) }

    /// Around `mean`, never zero.
    func delay(_ mean: UInt64) -> UInt64 { UInt64.random(in: 1...max(1, mean * 2), using: &random) }

    func perMille(_ share: Int) -> Bool { share > 0 && Int.random(in: 0..<1_000, using: &random) < share }

    func note(_ what: @autoclosure () -> String) {
        if prints { say("\(now / 1_000).\(now / 100 % 10) ms  \(what())") }
    }

    private func record(_ kind: UInt64, _ who: UInt64, _ what: UInt64 = 0) {
        trace = mix(trace, now, kind << 32 | who, what)
    }

    // MARK: - Events

    private func handle(_ event: Event) throws {
        switch event {
        case .tick(let member, let life):
            guard member.isUp, member.life == life else { return }
            record(1, member.id)
            let interval = options.tick * member.tickFactorPerMille / 1_000
            if member.pausedUntil > now {
                plan(event, after: member.pausedUntil - now)
            } else {
                plan(event, after: interval)
                feed(member, .tick)
            }
        case .run(let member, let life):
            guard member.isUp, member.life == life else { return }
            if member.pausedUntil > now { return plan(event, after: member.pausedUntil - now) }
            member.isRunPlanned = false
            try step(member)
        case .disk(let member, let life):
            guard member.isUp, member.life == life else { return }
            if member.pausedUntil > now { return plan(event, after: member.pausedUntil - now) }
            record(2, member.id, member.written.lastIndex)
            try diskDone(member)
        case .apply(let member, let life):
            guard member.isUp, member.life == life else { return }
            if member.pausedUntil > now { return plan(event, after: member.pausedUntil - now) }
            try apply(member)
        case .restart(let member): try restart(member)
        case .deliver(let message):
            record(3, message.to, message.term)
            try deliver(message)
        case .chunk(let stream): deliverChunk(stream)
        case .stall(let stream): endStream(stream, succeeded: false)
        case .client(let client, let attempt): try wake(client, attempt)
        case .request(let request): try take(request)
        case .reply(let request, let reply): try answer(request, reply)
        case .watch(let watcher): try watch(watcher)
        case .digest(let from, let to, let index, let digest): try takeDigest(digest, from: from, to: to, at: index)
        case .replace(let member, let life):
            guard member.isUp, member.life == life else { return }
            try replaceState(of: member)
        case .compare: try proposeComparison()
        case .rotState: rotState()
        case .load(let until): try load(until: until)
        case .operate: operate()
        case .fault: try causeFault()
        case .fall(let member, let life):
            guard member.isUp, member.life == life, member.raft?.isLeader == true else { return }
            fall(member)
        case .silence(let member, let number, let end):
            if number == partition, !isHealing { silence(member, until: end) }
        case .heal(let number):
            if number == partition { healNetwork() }
        }
    }

    // MARK: - Core

    /// Puts an input into the member's inbox; it is taken with whatever else is there by then.
    func feed(_ member: Member, _ input: Input) {
        guard member.isUp else { return }
        member.inbox.append(input)
        guard !member.isRunPlanned else { return }
        member.isRunPlanned = true
        let wait = options.inboxDelay == 0 ? 0 : UInt64.random(in: 0...options.inboxDelay * 2, using: &random)
        plan(.run(member, life: member.life), after: wait)
    }

    private func step(_ member: Member) throws {
        let inputs = member.inbox
        member.inbox = []
        guard !inputs.isEmpty, member.raft != nil else { return }
        let commitBefore = checker.commitIndex
        guard let output = member.raft?.step(inputs), let raft = member.raft else { return }
        record(4, member.id, raft.term << 32 ^ raft.commitIndex)
        if let change = output.roleChange {
            note("\(member.id) is \(change.role) in term \(change.term), leader \(change.leader ?? 0)")
            if options.leadersFall, raft.isLeader, !raft.isReady {
                plan(.fall(member, life: member.life), after: delay(options.delay * 2 + options.diskDelay))
            }
            if options.leadersFreeze, raft.isLeader, raft.isReady {
                plan(.fall(member, life: member.life), after: delay(500_000))
            }
        }
        if let write = output.write { try submit(write, member) }
        try checker.stepped(member, raft)
        let changes = inputs.compactMap { input -> MembershipChange? in
            if case .changeMembership(_, let change) = input { change } else { nil }
        }
        try checker.checkQuorum(from: commitBefore, member, raft, changes: changes, members: members)
        member.membershipSeen = raft.membership.membership
        for message in output.sends { try send(message, from: member) }
        if let committed = output.committed {
            member.applyQueue.append(committed)
            planApply(member)
        }
        if let install = output.install { member.jobs.append(.install(install)) }
        if let index = output.compact { member.jobs.append(.compact(index)) }
        for case .snapshotReceived(_, _, let meta, _) in inputs where output.install == nil {
            if raft.commitIndex >= meta.position.index { snapshotTaken(meta, by: member) }
        }
        for load in output.loads { member.jobs.append(.load(load)) }
        for target in output.snapshots { try beginStream(from: member, to: target, term: raft.term) }
        for accepted in output.accepted {
            guard let request = member.proposals.removeValue(forKey: accepted.token) else { continue }
            member.proposed[accepted.position.index, default: []].append(
                Member.Proposed(request: request, term: accepted.position.term))
        }
        for refused in output.refused {
            guard let request = member.proposals.removeValue(forKey: refused.token) else {
                note("\(member.id) refuses \(refused.reason)")
                continue
            }
            if case .notLeader(let leader) = refused.reason {
                reply(request, .refused(leader: leader))
            } else {
                reply(request, .refused(leader: member.id))
            }
        }
        for read in output.reads {
            guard let request = member.reads.removeValue(forKey: read.token) else { continue }
            guard let index = read.index else {
                reply(request, .refused(leader: raft.leader))
                continue
            }
            member.readsWaiting.append((index, request))
        }
        for result in output.transfers {
            note("\(member.id) transfer: \(result.outcome)")
            if case .transferred(let target) = result.outcome, target != member.id { transferred += 1 }
        }
        if let point = output.membership { note("\(member.id) has \(point)") }
        try answerReads(member)
        try startDisk(member)
    }

    private func submit(_ write: Write, _ member: Member) throws {
        if write.changesLog {
            var before = member.written
            if let from = write.truncateFrom, from <= before.lastIndex + 1 {
                before.terms.removeSubrange(Int(from) - 1..<before.terms.count)
            }
            var previous = before.terms.last ?? 0
            for (place, entry) in write.entries.enumerated() {
                guard entry.index == before.lastIndex + 1 + UInt64(place) else {
                    throw Violation(.logMatching, "\(member.id) writes \(entry.position) after \(before.lastIndex)")
                }
                try checker.appended(entry, previousTerm: previous, by: member)
                previous = entry.term
            }
            note("\(member.id) writes \(describe(write))")
            member.written.add(write)
        }
        member.jobs += pieces(write).map { .write($0) }
    }

    private func describe(_ write: Write) -> String {
        var parts: [String] = []
        if let state = write.hardState {
            parts.append("term \(state.term) vote \(state.vote ?? 0) commit \(state.commit)")
        }
        if let from = write.truncateFrom { parts.append("cut from \(from)") }
        if let first = write.entries.first, let last = write.entries.last {
            parts.append("entries \(first.position)...\(last.position)")
        }
        return parts.joined(separator: ", ")
    }

    // MARK: - Apply

    private func planApply(_ member: Member) {
        guard !member.isApplying, !member.applyQueue.isEmpty else { return }
        member.isApplying = true
        plan(.apply(member, life: member.life), after: delay(options.applyDelay))
    }

    private func apply(_ member: Member) throws {
        member.isApplying = false
        guard !member.applyQueue.isEmpty, let log = member.log else { return }
        let batch = member.applyQueue.removeFirst()
        var entries: [Entry] = []
        if !batch.fromLog.isEmpty {
            do {
                entries = try log.entries(batch.fromLog, bytesMax: .max)
            } catch {
                if member.disk.isCrashed { return stop(member, powerCut: true) }
                throw Violation(.entriesKept, "\(member.id) cannot read committed \(batch.fromLog): \(error)")
            }
        }
        entries += batch.entries
        var steps: [RealState.Step] = []
        if let real = member.real {
            let (done, digests) = try real.apply(entries)
            steps = done
            for digest in digests { try checker.digested(digest, of: member) }
        }
        for (place, entry) in entries.enumerated() {
            guard entry.index == member.state.applied.index + 1 else {
                throw Violation(
                    .appliedOnce, "\(member.id) is to apply \(entry.position) after \(member.state.applied)")
            }
            let outcome = try member.state.apply(entry, clock: now)
            try checker.applied(entry, outcome, to: member.state, by: member)
            if !steps.isEmpty { try checker.applied(entry, steps[place], like: outcome, by: member) }
            if options.comparedEvery > 0, entry.index % options.comparedEvery == 0 { try compareState(of: member) }
            for proposed in member.proposed.removeValue(forKey: entry.index) ?? [] {
                if proposed.term == entry.term, let answer = outcome.answer {
                    reply(proposed.request, .written(answer))
                } else {
                    reply(proposed.request, .refused(leader: nil))
                }
            }
        }
        feed(member, .applied(member.state.applied.index))
        try answerReads(member)
        try checkpoint(member)
        planApply(member)
        try startDisk(member)
    }

    private func answerReads(_ member: Member) throws {
        guard !member.readsWaiting.isEmpty else { return }
        let applied = member.state.applied.index
        for waiting in member.readsWaiting where waiting.index <= applied { try answerRead(waiting.request, member) }
        member.readsWaiting.removeAll { $0.index <= applied }
    }

    func answerRead(_ request: Request, _ member: Member) throws {
        switch request.operation {
        case .read(let key), .staleRead(let key):
            if let real = member.real {
                let (value, index) = try real.value(of: key)
                return reply(request, .read(value: value, index: index))
            }
            reply(request, .read(value: member.state.values[key], index: member.state.applied.index))
        case .write: break
        }
    }

    /// The state as it is, the product's with it.
    func putAside(_ member: Member) throws -> ModelState {
        var state = member.state
        if let real = member.real { state.image = try real.image() }
        return state
    }

    /// Makes the state durable now and then, and cuts the log below it.
    private func checkpoint(_ member: Member) throws {
        let applied = member.state.applied.index
        guard applied >= member.durableState.applied.index + UInt64(options.checkpointEntries) else {
            if random.oneIn(20) { member.betweenState = try putAside(member) }
            return
        }
        let before = member.durableState
        member.durableState = try putAside(member)
        let cut = member.durableState.applied.index
        if Planted.isActive(.logCutAboveState) { member.durableState = before }
        member.betweenState = nil
        if cut > options.keptInLog { feed(member, .compact(through: cut - options.keptInLog)) }
    }
}
