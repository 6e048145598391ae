// SPDX-License-Identifier: Apache-2.0

// How a node and its cluster agree. Names are pinned in docs/reference/api.md; absent values are written as null, so that
// every name is always there.

/// `GET /v1/status`: the node that answers, as it sees itself. Tells the truth with and without a leader.
public struct StatusView: Hashable, Codable, Sendable {
    public var node: String
    /// voter, standby or observer.
    public var role: String
    public var term: UInt64
    public var appliedIndex: UInt64
    /// Highest entry this node knows to be committed.
    public var commitIndex: UInt64
    /// Name of the leader this node follows; its own when it leads, nil when it knows none.
    public var leader: String?
    public var version: String
    public var runtime: RuntimeInfo
    public var apps: Int
    public var tasksRunning: Int
    public var uptimeSeconds: Int
    /// Nil where the node keeps no log of its own.
    public var log: LogStatusView?
    /// How long writing to the log's disk takes; nil when nothing was written yet.
    public var fsync: LatencyView?
    /// The newest one of this node.
    public var snapshot: SnapshotView?
    /// What a person should look at: no leader, no space, runtime down, a port that could not be published.
    public var conditions: [String]

    public init(
        node: String, role: String, term: UInt64, appliedIndex: UInt64, commitIndex: UInt64 = 0, leader: String?,
        version: String, runtime: RuntimeInfo, apps: Int, tasksRunning: Int, uptimeSeconds: Int,
        log: LogStatusView? = nil, fsync: LatencyView? = nil, snapshot: SnapshotView? = nil, conditions: [String]
    ) {
        self.node = node
        self.role = role
        self.term = term
        self.appliedIndex = appliedIndex
        self.commitIndex = commitIndex
        self.leader = leader
        self.version = version
        self.runtime = runtime
        self.apps = apps
        self.tasksRunning = tasksRunning
        self.uptimeSeconds = uptimeSeconds
        self.log = log
        self.fsync = fsync
        self.snapshot = snapshot
        self.conditions = conditions
    }

    private enum CodingKeys: String, CodingKey {
        case node, role, term, appliedIndex, commitIndex, leader, version, runtime, apps, tasksRunning, uptimeSeconds
        case log, fsync, snapshot, conditions
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(node, forKey: .node)
        try container.encode(role, forKey: .role)
        try container.encode(term, forKey: .term)
        try container.encode(appliedIndex, forKey: .appliedIndex)
        try container.encode(commitIndex, forKey: .commitIndex)
        try container.encode(leader, forKey: .leader)
        try container.encode(version, forKey: .version)
        try container.encode(runtime, forKey: .runtime)
        try container.encode(apps, forKey: .apps)
        try container.encode(tasksRunning, forKey: .tasksRunning)
        try container.encode(uptimeSeconds, forKey: .uptimeSeconds)
        try container.encode(log, forKey: .log)
        try container.encode(fsync, forKey: .fsync)
        try container.encode(snapshot, forKey: .snapshot)
        try container.encode(conditions, forKey: .conditions)
    }
}

/// What of the log is on this node's disk.
public struct LogStatusView: Hashable, Codable, Sendable {
    /// Oldest entry; one after `lastIndex` when the log is empty.
    public var firstIndex: UInt64
    public var lastIndex: UInt64
    /// Of its files; nil where that could not be read.
    public var bytes: Int64?

    public init(firstIndex: UInt64, lastIndex: UInt64, bytes: Int64?) {
        self.firstIndex = firstIndex
        self.lastIndex = lastIndex
        self.bytes = bytes
    }

    private enum CodingKeys: String, CodingKey { case firstIndex, lastIndex, bytes }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(firstIndex, forKey: .firstIndex)
        try container.encode(lastIndex, forKey: .lastIndex)
        try container.encode(bytes, forKey: .bytes)
    }
}

/// How long something took, over the last `windowSeconds`.
public struct LatencyView: Hashable, Codable, Sendable {
    public var p50Ms: Double
    public var p99Ms: Double
    public var samples: Int
    public var windowSeconds: Int

    public init(p50Ms: Double, p99Ms: Double, samples: Int, windowSeconds: Int) {
        self.p50Ms = p50Ms
        self.p99Ms = p99Ms
        self.samples = samples
        self.windowSeconds = windowSeconds
    }
}

