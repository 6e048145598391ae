// SPDX-License-Identifier: Apache-2.0

// What the API answers. Names are pinned in docs/reference/api.md; JSON.encode writes them in snake_case.

public struct AppView: Hashable, Codable, Sendable {
    public enum Status: String, Codable, Sendable {
        /// A rollout is under way.
        case deploying
        /// Every replica runs.
        case running
        /// Fewer replicas run than wanted; `reason` says why.
        case degraded
        /// The last rollout failed.
        case failed
        /// Every task finished and none is to be restarted.
        case completed
        /// Being deleted.
        case deleting
    }

    public var name: String
    public var namespace: String
    /// Commit index of the last change, also its ETag.
    public var version: UInt64
    /// 1, 2, 3… per app.
    public var release: Int
    /// Of the app's first service.
    public var image: String
    public var status: Status
    public var reason: Reason?
    public var replicas: ReplicaCounts
    public var vip: IPv4Address?
    public var ports: [PortView]
    public var services: [ServiceView]
    public var rollout: RolloutView?
    public var createdAt: Timestamp
    public var updatedAt: Timestamp

    public init(
        name: String, namespace: String, version: UInt64, release: Int, image: String, status: Status, reason: Reason?,
        replicas: ReplicaCounts, vip: IPv4Address?, ports: [PortView], services: [ServiceView], rollout: RolloutView?,
        createdAt: Timestamp, updatedAt: Timestamp
    ) {
        self.name = name
        self.namespace = namespace
        self.version = version
        self.release = release
        self.image = image
        self.status = status
        self.reason = reason
        self.replicas = replicas
        self.vip = vip
        self.ports = ports
        self.services = services
        self.rollout = rollout
        self.createdAt = createdAt
        self.updatedAt = updatedAt
    }

    private enum CodingKeys: String, CodingKey {
        case name, namespace, version, release, image, status, reason, replicas, vip, ports, services, rollout,
            createdAt, updatedAt
    }

    /// Absent values are written as null: every name is always there.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(namespace, forKey: .namespace)
        try container.encode(version, forKey: .version)
        try container.encode(release, forKey: .release)
        try container.encode(image, forKey: .image)
        try container.encode(status, forKey: .status)
        try container.encode(reason, forKey: .reason)
        try container.encode(replicas, forKey: .replicas)
        try container.encode(vip, forKey: .vip)
        try container.encode(ports, forKey: .ports)
        try container.encode(services, forKey: .services)
        try container.encode(rollout, forKey: .rollout)
        try container.encode(createdAt, forKey: .createdAt)
        try container.encode(updatedAt, forKey: .updatedAt)
    }
}

public struct ReplicaCounts: Hashable, Codable, Sendable {
    public var desired: Int
    public var running: Int
    public var ready: Int

    public init(desired: Int, running: Int, ready: Int) {
        self.desired = desired
        self.running = running
        self.ready = ready
    }

    public static func + (left: Self, right: Self) -> Self {
        Self(
            desired: left.desired + right.desired, running: left.running + right.running,
            ready: left.ready + right.ready)
    }
}

public struct PortView: Hashable, Codable, Sendable {
    public var hostPort: UInt16?
    public var containerPort: UInt16
    public var `protocol`: PortProtocol
    public var mode: PortMode
    public var service: String

    public init(
        hostPort: UInt16?, containerPort: UInt16, protocol: PortProtocol, mode: PortMode = .ingress, service: String
    ) {
        self.hostPort = hostPort
        self.containerPort = containerPort
        self.protocol = `protocol`
        self.mode = mode
        self.service = service
    }

    private enum CodingKeys: String, CodingKey {
        case hostPort, containerPort, `protocol`, mode, service
    }

    /// Absent values are written as null: every name is always there.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(hostPort, forKey: .hostPort)
        try container.encode(containerPort, forKey: .containerPort)
        try container.encode(`protocol`, forKey: .`protocol`)
        try container.encode(mode, forKey: .mode)
        try container.encode(service, forKey: .service)
    }
}

public struct ServiceView: Hashable, Codable, Sendable {
    public var name: String
    public var app: String
    public var namespace: String
    public var version: UInt64
    public var image: String
    public var imageDigest: String
    public var replicas: ReplicaCounts
    public var vip: IPv4Address?
    public var endpointMode: EndpointMode
    /// Addresses in service now.
    public var endpoints: [IPv4Address]
    public var ports: [PortView]
    public var reason: Reason?
    public var spec: ServiceSpec

    public init(
        name: String, app: String, namespace: String, version: UInt64, image: String, imageDigest: String,
        replicas: ReplicaCounts, vip: IPv4Address?, endpointMode: EndpointMode, endpoints: [IPv4Address],
        ports: [PortView], reason: Reason?, spec: ServiceSpec
    ) {
        self.name = name
        self.app = app
        self.namespace = namespace
        self.version = version
        self.image = image
        self.imageDigest = imageDigest
        self.replicas = replicas
        self.vip = vip
        self.endpointMode = endpointMode
        self.endpoints = endpoints
        self.ports = ports
        self.reason = reason
        self.spec = spec
    }

    private enum CodingKeys: String, CodingKey {
        case name, app, namespace, version, image, imageDigest, replicas, vip, endpointMode, endpoints, ports, reason,
            spec
    }

    /// Absent values are written as null: every name is always there.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(app, forKey: .app)
        try container.encode(namespace, forKey: .namespace)
        try container.encode(version, forKey: .version)
        try container.encode(image, forKey: .image)
        try container.encode(imageDigest, forKey: .imageDigest)
        try container.encode(replicas, forKey: .replicas)
        try container.encode(vip, forKey: .vip)
        try container.encode(endpointMode, forKey: .endpointMode)
        try container.encode(endpoints, forKey: .endpoints)
        try container.encode(ports, forKey: .ports)
        try container.encode(reason, forKey: .reason)
        try container.encode(spec, forKey: .spec)
    }
}

