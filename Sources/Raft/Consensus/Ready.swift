// SPDX-License-Identifier: Apache-2.0

/// What the shell tells the core.
public enum Input: Sendable {
    /// One tick of the clock, about 50 ms. A shell that was held up sends one, not all it missed.
    case tick
    /// From another member, as it came in. The shell has checked who sent it.
    case message(Message)
    /// The connection to this member broke: if it led, waiting out the election timeout is pointless.
    case unreachable(MemberID)
    case propose([Proposal])
    /// Asks for an index at which a read is current; answered once, in `reads`.
    case read(token: UInt64)
    /// Everything up to and including this write is durable. Receipts may be skipped or repeated: a newer one covers the
    /// older ones.
    case persisted(Receipt)
    /// The state machine has applied every entry up to and including this index.
    case applied(UInt64)
    /// Entries asked for by `Output.loads`; nil when the log no longer has them.
    case loaded(for: MemberID, entries: [Entry]?)
    /// The shell needs nothing of the log through this index any more. Answered with `Output.compact`, or with nothing while
    /// an install is under way: what that puts in force may need the entries.
    case compact(through: UInt64)
    /// The stream of a snapshot to this member ended: with everything delivered and installed there, or not.
    case snapshotSent(to: MemberID, SnapshotMeta, succeeded: Bool)
    /// A snapshot arrived from `from`, is whole, verified and durable, but not in force. `replacesState`: the state here is
    /// known to be wrong and gives way even to a snapshot of an earlier index.
    case snapshotReceived(from: MemberID, term: UInt64, SnapshotMeta, replacesState: Bool)
    /// What `Output.install` asked for is done and durable, state and log.
    case installed(Install)
    case changeMembership(token: UInt64, MembershipChange)
    /// Hands leadership on; nil chooses the voter that is furthest.
    case transfer(token: UInt64, to: MemberID?)
}

/// A payload waiting to become an entry. The token is the caller's and comes back in `accepted` or `refused`, once.
public struct Proposal: Hashable, Sendable {
    public var token: UInt64
    public var payload: [UInt8]

    public init(token: UInt64, payload: [UInt8]) {
        self.token = token
        self.payload = payload
    }
}

/// What the core asks of the shell. Its type says what must be durable before what may leave:
///
/// 1. `sends` depend on nothing that is not durable already: they go out at once, while the disk works.
/// 2. `write` goes to the log at once, in the order of outputs; `write.unlocks` go out only when it and every write
///    before it are durable, and then the shell says `.persisted(write.receipt)`.
/// 3. `committed` names only entries that are durable on a quorum and here: they may be applied and answered at once.
/// 4. `install` comes alone: nothing else is asked until it is `installed`.
public struct Output: Sendable {
    public var sends: [Message] = []
    public var write: Write?
    public var committed: Committed?
    public var install: Install?
    /// Cut the log through this index. The core has forgotten those entries already, so that nothing it asks for later
    /// lies below.
    public var compact: UInt64?
    public var loads: [Load] = []
    /// Members that need a snapshot, each named once until `snapshotSent`.
    public var snapshots: [MemberID] = []
    public var accepted: [Accepted] = []
    public var refused: [Refused] = []
    public var reads: [ReadResult] = []
    public var transfers: [TransferResult] = []
    public var roleChange: RoleChange?
    /// The membership in force changed, committed or not.
    public var membership: ConfigurationPoint?

    public init() {}
}

/// One unit of durable work: all of it survives a crash or none of it does.
public struct Write: Hashable, Sendable {
    /// Grows by one with each write of a run.
    public var sequence: UInt64
    public var hardState: HardState?
    /// Entries from this index on are void before `entries` are added.
    public var truncateFrom: UInt64?
    /// Contiguous; the first one follows the log's last entry (after the truncation).
    public var entries: [Entry]
    /// May leave when this write and all before it are durable, not earlier.
    public var unlocks: [Message]

    public init(
        sequence: UInt64 = 0, hardState: HardState? = nil, truncateFrom: UInt64? = nil, entries: [Entry] = [],
        unlocks: [Message] = []
    ) {
        self.sequence = sequence
        self.hardState = hardState
        self.truncateFrom = truncateFrom
        self.entries = entries
        self.unlocks = unlocks
    }

    /// Whether the log has anything to do for it; if not, it only waits for the writes before.
    public var changesLog: Bool { hardState != nil || truncateFrom != nil || !entries.isEmpty }

