// SPDX-License-Identifier: Apache-2.0

internal import Model
internal import Raft
internal import Store
internal import TestSupport

/// What is known of a run from outside all members: the true log, who led when, what clients were told.
struct Checker {
    struct Committed {
        var position: LogPosition
        /// Term of the member that knew of it first: the leader that committed it.
        var term: UInt64
    }

    private struct Known: Equatable {
        var content: Int
        var previousTerm: UInt64
    }

    struct Canonical {
        var chain: UInt64
        var digest: UInt64?
    }

    /// Committed entries from index 1 on.
    private(set) var committed: [Committed] = []
    private(set) var leaders: [UInt64: MemberID] = [:]
    private var entries: [LogPosition: Known] = [:]
    private var votes: [UInt64: [MemberID: MemberID]] = [:]
    /// States by index, from 1 on.
    private(set) var states: [Canonical] = []
    /// Values of each key and the index since which they hold, ascending.
    private(set) var values: [[(index: UInt64, value: UInt64)]]
    private(set) var events: [ModelState.Event] = []
    /// What the product's state did at each index from 1 on, and its events in order.
    private var steps: [RealState.Step] = []
    private var realEvents: [StateEvent] = []
    private var realDigests: [UInt64: StateDigest] = [:]
    private(set) var effects: [UInt64: ModelState.Answer] = [:]
    /// Highest index acknowledged to a client.
    private(set) var acknowledged: UInt64 = 0
    private(set) var membership: ConfigurationPoint
    private var removed: Set<MemberID> = []
    var history: [HistoryOperation<UInt64>] = []
    /// What each member said of its state at an index, every time it was there.
    private var digests: [UInt64: [MemberID: Set<[UInt8]>]] = [:]

    init(founding: Membership) {
        membership = ConfigurationPoint(index: 0, membership: founding)
        values = Array(repeating: [(0, 0)], count: ModelState.keysMax)
    }

    var commitIndex: UInt64 { UInt64(committed.count) }

    // MARK: - Logs

    /// An entry comes into a log, after one of `previousTerm`.
    mutating func appended(_ entry: Entry, previousTerm: UInt64, by member: Member) throws {
        let known = Known(content: entry.payload.hashed(entry.kind.rawValue), previousTerm: previousTerm)
        guard let earlier = entries.updateValue(known, forKey: entry.position) else {
            if entry.kind == .configuration { try membershipAppended(entry, by: member) }
            return
        }
        if earlier != known {
            throw Violation(.logMatching, "\(member.id) holds another entry at \(entry.position) than others do")
        }
    }

    /// A leader makes a new membership: everything before must be settled.
    private func membershipAppended(_ entry: Entry, by member: Member) throws {
        guard let membership = Membership(decoding: entry.payload) else { return }
        // Committed in this very step, it is not in the book yet.
        let commit = max(member.commitSeen, member.raft?.commitIndex ?? 0)
        guard committed.last?.term ?? 0 >= entry.term || member.written.term(at: commit) == entry.term else {
            throw Violation(
                .membershipsOverlap,
                "\(member.id) changes to \(membership) at \(entry.position) before it committed anything in its term")
        }
    }

    mutating func stepped(_ member: Member, _ raft: RaftNode) throws {
        if raft.isLeader { try leads(member, raft) }
        guard raft.commitIndex > member.commitSeen else { return }
        for index in member.commitSeen + 1...raft.commitIndex { try commits(index, member, raft) }
        member.commitSeen = raft.commitIndex
    }

    private mutating func leads(_ member: Member, _ raft: RaftNode) throws {
        if let other = leaders[raft.term] {
            if other == member.id { return }
            throw Violation(.oneLeader, "\(member.id) and \(other) both lead in term \(raft.term)")
        }
        leaders[raft.term] = member.id
        // Later leaders may have committed more by the time an old vote arrives.
        guard let last = committed.last(where: { $0.term < raft.term }) else { return }
        let term = member.written.term(at: last.position.index)
        if term != last.position.term {
            throw Violation(
                .leaderCompleteness,
                "\(member.id) leads in term \(raft.term) with term \(term ?? 0) at committed \(last.position)")
        }
    }

    private mutating func commits(_ index: UInt64, _ member: Member, _ raft: RaftNode) throws {
        guard let term = member.written.term(at: index) else {
            throw Violation(.committedStays, "\(member.id) calls \(index) committed, its log ends before")
        }
        if index <= commitIndex {
            let known = committed[Int(index) - 1].position
            if known.term != term {
                throw Violation(.committedStays, "\(member.id) has term \(term) at committed \(known)")
            }
            return
        }
        committed.append(Committed(position: LogPosition(index: index, term: term), term: raft.term))
    }