/// The last rollout of an app.
public struct RolloutView: Hashable, Codable, Sendable {
    public enum State: String, Codable, Sendable {
        case running, succeeded
        /// Failed, the new release stays.
        case failed
        /// Failed, the previous release runs again.
        case rolledBack = "rolled_back"
        /// A newer deploy took over.
        case superseded
    }

    /// `/v1/operations/{id}`
    public var id: String
    public var state: State
    public var release: Int
    public var updated: Int
    public var total: Int
    public var reason: Reason?
    /// The task that made it fail, for its logs.
    public var failedTask: TaskID?
    public var startedAt: Timestamp
    public var endedAt: Timestamp?

    public init(
        id: String, state: State, release: Int, updated: Int, total: Int, reason: Reason?, failedTask: TaskID?,
        startedAt: Timestamp, endedAt: Timestamp?
    ) {
        self.id = id
        self.state = state
        self.release = release
        self.updated = updated
        self.total = total
        self.reason = reason
        self.failedTask = failedTask
        self.startedAt = startedAt
        self.endedAt = endedAt
    }

    private enum CodingKeys: String, CodingKey {
        case id, state, release, updated, total, reason, failedTask, startedAt, endedAt
    }

    /// Absent values are written as null: every name is always there.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(id, forKey: .id)
        try container.encode(state, forKey: .state)
        try container.encode(release, forKey: .release)
        try container.encode(updated, forKey: .updated)
        try container.encode(total, forKey: .total)
        try container.encode(reason, forKey: .reason)
        try container.encode(failedTask, forKey: .failedTask)
        try container.encode(startedAt, forKey: .startedAt)
        try container.encode(endedAt, forKey: .endedAt)
    }
}

public struct OperationView: Hashable, Codable, Sendable {
    public var id: String
    /// `deploy`
    public var kind: String
    public var app: String
    public var namespace: String
    public var rollout: RolloutView

    public init(id: String, kind: String, app: String, namespace: String, rollout: RolloutView) {
        self.id = id
        self.kind = kind
        self.app = app
        self.namespace = namespace
        self.rollout = rollout
    }
}

/// `GET /v1/tasks`: what there is, and what there is not.
public struct TaskListView: Hashable, Codable, Sendable {
    /// Replicas of a service that no node takes, so that there are no tasks of them.
    public struct Unplaced: Hashable, Codable, Sendable {
        public var app: String
        public var namespace: String
        public var service: String
        /// At least 1.
        public var count: Int
        public var reason: Reason

        public init(app: String, namespace: String, service: String, count: Int, reason: Reason) {
            self.app = app
            self.namespace = namespace
            self.service = service
            self.count = count
            self.reason = reason
        }
    }

    public var items: [TaskView]
    /// Nil when there are none.
    public var unplaced: [Unplaced]?
    public var index: UInt64

    public init(items: [TaskView], unplaced: [Unplaced]? = nil, index: UInt64) {
        self.items = items
        self.unplaced = unplaced
        self.index = index
    }
}

public struct TaskView: Hashable, Codable, Sendable {
    public var id: TaskID
    public var app: String
    public var namespace: String
    public var service: String
    public var node: String
    /// A `TaskState`, or `restarting` while a running task has no container.
    public var state: String
    public var ready: Bool
    public var address: IPv4Address?
    public var containerId: ContainerID?
    public var pid: Int32?
    public var restarts: Int
    public var exitCode: Int?
    public var reason: Reason?
    public var image: String
    public var release: Int
    public var startedAt: Timestamp?
    public var createdAt: Timestamp

    public init(
        id: TaskID, app: String, namespace: String, service: String, node: String, state: String, ready: Bool,
        address: IPv4Address?, containerId: ContainerID?, pid: Int32?, restarts: Int, exitCode: Int?, reason: Reason?,
        image: String, release: Int, startedAt: Timestamp?, createdAt: Timestamp
    ) {
        self.id = id
        self.app = app
        self.namespace = namespace
        self.service = service
        self.node = node
        self.state = state
        self.ready = ready
        self.address = address
        self.containerId = containerId
        self.pid = pid
        self.restarts = restarts
        self.exitCode = exitCode
        self.reason = reason
        self.image = image
        self.release = release
        self.startedAt = startedAt
        self.createdAt = createdAt
    }

    private enum CodingKeys: String, CodingKey {
        case id, app, namespace, service, node, state, ready, address, containerId, pid, restarts, exitCode, reason,
            image, release, startedAt, createdAt
    }

    /// Absent values are written as null: every name is always there.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(id, forKey: .id)
        try container.encode(app, forKey: .app)
        try container.encode(namespace, forKey: .namespace)
        try container.encode(service, forKey: .service)
        try container.encode(node, forKey: .node)
        try container.encode(state, forKey: .state)
        try container.encode(ready, forKey: .ready)
        try container.encode(address, forKey: .address)
        try container.encode(containerId, forKey: .containerId)
        try container.encode(pid, forKey: .pid)
        try container.encode(restarts, forKey: .restarts)
        try container.encode(exitCode, forKey: .exitCode)
        try container.encode(reason, forKey: .reason)
        try container.encode(image, forKey: .image)
        try container.encode(release, forKey: .release)
        try container.encode(startedAt, forKey: .startedAt)
        try container.encode(createdAt, forKey: .createdAt)
    }
}
