// SPDX-License-Identifier: Apache-2.0

/// One member of the replicated log: elections, replication, commitment, membership and reads, without I/O, clock or lock.
///
/// A value with one owner, who feeds inputs and carries out outputs in order. The rules it stands on:
/// - what depends on a term, a vote or an entry leaves only when that is durable (`Write.unlocks`); a leader sends entries
///   while its own disk works and counts itself when told that they are durable;
/// - a leader commits by counting only entries of its own term, all earlier ones with them;
/// - a receipt or an answer counts only if the log still holds that term at that index;
/// - memberships change one step at a time and count from the moment they are appended.
///
/// Split by subject: elections in `Election.swift`, the leader's side of the log in `Replication.swift`, the follower's in
/// `Following.swift`, members and leadership in `MembershipSteps.swift`, reads in `Reading.swift`.
///
/// Source: Ongaro, "Consensus: Bridging Theory and Practice", 3, 4, 6.4, 9.6, 10.2.1.
public struct RaftNode: Sendable {
    public struct Configuration: Sendable {
        public var id: MemberID
        /// Of the election timeouts; different for each member and start.
        public var seed: UInt64 = 0
        /// An election begins after this many silent ticks at least, twice as many at most. Also how long a leader goes on
        /// without a quorum.
        public var electionTicks = 20
        public var heartbeatTicks = 2
        /// Entries of one append, in bytes of memory; a larger entry goes alone.
        public var appendBytesMax = 1 << 20
        /// Appends to one member not yet answered.
        public var inFlightMax = 64
        /// Bound on entries not yet committed and applied, in bytes of memory (payload plus 64 each).
        public var unappliedBytesMax = 16 << 20
        /// Bound on the same, in entries.
        public var unappliedEntriesMax = 5_000
        /// Largest payload of one entry, in bytes.
        public var entryBytesMax = 1 << 20
        /// Applied entries kept in memory for members that are a little behind.
        public var keptEntriesMax = 2_000
        public var keptBytesMax = 2 << 20
        /// A learner may become a voter when it lacks no more entries than these.
        public var promotionLagMax: UInt64 = 100

        public init(id: MemberID) {
            self.id = id
        }
    }

    public enum Role: Hashable, Sendable {
        case follower
        /// Asks whether it would be elected.
        case preCandidate
        case candidate
        /// `firstIndex`: the entry of its own term with which it began.
        case leader(firstIndex: UInt64)
    }

    public let configuration: Configuration
    public internal(set) var role = Role.follower
    public internal(set) var term: UInt64
    /// Whom this member follows; itself when it leads.
    public internal(set) var leader: MemberID?
    public internal(set) var commitIndex: UInt64
    public internal(set) var appliedIndex: UInt64
    /// Highest index known to be durable here.
    public internal(set) var durableIndex: UInt64

    var log: LogTail
    var vote: MemberID?
    /// Committed membership and at most a few after it, ascending; the last one counts.
    var configurations: [ConfigurationPoint]
    /// Highest committed and durable index given out to be applied.
    var handedOut: UInt64
    /// Footprint of entries in the log and not applied, in bytes.
    var unappliedBytes = 0
    var installing: Install?

    // What is durable.
    var written: HardState
    var durableHardState: HardState
    var hardStatesUnderWay: [(sequence: UInt64, state: HardState)] = []
    /// Written and not yet durable: what lies at or beyond them on the disk is about to go.
    var truncationsUnderWay: [(sequence: UInt64, from: UInt64)] = []
    var sequence: UInt64 = 0
    var persistedSequence: UInt64 = 0

    // Time, in ticks.
    var random: SplitMix
    var silentTicks = 0
    var electionTimeout = 0
    var heartbeatAge = 0
    /// Heartbeats sent because it was time for one, since this member leads.
    var beats: UInt64 = 0

    // Of candidates and leaders.
    var votes: [MemberID: Bool] = [:]
    var progress: [MemberID: Progress] = [:]
    var transfer: Transfer?
    var readIndex = ReadIndex()
    var forwardedReads: ForwardedReads

