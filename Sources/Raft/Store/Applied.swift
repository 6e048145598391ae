// SPDX-License-Identifier: Apache-2.0
public import Model

/// What one command did.
public struct Applied: Hashable, Sendable {
    public var index: UInt64
    public var outcome: Outcome

    public enum Outcome: Hashable, Sendable {
        case done(Effect)
        /// Nothing was changed.
        case refused(Problem)
    }

    /// What the proposer wants to know besides "done".
    public enum Effect: Hashable, Sendable {
        case changed
        case created
        /// The state was already as asked.
        case unchanged
        /// A rollout with this id is under way.
        case rollout(id: String, created: Bool)
    }

    public init(index: UInt64, outcome: Outcome) {
        self.index = index
        self.outcome = outcome
    }
}

/// Which objects a batch of commands touched: what to look at again.
public struct Touched: Hashable, Sendable {
    public var apps: Set<ObjectKey> = []
    public var tasks: Set<TaskID> = []
    public var volumes: Set<ObjectKey> = []
    public var nodes = false

    public init() {}

    public mutating func formUnion(_ other: Touched) {
        apps.formUnion(other.apps)
        tasks.formUnion(other.tasks)
        volumes.formUnion(other.volumes)
        nodes = nodes || other.nodes
    }
    public var isEmpty: Bool { apps.isEmpty && tasks.isEmpty && volumes.isEmpty && !nodes }
}
