// SPDX-License-Identifier: Apache-2.0

public import Model

/// Why the log cannot do what was asked.
public struct LogError: ReasonError, Hashable {
    public enum Code: String, Sendable {
        /// No room on the disk. Nothing was changed, the log stays usable: free space and try again.
        case noSpace
        /// What is on disk is not what was made durable. The node must not vote or acknowledge under its old identity.
        case damaged
        /// There is no log where one must be. Nothing was made: put the log back, as it was at the end. Without it the
        /// node must not vote or acknowledge under its old identity.
        case missing
        /// The log begins after what the state holds: the state's file is missing or an old one. The log is whole and was
        /// not changed.
        case stateBehind
        /// Reading, writing or syncing failed. Final: what is on disk is unknown until the log is opened anew.
        case failed
        /// The record does not fit a segment. Nothing was changed.
        case tooLarge
        /// Entries asked for are compacted away or not there yet.
        case notAvailable
        /// The writer's queue is at its bound.
        case queueFull
        /// The writer is shut down.
        case closed
    }

    public var code: Code
    public var message: String
    public var hint: String?
    public var status: Int32?

    public init(_ code: Code, _ message: String, hint: String? = nil, status: Int32? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
        self.status = status
    }

    public var reason: Reason {
        Reason(code == .noSpace ? .noSpace : .internal, message, hint: hint)
    }
}