    /// Of the step under way.
    var staged = Staged()
    private var announced: RoleChange?

    /// - Parameters:
    ///   - hardState: as recovered from the log, durable.
    ///   - log: ends of the durable log as recovered.
    ///   - termStarts: the first entry of each term in the log, ascending.
    ///   - appliedIndex: what the state machine holds already; in `log.base.index ... log.last.index`.
    ///   - configurations: the membership in force at `appliedIndex` or before, then those of later entries in the log.
    public init(
        configuration: Configuration,
        hardState: HardState,
        log: LogExtent,
        termStarts: [LogPosition] = [],
        appliedIndex: UInt64,
        configurations: [ConfigurationPoint]
    ) {
        precondition(configuration.id != 0, "member id 0 is reserved")
        precondition(!configurations.isEmpty, "a member needs a membership")
        precondition(log.last.term <= hardState.term, "log ends at \(log.last), hard state is \(hardState)")
        precondition(
            log.base.index <= appliedIndex && appliedIndex <= log.last.index && hardState.commit <= log.last.index,
            "applied \(appliedIndex) and commit \(hardState.commit) do not fit the log \(log.base) to \(log.last)"
        )
        self.configuration = configuration
        self.configurations = configurations.sorted { $0.index < $1.index }
        term = hardState.term
        vote = hardState.vote
        written = hardState
        durableHardState = hardState
        commitIndex = max(hardState.commit, appliedIndex)
        self.appliedIndex = appliedIndex
        handedOut = appliedIndex
        durableIndex = log.last.index
        self.log = LogTail(terms: TermMap(extent: log, starts: termStarts))
        random = SplitMix(seed: configuration.seed ^ configuration.id &* 0x9E37_79B9_7F4A_7C15)
        // An answer to a question of an earlier run must not pass for one of this run.
        forwardedReads = ForwardedReads(after: Planted.isActive(.readNumbersRepeat) ? 0 : random.next() >> 1)
        resetElectionTimer()
    }

    public var id: MemberID { configuration.id }
    public var lastPosition: LogPosition { log.last }
    public var basePosition: LogPosition { log.base }
    /// The membership that counts, committed or not.
    public var membership: ConfigurationPoint { configurations[configurations.count - 1] }
    var members: Membership { membership.membership }
    /// The newest membership known to be committed.
    var committedMembers: Membership {
        (configurations.last { $0.index <= commitIndex } ?? configurations[0]).membership
    }

    public var isLeader: Bool { if case .leader = role { true } else { false } }

    /// A leader that has committed an entry of its own term: only then does `commitIndex` cover everything any earlier
    /// leader acknowledged, so that a read at it is current.
    public var isReady: Bool {
        if case .leader(let firstIndex) = role { commitIndex >= firstIndex } else { false }
    }

    /// Takes one input and says what follows from it.
    public mutating func step(_ input: Input) -> Output { step([input]) }

    /// Takes inputs in order and says what follows from all of them: one write, one append per member.
    /// Cost: O(entries touched + members).
    public mutating func step(_ inputs: [Input]) -> Output {
        for input in inputs { take(input) }
        beginReads()
        sendNews()
        handOutCommitted()
        return finish()
    }

    private mutating func take(_ input: Input) {
        switch input {
        case .tick: tick()
        case .message(let message): receive(message)
        case .unreachable(let member): lost(member)
        case .propose(let proposals): propose(proposals)
        case .read(let token): read(token)
        case .persisted(let receipt): persisted(receipt)
        case .applied(let index): applied(index)
        case .loaded(let member, let entries): loaded(for: member, entries)
        case .compact(let index): compact(through: min(index, appliedIndex))
        case .snapshotSent(let member, let meta, let succeeded): snapshotSent(to: member, meta, succeeded: succeeded)
        case .snapshotReceived(let from, let term, let meta, let replaces):
            snapshotReceived(from: from, term: term, meta, replacesState: replaces)
        case .installed(let install): installed(install)
        case .changeMembership(let token, let change): changeMembership(token, change)
        case .transfer(let token, let target): beginTransfer(token, to: target)
        }
    }

