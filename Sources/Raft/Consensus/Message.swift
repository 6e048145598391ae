// SPDX-License-Identifier: Apache-2.0

/// What one member says to another. Messages may be lost, repeated, delayed and reordered: the core lives with all of it.
public struct Message: Hashable, Sendable {
    public var from: MemberID
    public var to: MemberID
    /// The sender's term; of `preVote` the term it would stand in, of a granted `preVoteReply` the same.
    public var term: UInt64
    public var body: Body

    public init(from: MemberID, to: MemberID, term: UInt64, body: Body) {
        self.from = from
        self.to = to
        self.term = term
        self.body = body
    }

    public enum Body: Hashable, Sendable {
        /// Would you vote for me? Changes nothing on either side.
        case preVote(last: LogPosition)
        case preVoteReply(granted: Bool)
        /// `isTransfer`: the leader asked for this election, so hearing from it lately is no reason to refuse.
        case vote(last: LogPosition, isTransfer: Bool)
        case voteReply(granted: Bool)
        case append(Append)
        case appendReply(AppendReply)
        case heartbeat(Heartbeat)
        /// `round` as in the heartbeat it answers.
        case heartbeatReply(round: UInt64)
        /// Everything up to this index is committed; never above what the receiver is known to hold. Not answered.
        case commit(UInt64)
        /// Stand for election now, without asking first.
        case timeoutNow
        /// A member wants to read: at which index? `id` is the asker's and never used twice.
        case readIndex(id: UInt64)
        /// Nil when the receiver cannot tell, because it does not lead or is not ready.
        case readIndexReply(id: UInt64, index: UInt64?)
    }
}

public struct Append: Hashable, Sendable {
    /// The entry before the first of `entries`; they fit only a log that holds it.
    public var previous: LogPosition
    /// Contiguous. Empty to probe, or to pass on the commit index.
    public var entries: [Entry]
    public var commit: UInt64

    public init(previous: LogPosition, entries: [Entry], commit: UInt64) {
        self.previous = previous
        self.entries = entries
        self.commit = commit
    }
}

public enum AppendReply: Hashable, Sendable {
    /// Everything up to this index is durable at the sender and equals the leader's log.
    case accepted(match: UInt64)
    /// `previous` is not in the sender's log. `hint` is the last position that may be common: the highest index at or
    /// below the refused one whose term is not above the term of `previous`.
    case rejected(previous: UInt64, hint: LogPosition)
}

public struct Heartbeat: Hashable, Sendable {
    /// Never above what the receiver is known to hold.
    public var commit: UInt64
    /// Number of the round that confirms leadership for reads; grows with each, so that an old answer never counts.
    public var round: UInt64

    public init(commit: UInt64, round: UInt64) {
        self.commit = commit
        self.round = round
    }
}

/// What a snapshot stands for: the state after `position`, with the membership in force there.
public struct SnapshotMeta: Hashable, Sendable {
    public var position: LogPosition
    public var configuration: ConfigurationPoint

    public init(position: LogPosition, configuration: ConfigurationPoint) {
        self.position = position
        self.configuration = configuration
    }
}
