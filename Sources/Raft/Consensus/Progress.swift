// SPDX-License-Identifier: Apache-2.0

/// What a leader knows of one other member, and what it may send it.
struct Progress: Sendable {
    enum State: Hashable, Sendable {
        /// One append at a time, until the member says where its log agrees.
        case probe
        /// Appends go out ahead of their answers.
        case replicate
        /// A snapshot is on its way; nothing else is sent.
        case snapshot
    }

    var state = State.probe
    /// Durable there and equal to the leader's log, up to and including this index.
    var match: UInt64 = 0
    /// Next entry to send.
    var next: UInt64
    /// In `probe`: an append is under way.
    var isPaused = false
    /// Last index of each append not answered yet, ascending.
    var inFlight: [UInt64] = []
    /// Beat at which it last answered an append, or was sent one that waits for its answer.
    var beat: UInt64 = 0
    /// Entries for it are being read from the log.
    var isLoading = false
    /// Said something since the last look at the quorum.
    var isActive = true
    /// Highest read round it has confirmed.
    var round: UInt64 = 0
    /// Commit index it was last told.
    var commitSent: UInt64 = 0
    /// Ticks since it last said anything.
    var silentTicks = 0

    init(next: UInt64) {
        self.next = next
    }

    mutating func becomeProbe(next: UInt64) {
        state = .probe
        self.next = max(next, match + 1)
        isPaused = false
        inFlight = []
        // What it was told may have been lost.
        commitSent = 0
    }

    mutating func becomeReplicate() {
        state = .replicate
        next = max(next, match + 1)
        isPaused = false
        inFlight = []
    }

    mutating func becomeSnapshot() {
        state = .snapshot
        isPaused = false
        inFlight = []
    }

    /// The member holds everything up to `index`. False when that is no news.
    mutating func accept(_ index: UInt64) -> Bool {
        inFlight.removeAll { $0 <= index }
        guard index > match else { return false }
        match = index
        next = max(next, index + 1)
        return true
    }
}

/// How a member stands, for people.
public struct MemberProgress: Hashable, Sendable {
    public var id: MemberID
    public var isVoter: Bool
    public var match: UInt64
    /// Ticks since it was last heard of; 0 for the leader itself.
    public var silentTicks: Int
    public var needsSnapshot: Bool

    public init(id: MemberID, isVoter: Bool, match: UInt64, silentTicks: Int, needsSnapshot: Bool) {
        self.id = id
        self.isVoter = isVoter
        self.match = match
        self.silentTicks = silentTicks
        self.needsSnapshot = needsSnapshot
    }
}