    /// - Parameters:
    ///   - changes: of membership, asked for in this step.
    ///   - members: what their durable logs hold.
    func checkQuorum(
        from start: UInt64, _ member: Member, _ raft: RaftNode, changes: [MembershipChange],
        members: [MemberID: Member]
    ) throws {
        guard start < commitIndex else { return }
        let position = committed[Int(commitIndex) - 1].position
        let current = raft.membership.membership
        func isHeld(by membership: Membership) -> Bool {
            let holders = membership.voters.filter { members[$0]?.durable.term(at: position.index) == position.term }
            return holders.count >= membership.quorum
        }
        guard !isHeld(by: current), let before = member.membershipSeen, !isHeld(by: before) else { return }
        // Made, counted by and taken back in one step.
        for change in changes {
            if case .success(let between) = before.applying(change), isHeld(by: between) { return }
        }
        throw Violation(
            .commitOnQuorum, "\(member.id) commits \(position), which no quorum of \(current.voters) holds durably")
    }

    // MARK: - Promises

    /// A message leaves: what it promises must be on the disk.
    mutating func sends(_ message: Message, _ member: Member) throws {
        let promised = member.durable.hardState
        switch message.body {
        case .preVote, .preVoteReply(granted: true): return
        case .vote:
            try voted(message.term, by: member.id, for: member.id)
            if promised.term == message.term, promised.vote != member.id {
                throw Violation(.votesKept, "\(member.id) stands in \(message.term), its disk says \(promised)")
            }
        case .voteReply(granted: true):
            try voted(message.term, by: member.id, for: message.to)
            if promised.term == message.term, promised.vote != message.to {
                throw Violation(
                    .votesKept, "\(member.id) votes for \(message.to) in \(message.term), its disk says \(promised)")
            }
        case .appendReply(.accepted(let match)):
            let durable = member.durable.term(at: match)
            if durable == nil || member.raft?.term == message.term && durable != member.written.term(at: match) {
                throw Violation(
                    .entriesKept,
                    "\(member.id) acknowledges \(match), its disk ends at \(member.durable.lastIndex) with term \(durable ?? 0)"
                )
            }
        default: break
        }
        if promised.term < message.term {
            throw Violation(.votesKept, "\(member.id) speaks in term \(message.term), its disk says \(promised)")
        }
    }

    private mutating func voted(_ term: UInt64, by member: MemberID, for candidate: MemberID) throws {
        let earlier = votes[term, default: [:]].updateValue(candidate, forKey: member)
        if let earlier, earlier != candidate {
            throw Violation(.votesKept, "\(member) votes for \(earlier) and for \(candidate) in term \(term)")
        }
    }

    // MARK: - States

    mutating func applied(
        _ entry: Entry, _ outcome: ModelState.Applied, to state: ModelState, by member: Member
    ) throws {
        if entry.index <= UInt64(states.count) {
            return try compare(state, member)
        }
        guard entry.index == UInt64(states.count) + 1 else {
            throw Violation(.appliedOnce, "\(member.id) applies \(entry.index) when \(states.count) is the last known")
        }
        guard entry.index <= commitIndex, committed[Int(entry.index) - 1].position == entry.position else {
            throw Violation(.committedStays, "\(member.id) applies \(entry.position), which is not what was committed")
        }
        states.append(Canonical(chain: state.chain, digest: entry.index % 32 == 0 ? state.digest : nil))
        if entry.kind == .configuration { try membershipApplied(state.configuration) }
        guard let answer = outcome.answer,
            let command = try ModelCommand.decoded(entry.payload, isReal: state.isReal)
        else { return }
        if outcome.isRepeated { return }
        if let earlier = effects.updateValue(answer, forKey: command.request) {
            throw Violation(
                .exactlyOnce, "request \(command.request) takes effect at \(earlier.index) and at \(entry.index)")
        }
        if answer.succeeded {
            values[command.key].append((entry.index, command.value))
            events.append(ModelState.Event(index: entry.index, key: command.key, value: command.value))
        }
    }

    /// The product's state took an entry: it did what others' did, and what the model did.
    mutating func applied(_ entry: Entry, _ step: RealState.Step, like model: ModelState.Applied, by member: Member)
        throws
    {
        if entry.index <= UInt64(steps.count) {
            guard steps[Int(entry.index) - 1] != step else { return }
            throw Violation(
                .statesEqual,
                "\(member.id) does \(step) at \(entry.position), others did \(steps[Int(entry.index) - 1])")
        }
        steps.append(step)
        realEvents += step.events
        guard let answer = model.answer else { return }
        let succeeded =
            switch step.applied?.outcome {
            case .done: true
            // The model deletes what is not there.
            case .refused(let problem): problem.code == .notFound
            case nil: false
            }
        if step.applied?.version != answer.index || succeeded != answer.succeeded {
            throw Violation(.statesAgree, "\(member.id) does \(step) at \(entry.position), the model \(answer)")
        }
    }

