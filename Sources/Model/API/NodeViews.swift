// SPDX-License-Identifier: Apache-2.0

// What the API answers. Names are pinned in docs/reference/api.md; JSON.encode writes them in snake_case.

public struct NodeView: Hashable, Codable, Sendable {
    public var id: NodeID
    public var name: String
    public var address: String
    /// ready, suspect, down or drained.
    public var state: String
    /// voter, standby or observer.
    public var role: String
    public var leader: Bool
    public var subnet: IPv4Subnet
    public var labels: [String: String]
    public var capacity: NodeResources
    public var allocated: NodeResources
    public var appliedIndex: UInt64
    public var version: String
    public var runtime: RuntimeInfo?

    public init(
        id: NodeID, name: String, address: String, state: String, role: String, leader: Bool, subnet: IPv4Subnet,
        labels: [String: String], capacity: NodeResources, allocated: NodeResources, appliedIndex: UInt64,
        version: String, runtime: RuntimeInfo?
    ) {
        self.id = id
        self.name = name
        self.address = address
        self.state = state
        self.role = role
        self.leader = leader
        self.subnet = subnet
        self.labels = labels
        self.capacity = capacity
        self.allocated = allocated
        self.appliedIndex = appliedIndex
        self.version = version
        self.runtime = runtime
    }
}

public struct NodeResources: Hashable, Codable, Sendable {
    public var cpuMillis: Int
    public var memoryBytes: Int64
    public var tasks: Int

    public init(cpuMillis: Int, memoryBytes: Int64, tasks: Int) {
        self.cpuMillis = cpuMillis
        self.memoryBytes = memoryBytes
        self.tasks = tasks
    }
}

public struct StatusView: Hashable, Codable, Sendable {
    public var node: String
    public var role: String
    public var term: UInt64
    public var appliedIndex: UInt64
    public var leader: String?
    public var version: String
    public var runtime: RuntimeInfo
    public var apps: Int
    public var tasksRunning: Int
    public var uptimeSeconds: Int
    /// What a person should look at: no space, runtime down, a port that could not be published.
    public var conditions: [String]

    public init(
        node: String, role: String, term: UInt64, appliedIndex: UInt64, leader: String?, version: String,
        runtime: RuntimeInfo, apps: Int, tasksRunning: Int, uptimeSeconds: Int, conditions: [String]
    ) {
        self.node = node
        self.role = role
        self.term = term
        self.appliedIndex = appliedIndex
        self.leader = leader
        self.version = version
        self.runtime = runtime
        self.apps = apps
        self.tasksRunning = tasksRunning
        self.uptimeSeconds = uptimeSeconds
        self.conditions = conditions
    }

    private enum CodingKeys: String, CodingKey {
        case node, role, term, appliedIndex, leader, version, runtime, apps, tasksRunning, uptimeSeconds, conditions
    }

    /// Absent values are written as null: every name is always there.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(node, forKey: .node)
        try container.encode(role, forKey: .role)
        try container.encode(term, forKey: .term)
        try container.encode(appliedIndex, forKey: .appliedIndex)
        try container.encode(leader, forKey: .leader)
        try container.encode(version, forKey: .version)
        try container.encode(runtime, forKey: .runtime)
        try container.encode(apps, forKey: .apps)
        try container.encode(tasksRunning, forKey: .tasksRunning)
        try container.encode(uptimeSeconds, forKey: .uptimeSeconds)
        try container.encode(conditions, forKey: .conditions)
    }
}

public struct MemberView: Hashable, Codable, Sendable {
    public var id: NodeID
    public var name: String
    public var address: String
    public var role: String
    public var matchIndex: UInt64
    public var lastContactMs: Int

    public init(id: NodeID, name: String, address: String, role: String, matchIndex: UInt64, lastContactMs: Int) {
        self.id = id
        self.name = name
        self.address = address
        self.role = role
        self.matchIndex = matchIndex
        self.lastContactMs = lastContactMs
    }
}

public struct ClusterView: Hashable, Codable, Sendable {
    public var id: String
    public var leader: String?
    public var term: UInt64
    public var commitIndex: UInt64
    public var members: [MemberView]
    public var nodes: Int

    public init(id: String, leader: String?, term: UInt64, commitIndex: UInt64, members: [MemberView], nodes: Int) {
        self.id = id
        self.leader = leader
        self.term = term
        self.commitIndex = commitIndex
        self.members = members
        self.nodes = nodes
    }

    private enum CodingKeys: String, CodingKey {
        case id, leader, term, commitIndex, members, nodes
    }

    /// Absent values are written as null: every name is always there.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(id, forKey: .id)
        try container.encode(leader, forKey: .leader)
        try container.encode(term, forKey: .term)
        try container.encode(commitIndex, forKey: .commitIndex)
        try container.encode(members, forKey: .members)
        try container.encode(nodes, forKey: .nodes)
    }
}

public struct VersionView: Hashable, Codable, Sendable {
    public var version: String
    public var api: String

    public init(version: String, api: String) {
        self.version = version
        self.api = api
    }
}
