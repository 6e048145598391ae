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
    /// Left out when there are none.
    public var taints: [String]?
    public var capacity: NodeResources
    public var allocated: NodeResources
    public var appliedIndex: UInt64
    public var version: String
    public var runtime: RuntimeInfo?

    public init(
        id: NodeID, name: String, address: String, state: String, role: String, leader: Bool, subnet: IPv4Subnet,
        labels: [String: String], capacity: NodeResources, allocated: NodeResources, appliedIndex: UInt64,
        version: String, runtime: RuntimeInfo?, taints: [String]? = nil
    ) {
        self.id = id
        self.name = name
        self.address = address
        self.state = state
        self.role = role
        self.leader = leader
        self.subnet = subnet
        self.labels = labels
        self.taints = taints
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

public struct VersionView: Hashable, Codable, Sendable {
    public var version: String
    public var api: String

    public init(version: String, api: String) {
        self.version = version
        self.api = api
    }
}