/// One member of the Raft configuration. Only the leader knows how far the others are: elsewhere the last three are null.
public struct MemberView: Hashable, Codable, Sendable {
    public var id: NodeID
    public var name: String
    public var address: String
    /// voter or standby.
    public var role: String
    /// Durable there and equal to the leader's log, up to and including this index.
    public var matchIndex: UInt64?
    /// Since the leader last heard of it; 0 for the leader itself.
    public var lastContactMs: Int?
    /// Entries it lacks.
    public var lag: UInt64?
    /// Why the node that answers and this member do not talk, when one of them does not take the other; absent when they do,
    /// and while the member only does not answer.
    public var refusal: String?

    public init(
        id: NodeID, name: String, address: String, role: String, matchIndex: UInt64?, lastContactMs: Int?,
        lag: UInt64? = nil, refusal: String? = nil
    ) {
        self.id = id
        self.name = name
        self.address = address
        self.role = role
        self.matchIndex = matchIndex
        self.lastContactMs = lastContactMs
        self.lag = lag
        self.refusal = refusal
    }

    private enum CodingKeys: String, CodingKey {
        case id, name, address, role, matchIndex, lastContactMs, lag, refusal
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(id, forKey: .id)
        try container.encode(name, forKey: .name)
        try container.encode(address, forKey: .address)
        try container.encode(role, forKey: .role)
        try container.encode(matchIndex, forKey: .matchIndex)
        try container.encode(lastContactMs, forKey: .lastContactMs)
        try container.encode(lag, forKey: .lag)
        try container.encodeIfPresent(refusal, forKey: .refusal)
    }
}

/// `GET /v1/cluster`: the cluster as the node that answers knows it, also when there is no leader.
public struct ClusterView: Hashable, Codable, Sendable {
    public var id: String
    /// Nil when this node knows none.
    public var leader: String?
    public var term: UInt64
    public var commitIndex: UInt64
    /// Sorted by name.
    public var members: [MemberView]
    /// Machines, members included.
    public var nodes: Int
    /// A node that says nothing for so long is down, for example `5s`. Nil from a daemon that does not say so.
    public var downAfter: String?

    public init(
        id: String, leader: String?, term: UInt64, commitIndex: UInt64, members: [MemberView], nodes: Int,
        downAfter: String? = nil
    ) {
        self.id = id
        self.leader = leader
        self.term = term
        self.commitIndex = commitIndex
        self.members = members
        self.nodes = nodes
        self.downAfter = downAfter
    }

    private enum CodingKeys: String, CodingKey {
        case id, leader, term, commitIndex, members, nodes, downAfter
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(id, forKey: .id)
        try container.encode(leader, forKey: .leader)
        try container.encode(term, forKey: .term)
        try container.encode(commitIndex, forKey: .commitIndex)
        try container.encode(members, forKey: .members)
        try container.encode(nodes, forKey: .nodes)
        try container.encode(downAfter, forKey: .downAfter)
    }
}

/// `PATCH /v1/cluster`. Nil leaves it as it is.
public struct ClusterPatch: Hashable, Codable, Sendable {
    /// For example `10s`.
    public var downAfter: String?
    public init(downAfter: String?) { self.downAfter = downAfter }
}

/// The answer of `POST /v1/cluster/transfer-leader`.
public struct LeaderView: Hashable, Codable, Sendable {
    /// Who leads now.
    public var leader: String
    /// Who led before; the same when nothing had to change.
    public var previous: String
    public var term: UInt64

    public init(leader: String, previous: String, term: UInt64) {
        self.leader = leader
        self.previous = previous
        self.term = term
    }
}

/// A snapshot of the whole state on the disk of the node that answers.
public struct SnapshotView: Hashable, Codable, Sendable {
    public var name: String
    /// Last entry in it.
    public var index: UInt64
    public var term: UInt64
    public var bytes: Int64
    public var createdAt: Timestamp
    /// Of the file, hexadecimal.
    public var sha256: String
    /// On the node's disk.
    public var path: String
    /// Who wanted it, and with that how long it stays.
    public var kind: Kind

    public enum Kind: String, Codable, Sendable {
        /// The node itself, so that its log can be cut: the newest two.
        case log
        /// The schedule: the newest seven.
        case scheduled
        /// Somebody who asked: the newest two.
        case manual
    }

    public init(
        name: String, index: UInt64, term: UInt64, bytes: Int64, createdAt: Timestamp, sha256: String, path: String,
        kind: Kind
    ) {
        self.name = name
        self.index = index
        self.term = term
        self.bytes = bytes
        self.createdAt = createdAt
        self.sha256 = sha256
        self.path = path
        self.kind = kind
    }
}
