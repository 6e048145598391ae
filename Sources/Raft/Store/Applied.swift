// SPDX-License-Identifier: Apache-2.0
public import Model
public import Raft

/// What one command did.
public struct Applied: Hashable, Sendable {
    /// Of the entry.
    public var index: UInt64
    /// Of the entry that took effect: `index`, or for a repeated request that of the first with its id.
    public var version: UInt64
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

    public init(index: UInt64, version: UInt64? = nil, outcome: Outcome) {
        self.index = index
        self.version = version ?? index
        self.outcome = outcome
    }
}

/// Which objects a batch of commands touched: what to look at again.
public struct Touched: Sendable {
    public var apps: Set<ObjectKey> = []
    public var tasks: Set<TaskID> = []
    public var volumes: Set<ObjectKey> = []
    public var nodes = false
    /// Who takes part in the log changed: the newest membership.
    public var configuration: ConfigurationPoint?
    /// Everything that happened, in order, as the `events` table now holds it: for those who follow live.
    public var events: [StateEvent] = []
    /// Where members compare their state.
    public var pictures: [StatePicture] = []

    public init() {}

    public mutating func formUnion(_ other: Touched) {
        apps.formUnion(other.apps)
        tasks.formUnion(other.tasks)
        volumes.formUnion(other.volumes)
        nodes = nodes || other.nodes
        configuration = other.configuration ?? configuration
        events += other.events
        pictures += other.pictures
    }
    /// No object needs another look; events may still have happened.
    public var isEmpty: Bool { apps.isEmpty && tasks.isEmpty && volumes.isEmpty && !nodes }
}