    private mutating func tick() {
        silentTicks += 1
        forwardedReads.tick(limit: configuration.electionTicks, results: &staged.output.reads)
        if isLeader { leaderTick() } else { followerTick() }
    }

    private mutating func receive(_ message: Message) {
        // A removal that is not committed may be taken back, and by nobody but the one it names when that one leads.
        let refusing = Planted.isActive(.removalRefusesLeader) ? members : committedMembers
        guard message.to == id, message.from != id, !refusing.removed.contains(message.from) else { return }
        if message.term > term {
            switch message.body {
            case .preVote: break
            case .preVoteReply(granted: true): break
            case .vote(_, let isTransfer) where !isTransfer && hearsLeader:
                // It cannot hear the leader others hear; its term would only disturb them.
                return
            case .append, .heartbeat, .commit: follow(message.from, term: message.term)
            default: follow(nil, term: message.term)
            }
        } else if message.term < term {
            return answerStale(message)
        }
        progress[message.from]?.isActive = true
        progress[message.from]?.silentTicks = 0
        switch message.body {
        case .preVote(let last): answerPreVote(message, last)
        case .preVoteReply(let granted): preVoteReplied(message, granted)
        case .vote(let last, _): answerVote(message, last)
        case .voteReply(let granted): voteReplied(message, granted)
        case .append(let append): appendReceived(append, from: message.from)
        case .appendReply(let reply): appendReplied(reply, from: message.from)
        case .heartbeat(let heartbeat): heartbeatReceived(heartbeat, from: message.from)
        case .heartbeatReply(let round): heartbeatReplied(round, from: message.from)
        case .commit(let index):
            guard heardFromLeader(message.from) else { return }
            commit(through: min(index, log.last.index))
        case .timeoutNow: timeoutNow(from: message.from)
        case .readIndex(let readID): answerRead(from: message.from, id: readID)
        case .readIndexReply(let readID, let index):
            forwardedReads.answered(readID, index: index, results: &staged.output.reads)
        }
    }

    // MARK: - Durability

    private mutating func persisted(_ receipt: Receipt) {
        persistedSequence = max(persistedSequence, receipt.sequence)
        while let first = hardStatesUnderWay.first, first.sequence <= persistedSequence {
            durableHardState = first.state
            hardStatesUnderWay.removeFirst()
        }
        truncationsUnderWay.removeAll { $0.sequence <= persistedSequence }
        if let last = receipt.last, log.holds(last) || Planted.isActive(.lateReceiptCounts) {
            // A truncation that is not on the disk yet may come after this receipt's entries and before equal ones.
            let limit = Planted.isActive(.lateReceiptCounts) ? nil : truncationsUnderWay.map(\.from).min()
            durableIndex = max(durableIndex, min(last.index, log.last.index, (limit ?? .max) - 1))
        }
        switch role {
        case .leader: advanceCommit()
        case .candidate where durableHardState.term == term && durableHardState.vote == id: count(vote: true, of: id)
        default: break
        }
    }

    private mutating func applied(_ index: UInt64) {
        guard index > appliedIndex else { return }
        precondition(index <= handedOut, "applied \(index), but only \(handedOut) was given out")
        unappliedBytes = max(0, unappliedBytes - log.footprintBytes(of: appliedIndex + 1...index))
        appliedIndex = index
        log.release(
            through: index, keepingEntries: configuration.keptEntriesMax, keepingBytes: configuration.keptBytesMax)
        // Memberships before the committed one can no longer come back.
        while configurations.count > 1,
            configurations[1].index <= appliedIndex || Planted.isActive(.rollbackLost)
        { configurations.removeFirst() }
    }

    /// Only what is durable here, too: were the state ahead of the log after a crash, the log would look cut.
    private mutating func handOutCommitted() {
        let end = Planted.isActive(.appliesBeforeDurable) ? commitIndex : min(commitIndex, durableIndex)
        guard end > handedOut, installing == nil else { return }
        let start = handedOut + 1
        let held = min(max(start, log.memoryStart), end + 1)
        staged.output.committed = Committed(
            fromLog: start..<held,
            entries: Array(log.slice(held..<end + 1))
        )
        handedOut = end
    }