    mutating func digested(_ digest: StateDigest, of member: Member) throws {
        let known = realDigests[digest.index] ?? digest
        realDigests[digest.index] = known
        if known != digest {
            throw Violation(.statesEqual, "the state of \(member.id) is \(digest), of others \(known)")
        }
    }

    /// A watcher of the product's events.
    func watched(_ given: [StateEvent], after: UInt64, through: UInt64, from member: Member) throws {
        let wanted = realEvents.filter { $0.index > after && $0.index <= through }
        guard given != wanted else { return }
        throw Violation(
            .watchComplete,
            "\(member.id) gives \(given.map(\.index)) after \(after) through \(through), not \(wanted.map(\.index))")
    }

    func compare(_ state: ModelState, _ member: Member) throws {
        guard state.applied.index > 0, state.applied.index <= UInt64(states.count) else { return }
        let known = states[Int(state.applied.index) - 1]
        if known.chain != state.chain || (known.digest.map { $0 != state.digest } ?? false) {
            throw Violation(.statesEqual, "the state of \(member.id) differs at \(state.applied)")
        }
    }

    mutating func compared(_ digest: [UInt8], of member: Member, at index: UInt64) {
        digests[index, default: [:]][member.id, default: []].insert(digest)
    }

    /// A member takes its state for wrong because of what it was at `index`.
    func givesWay(_ member: Member, at index: UInt64, among membership: Membership) throws {
        let known = digests[index] ?? [:]
        let own = known[member.id] ?? []
        let others = known.values.reduce(into: Set<[UInt8]>()) { $0.formUnion($1) }
        let isOutvoted = others.contains { digest in
            let holders = membership.voters.filter { known[$0]?.contains(digest) == true }
            return own != [digest] && holders.count >= membership.quorum
        }
        guard !isOutvoted else { return }
        throw Violation(
            .rightStatesStay,
            "\(member.id) gives up its state at \(index), against which no quorum of \(membership.voters) speaks")
    }

    private mutating func membershipApplied(_ point: ConfigurationPoint) throws {
        let back = point.membership.members.filter { removed.contains($0) }
        if !back.isEmpty { throw Violation(.removedStayOut, "\(back) is a member again at \(point.index)") }
        removed.formUnion(membership.membership.members.filter { !point.membership.contains($0) })
        membership = point
    }

    // MARK: - Clients

    func value(of key: Int, at index: UInt64) -> UInt64 { register(key, at: index).value }

    /// What the register held at `index`, and since when.
    func register(_ key: Int, at index: UInt64) -> (index: UInt64, value: UInt64) {
        var low = 0
        var high = values[key].count
        while high - low > 1 {
            let middle = (low + high) / 2
            if values[key][middle].index <= index { low = middle } else { high = middle }
        }
        return values[key][low]
    }

    mutating func answered(_ request: Request, _ reply: Reply) throws {
        switch (request.operation, reply) {
        case (.write(let command), .written(let answer)):
            if effects[command.request] != answer {
                throw Violation(
                    .writesKept,
                    "request \(command.request) is answered \(answer), the log says \(String(describing: effects[command.request]))"
                )
            }
            acknowledged = max(acknowledged, answer.index)
        case (.read(let key), .read(let value, let index)):
            if index < request.acknowledged || value != self.value(of: key, at: index) {
                throw Violation(
                    .readsCurrent,
                    "a read of key \(key) at \(request.to) shows index \(index), \(request.acknowledged) was acknowledged before"
                )
            }
            acknowledged = max(acknowledged, values[key].last { $0.index <= index }?.index ?? 0)
        case (.staleRead(let key), .read(let value, let index)):
            if value != self.value(of: key, at: index) {
                throw Violation(.staleReadsTrue, "key \(key) at \(request.to) and index \(index) reads \(value)")
            }
        default: break
        }
    }

    /// A watcher that was at `after` is given events up to `through`.
    func watched(_ given: [ModelState.Event], after: UInt64, through: UInt64, from member: Member) throws {
        var low = 0
        var high = events.count
        while low < high {
            let middle = (low + high) / 2
            if events[middle].index <= after { low = middle + 1 } else { high = middle }
        }
        let wanted = events[low...].prefix { $0.index <= through }
        if !given.elementsEqual(wanted) {
            throw Violation(
                .watchComplete,
                "\(member.id) gives \(given.map(\.index)) after \(after) through \(through), not \(wanted.map(\.index))"
            )
        }
    }
}

extension [UInt8] {
    /// The same in every process.
    func hashed(_ salt: UInt8) -> Int {
        var sum: UInt64 = 0xCBF2_9CE4_8422_2325 ^ UInt64(salt)
        for byte in self { sum = (sum ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return Int(truncatingIfNeeded: sum)
    }
}
