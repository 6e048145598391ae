// SPDX-License-Identifier: Apache-2.0

/// How far a task has come. States only advance; a restart of its container keeps it `running`.
public enum TaskState: String, Codable, Sendable, CaseIterable, Comparable {
    /// Created by the leader, not yet seen by its node.
    case pending
    /// Its node fetches the image, makes volumes and network ready.
    case preparing
    /// Its first container is being started.
    case starting
    /// A container of it has run at least once and is kept alive by its restart policy.
    case running
    /// Out of service: its container is being stopped.
    case stopping
    /// Ended as asked: stopped, replaced, or finished with exit code 0.
    case stopped
    /// Ended and will not be tried again. `reason` says why.
    case failed

    private var rank: Int {
        switch self {
        case .pending: 0
        case .preparing: 1
        case .starting: 2
        case .running: 3
        case .stopping: 4
        case .stopped, .failed: 5
        }
    }

    public static func < (left: Self, right: Self) -> Bool { left.rank < right.rank }
    public var isTerminal: Bool { self == .stopped || self == .failed }
}

/// What the cluster wants of a task.
public enum TaskGoal: String, Codable, Sendable {
    case run, stop
}