    public var receipt: Receipt { Receipt(sequence: sequence, last: entries.last?.position) }
}

/// Proof that writes reached the disk. Term and index together: an index alone could name an entry overwritten since.
public struct Receipt: Hashable, Sendable {
    /// Of the newest write that is durable.
    public var sequence: UInt64
    /// Of the newest entry made durable with it, nil when there was none.
    public var last: LogPosition?

    public init(sequence: UInt64 = 0, last: LogPosition? = nil) {
        self.sequence = sequence
        self.last = last
    }
}

/// Put the snapshot's state in the place of the state; first durably, then, unless `keepsLog`, empty the log so that it
/// begins after the snapshot.
public struct Install: Hashable, Sendable {
    public var meta: SnapshotMeta
    public var keepsLog: Bool

    public init(meta: SnapshotMeta, keepsLog: Bool) {
        self.meta = meta
        self.keepsLog = keepsLog
    }
}

/// Newly committed entries, in order, each handed out once per run.
public struct Committed: Hashable, Sendable {
    /// Comes first and is read from the log by the shell: entries of an earlier run, no longer in memory. Often empty.
    public var fromLog: Range<UInt64>
    /// Follow `fromLog` without a gap.
    public var entries: [Entry]

    public init(fromLog: Range<UInt64>, entries: [Entry]) {
        self.fromLog = fromLog
        self.entries = entries
    }

    /// All indexes, from the log and in memory.
    public var indexes: Range<UInt64> { fromLog.lowerBound..<fromLog.upperBound + UInt64(entries.count) }
}

/// Entries a follower needs and memory no longer has: the shell reads them, at most `bytesMax` of them (at least one
/// entry), and answers with `.loaded`.
public struct Load: Hashable, Sendable {
    public var member: MemberID
    public var range: Range<UInt64>
    public var bytesMax: Int

    public init(member: MemberID, range: Range<UInt64>, bytesMax: Int) {
        self.member = member
        self.range = range
        self.bytesMax = bytesMax
    }
}

/// The proposal has a place in the log. It is not durable, not committed, and may still be lost.
public struct Accepted: Hashable, Sendable {
    public var token: UInt64
    public var position: LogPosition

    public init(token: UInt64, position: LogPosition) {
        self.token = token
        self.position = position
    }
}

/// The proposal left no trace: trying again is safe.
public struct Refused: Hashable, Sendable {
    public var token: UInt64
    public var reason: Refusal

    public init(token: UInt64, reason: Refusal) {
        self.token = token
        self.reason = reason
    }
}

public enum Refusal: Hashable, Sendable {
    case notLeader(leader: MemberID?)
    /// Leadership is being handed on; the new leader takes the proposal in a moment.
    case transferring(to: MemberID)
    /// Too many bytes are on their way to the state machine; the limit in bytes.
    case busyBytes(limit: Int)
    /// Too many entries are on their way to the state machine; the limit in entries.
    case busyEntries(limit: Int)
    /// This payload can never be accepted.
    case tooLarge(bytes: Int, limit: Int)
    case membership(MembershipRefusal)
}

/// Where a read is current: once that index is applied here, the state shows every write acknowledged before the read
/// was asked for. Nil: no leader could confirm it in time, ask again.
public struct ReadResult: Hashable, Sendable {
    public var token: UInt64
    public var index: UInt64?

    public init(token: UInt64, index: UInt64?) {
        self.token = token
        self.index = index
    }
}

public struct TransferResult: Hashable, Sendable {
    public enum Outcome: Hashable, Sendable {
        /// Another member leads now.
        case transferred(to: MemberID)
        case notLeader(leader: MemberID?)
        case noTarget
        /// It did not take over within an election timeout; this member leads on.
        case timedOut(MemberID)
    }

    public var token: UInt64
    public var outcome: Outcome

    public init(token: UInt64, outcome: Outcome) {
        self.token = token
        self.outcome = outcome
    }
}

public struct RoleChange: Hashable, Sendable {
    public var role: RaftNode.Role
    public var term: UInt64
    public var leader: MemberID?
    /// A leader that has committed an entry of its own term.
    public var isReady: Bool

    public init(role: RaftNode.Role, term: UInt64, leader: MemberID?, isReady: Bool) {
        self.role = role
        self.term = term
        self.leader = leader
        self.isReady = isReady
    }
}
