// SPDX-License-Identifier: Apache-2.0

/// Identity of a node in the Raft configuration: random, never zero, never used again after removal.
public typealias MemberID = UInt64

/// Where an entry stands in the log. Index 0 with term 0 is the place before the first entry.
public struct LogPosition: Hashable, Sendable, CustomStringConvertible {
    public var index: UInt64
    public var term: UInt64

    public init(index: UInt64, term: UInt64) {
        self.index = index
        self.term = term
    }

    public static let origin = LogPosition(index: 0, term: 0)

    public var description: String { "(index \(index), term \(term))" }
}

/// One place in the replicated log. The payload is opaque here: whoever proposed it knows what it means.
public struct Entry: Hashable, Sendable {
    /// Raw values are written to disk and never change meaning.
    public enum Kind: UInt8, Sendable {
        case noop = 1
        case command = 2
        case configuration = 3
    }

    public var index: UInt64
    public var term: UInt64
    public var kind: Kind
    public var payload: [UInt8]

    public init(index: UInt64, term: UInt64, kind: Kind, payload: [UInt8] = []) {
        self.index = index
        self.term = term
        self.kind = kind
        self.payload = payload
    }

    public var position: LogPosition { LogPosition(index: index, term: term) }

    /// What the entry costs in memory, in bytes: payload and a fixed share for the fields around it.
    public var footprintBytes: Int { payload.count + 64 }
}

/// What a member must remember across a crash besides its entries.
///
/// `term` and `vote` are promises: they are durable before anything that depends on them leaves the node. `commit` is a
/// hint that may lag; it only ever names entries that were committed.
public struct HardState: Hashable, Sendable {
    public var term: UInt64
    public var vote: MemberID?
    public var commit: UInt64

    public init(term: UInt64 = 0, vote: MemberID? = nil, commit: UInt64 = 0) {
        self.term = term
        self.vote = vote
        self.commit = commit
    }
}

/// Ends of the durable log as found at start: `base` is the last position covered by state or snapshot and no longer in
/// the log (`.origin` when nothing was ever cut), `last` the newest entry (`base` when the log is empty).
public struct LogExtent: Hashable, Sendable {
    public var base: LogPosition
    public var last: LogPosition

    public init(base: LogPosition = .origin, last: LogPosition = .origin) {
        precondition(base.index <= last.index, "the log ends at \(last), before its base \(base)")
        self.base = base
        self.last = last
    }

    public var firstIndex: UInt64 { base.index + 1 }
}
