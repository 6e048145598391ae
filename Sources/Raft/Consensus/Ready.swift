// SPDX-License-Identifier: Apache-2.0

/// What the shell tells the core.
public enum Input: Sendable {
    /// One tick of the clock. The first one, right after start, lets the only voter stand for election at once.
    case tick
    case propose([Proposal])
    /// Everything up to and including the receipt is durable. Receipts may be skipped, repeated or late: a newer one
    /// covers the older ones.
    case persisted(Receipt)
    /// The state machine has applied every entry up to and including this index.
    case applied(UInt64)
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

/// What the core asks of the shell, in three tiers:
///
/// 1. `write` goes to the log at once, in the order of outputs. Nothing in this output waits for it.
/// 2. When it is durable, the shell says so with `.persisted(write.receipt)`.
/// 3. `committed` names only entries that are durable on a quorum already: they may be applied and answered at once.
public struct Output: Sendable {
    public var write: Write?
    public var committed: Committed?
    public var accepted: [Accepted] = []
    public var refused: [Refused] = []
    public var roleChange: RoleChange?

    public init() {}
}

/// One unit of durable work: all of it survives a crash or none of it does.
public struct Write: Hashable, Sendable {
    public var hardState: HardState?
    /// Entries from this index on are void before `entries` are added.
    public var truncateFrom: UInt64?
    /// Contiguous; the first one follows the log's last entry (after the truncation).
    public var entries: [Entry]

    public init(hardState: HardState? = nil, truncateFrom: UInt64? = nil, entries: [Entry] = []) {
        self.hardState = hardState
        self.truncateFrom = truncateFrom
        self.entries = entries
    }

    public var receipt: Receipt { Receipt(hardState: hardState, last: entries.last?.position) }
}

/// Proof that writes reached the disk. Term and index together: an index alone could name an entry overwritten since.
public struct Receipt: Hashable, Sendable {
    public var hardState: HardState?
    public var last: LogPosition?

    public init(hardState: HardState? = nil, last: LogPosition? = nil) {
        self.hardState = hardState
        self.last = last
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
    /// Too many bytes are on their way to the state machine; the limit in bytes.
    case busyBytes(limit: Int)
    /// Too many entries are on their way to the state machine; the limit in entries.
    case busyEntries(limit: Int)
    /// This payload can never be accepted.
    case tooLarge(bytes: Int, limit: Int)
}

public struct RoleChange: Hashable, Sendable {
    public var role: RaftNode.Role
    public var term: UInt64
    public var leader: MemberID?

    public init(role: RaftNode.Role, term: UInt64, leader: MemberID?) {
        self.role = role
        self.term = term
        self.leader = leader
    }
}