    // MARK: - One step's output

    /// Messages and entries gathered during a step; what may go when is decided at its end.
    struct Staged: Sendable {
        var output = Output()
        var entries: [Entry] = []
        var truncateFrom: UInt64?
        /// Need the hard state that is in force now.
        var messages: [Message] = []
        /// Speak of entries that may not be durable yet.
        var acknowledgements: [Message] = []
    }

    mutating func send(_ body: Message.Body, to member: MemberID) {
        staged.messages.append(Message(from: id, to: member, term: term, body: body))
    }

    mutating func acknowledge(_ match: UInt64, to member: MemberID) {
        let message = Message(from: id, to: member, term: term, body: .appendReply(.accepted(match: match)))
        if match <= durableIndex || Planted.isActive(.ackBeforeSync) {
            staged.messages.append(message)
        } else {
            staged.acknowledgements.append(message)
        }
    }

    mutating func append(_ entry: Entry) {
        log.append(entry)
        unappliedBytes += entry.footprintBytes
        staged.entries.append(entry)
        if entry.kind == .configuration, let membership = Membership(decoding: entry.payload) {
            configurations.append(ConfigurationPoint(index: entry.index, membership: membership))
            membershipChanged()
        }
    }

    /// Drops entries from `index` on, those of this step included.
    mutating func truncate(from index: UInt64) {
        precondition(index > commitIndex, "entry \(index) is committed (\(commitIndex)) and must not be dropped")
        unappliedBytes = max(0, unappliedBytes - log.footprintBytes(of: index...max(index, log.last.index)))
        log.truncate(from: index)
        durableIndex = min(durableIndex, index - 1)
        let firstStaged = staged.entries.first?.index ?? .max
        staged.entries.removeAll { $0.index >= index }
        // What never reaches the disk must not be acknowledged, not even to a leader of the past. Nor what was there until now:
        // true when it was staged, it may have to wait for the very write that drops it.
        func isTakenBack(_ message: Message) -> Bool {
            guard !Planted.isActive(.acknowledgesWhatItTakesBack) else { return false }
            return if case .appendReply(.accepted(let match)) = message.body { match >= index } else { false }
        }
        staged.acknowledgements.removeAll(where: isTakenBack)
        staged.messages.removeAll(where: isTakenBack)
        // Entries of this step are not in any write yet: dropping those alone is no work for the log.
        if index < firstStaged { staged.truncateFrom = min(staged.truncateFrom ?? index, index) }
        if configurations.count > 1, membership.index >= index {
            configurations.removeAll { $0.index >= index }
            precondition(!configurations.isEmpty, "the membership before entry \(index) is not known")
            membershipChanged()
        }
    }

    private mutating func finish() -> Output {
        var output = staged.output
        let current = HardState(term: term, vote: vote, commit: commitIndex)
        // The commit hint rides along with entries: alone it is not worth a write.
        let mustWrite = current.term != written.term || current.vote != written.vote
        var write = Write(truncateFrom: staged.truncateFrom, entries: staged.entries)
        if mustWrite || (write.changesLog && current != written) {
            write.hardState = current
            written = current
        }
        let isDurable =
            durableHardState.term == term && durableHardState.vote == vote || Planted.isActive(.voteNotPersisted)
        if isDurable {
            output.sends += staged.messages
        } else {
            write.unlocks = staged.messages
        }
        write.unlocks += staged.acknowledgements
        if write.changesLog || !write.unlocks.isEmpty {
            sequence += 1
            write.sequence = sequence
            if let state = write.hardState { hardStatesUnderWay.append((sequence, state)) }
            if let from = write.truncateFrom { truncationsUnderWay.append((sequence, from)) }
            output.write = write
        }
        let change = RoleChange(role: role, term: term, leader: leader, isReady: isReady)
        if change != announced {
            announced = change
            output.roleChange = change
        }
        staged = Staged()
        return output
    }
}
