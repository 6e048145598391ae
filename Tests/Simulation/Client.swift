// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport

/// One attempt of a client at its operation.
struct Request {
    var client: Int
    var operation: Operation
    var attempt: Int
    var to: MemberID
    /// Highest index acknowledged to anybody when a read was asked for first.
    var acknowledged: UInt64

    enum Operation {
        case write(ModelCommand)
        case read(key: Int)
        /// Whatever the asked member has.
        case staleRead(key: Int)
    }
}

enum Reply {
    case written(ModelState.Answer)
    case read(value: UInt64, index: UInt64)
    /// Certainly without effect so far: try again, there if somebody is named.
    case refused(leader: MemberID?)
}

/// A client with one operation at a time.
struct Client {
    var request: Request?
    var attempts = 0
    var called: UInt64 = 0
    var guess: MemberID?
    /// Place of the operation in the history.
    var operation = 0
}

struct Watcher {
    var after: UInt64 = 0
    /// Events seen or covered by a list.
    var batches = 0
}
