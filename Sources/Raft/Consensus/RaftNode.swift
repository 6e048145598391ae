// SPDX-License-Identifier: Apache-2.0

/// One member of the replicated log: terms, elections and commitment, without I/O, clock or lock.
///
/// A value with one owner, who feeds inputs and carries out outputs in order. This version knows one voter, itself;
/// replication to others adds inputs and outputs but changes none of these rules:
/// - a vote is durable before it counts, a leader begins with an entry of its own term;
/// - only entries of the leader's own term are committed by counting durable copies, all earlier ones with them;
/// - a receipt counts only if the log still holds that term at that index.
///
/// Source: Ongaro, "Consensus: Bridging Theory and Practice", 3.4 to 3.6 and 10.2.1.
public struct RaftNode: Sendable {
    public struct Configuration: Sendable {
        public var id: MemberID
        /// Bound on entries not yet committed and applied, in bytes of memory (payload plus 64 each).
        public var unappliedBytesMax = 16 << 20
        /// Bound on the same, in entries.
        public var unappliedEntriesMax = 5_000
        /// Largest payload of one entry, in bytes.
        public var entryBytesMax = 1 << 20

        public init(id: MemberID) {
            self.id = id
        }
    }

    public enum Role: Hashable, Sendable {
        case follower
        case candidate
        /// `firstIndex`: the entry of its own term with which it began.
        case leader(firstIndex: UInt64)
    }

    public let configuration: Configuration
    public let membership: Membership
    public private(set) var role = Role.follower
    public private(set) var term: UInt64
    public private(set) var commitIndex: UInt64
    public private(set) var appliedIndex: UInt64
    /// Highest index known to be durable here.
    public private(set) var durableIndex: UInt64

    private var vote: MemberID?
    /// The hard state as last given out to be written.
    private var written: HardState
    private var tail: LogTail
    /// Highest committed index given out to be applied.
    private var handedOut: UInt64

    /// - Parameters:
    ///   - hardState: as recovered from the log, durable.
    ///   - log: ends of the durable log as recovered.
    ///   - appliedIndex: what the state machine holds already; in `log.base.index ... log.last.index`.
    ///   - membership: must consist of this member alone.
    public init(
        configuration: Configuration,
        hardState: HardState,
        log: LogExtent,
        appliedIndex: UInt64,
        membership: Membership
    ) {
        precondition(configuration.id != 0, "member id 0 is reserved")
        precondition(membership.voters == [configuration.id], "voters \(membership.voters): only one is supported")
        precondition(log.last.term <= hardState.term, "log ends at \(log.last), hard state is \(hardState)")
        precondition(
            log.base.index <= appliedIndex && appliedIndex <= log.last.index && hardState.commit <= log.last.index,
            "applied \(appliedIndex) and commit \(hardState.commit) do not fit the log \(log.base) to \(log.last)"
        )
        self.configuration = configuration
        self.membership = membership
        self.term = hardState.term
        self.vote = hardState.vote
        self.written = hardState
        self.commitIndex = max(hardState.commit, appliedIndex)
        self.appliedIndex = appliedIndex
        self.handedOut = appliedIndex
        self.durableIndex = log.last.index
        self.tail = LogTail(base: log.last)
    }

    public var lastPosition: LogPosition { tail.last }

    public var leader: MemberID? {
        if case .leader = role { configuration.id } else { nil }
    }

    /// A leader that has committed an entry of its own term: only then does `commitIndex` cover everything any earlier
    /// leader acknowledged, so that a read at it is current.
    public var isReady: Bool {
        if case .leader(let firstIndex) = role { commitIndex >= firstIndex } else { false }
    }

    /// Takes one input and says what follows from it. Cost: O(entries touched).
    public mutating func step(_ input: Input) -> Output {
        var output = Output()
        switch input {
        case .tick: tick(&output)
        case .propose(let proposals): propose(proposals, &output)
        case .persisted(let receipt): persisted(receipt, &output)
        case .applied(let index): applied(index)
        }
        handOutCommitted(&output)
        return output
    }

    // MARK: Election

    private mutating func tick(_ output: inout Output) {
        guard role == .follower else { return }
        // Nobody else can lead: waiting for an election timeout would only delay the start.
        role = .candidate
        term += 1
        vote = configuration.id
        output.write = Write(hardState: stageHardState())
        output.roleChange = RoleChange(role: role, term: term, leader: nil)
    }

    private mutating func lead(_ output: inout Output) {
        let noop = Entry(index: tail.last.index + 1, term: term, kind: .noop)
        role = .leader(firstIndex: noop.index)
        tail.append(noop)
        output.write = Write(hardState: stageHardState(), entries: [noop])
        output.roleChange = RoleChange(role: role, term: term, leader: configuration.id)
    }

    /// The hard state to write now, or nil when the last one written still says the same.
    private mutating func stageHardState() -> HardState? {
        let current = HardState(term: term, vote: vote, commit: commitIndex)
        guard current != written else { return nil }
        written = current
        return current
    }

    // MARK: Proposals

    private mutating func propose(_ proposals: [Proposal], _ output: inout Output) {
        var entries: [Entry] = []
        for proposal in proposals {
            if let reason = refusal(for: proposal) {
                output.refused.append(Refused(token: proposal.token, reason: reason))
                continue
            }
            let entry = Entry(index: tail.last.index + 1, term: term, kind: .command, payload: proposal.payload)
            tail.append(entry)
            entries.append(entry)
            output.accepted.append(Accepted(token: proposal.token, position: entry.position))
        }
        // The commit hint rides along with entries: it costs no write of its own.
        if !entries.isEmpty { output.write = Write(hardState: stageHardState(), entries: entries) }
    }

    private func refusal(for proposal: Proposal) -> Refusal? {
        guard case .leader = role else { return .notLeader(leader: leader) }
        let limits = configuration
        let bytes = proposal.payload.count
        if bytes > limits.entryBytesMax { return .tooLarge(bytes: bytes, limit: limits.entryBytesMax) }
        if tail.last.index - appliedIndex >= UInt64(limits.unappliedEntriesMax) {
            return .busyEntries(limit: limits.unappliedEntriesMax)
        }
        if tail.footprintBytes + bytes + 64 > limits.unappliedBytesMax {
            return .busyBytes(limit: limits.unappliedBytesMax)
        }
        return nil
    }

    // MARK: Durability and commitment

    private mutating func persisted(_ receipt: Receipt, _ output: inout Output) {
        if let last = receipt.last, last.index > durableIndex, tail.term(at: last.index) == last.term {
            durableIndex = last.index
        }
        if case .leader(let firstIndex) = role {
            // The only voter is the quorum. Entries before `firstIndex` are of earlier terms and commit with it.
            if durableIndex >= firstIndex { commitIndex = max(commitIndex, durableIndex) }
        } else if role == .candidate, let proof = receipt.hardState, proof.term == term, proof.vote == configuration.id
        {
            lead(&output)
        }
    }

    private mutating func applied(_ index: UInt64) {
        precondition(index <= handedOut, "applied \(index), but only \(handedOut) was given out")
        guard index > appliedIndex else { return }
        appliedIndex = index
        tail.release(through: index)
    }

    private mutating func handOutCommitted(_ output: inout Output) {
        guard commitIndex > handedOut else { return }
        let start = handedOut + 1
        let held = max(start, min(tail.base.index, commitIndex) + 1)
        output.committed = Committed(
            fromLog: start..<held,
            entries: Array(tail.slice(held..<commitIndex + 1))
        )
        handedOut = commitIndex
    }
}
