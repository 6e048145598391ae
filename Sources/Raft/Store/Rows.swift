// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import GRDB
public import Model
public import Raft

// The rows of the applied state as values: what decisions are made from.

public struct MetaRow: Hashable, Sendable {
    public var clusterID: String
    /// The cluster this one was recovered or restored from; empty when it was made new.
    public var previousClusterID: String
    public var ranges: AddressRanges
    public var appliedIndex: UInt64
    public var appliedTerm: UInt64
    public var logTime: Timestamp
    public var configuration: ConfigurationPoint
    /// Events at and below this index are no longer kept.
    public var eventsCompacted: UInt64
}

public struct NodeRow: Hashable, Codable, Sendable {
    public var id: NodeID
    public var name: String
    public var address: String
    public var subnet: IPv4Subnet
    public var role: String
    public var state: String
    public var labels: [String: String]
    public var cpuMillis: Int
    public var memoryBytes: Int64
    public var version: String

    public init(
        id: NodeID, name: String, address: String, subnet: IPv4Subnet, role: String, state: String,
        labels: [String: String], cpuMillis: Int, memoryBytes: Int64, version: String
    ) {
        self.id = id
        self.name = name
        self.address = address
        self.subnet = subnet
        self.role = role
        self.state = state
        self.labels = labels
        self.cpuMillis = cpuMillis
        self.memoryBytes = memoryBytes
        self.version = version
    }
}

public struct AppRow: Hashable, Sendable {
    public var key: ObjectKey
    public var release: Int
    public var deleting: Bool
    public var version: UInt64
    public var createdAt: Timestamp
    public var updatedAt: Timestamp
}

public struct ServiceRow: Hashable, Sendable {
    public var app: ObjectKey
    public var name: String
    public var replicas: Int
    public var generation: Int
    public var vip: IPv4Address?
    /// No longer in the app's spec; the row goes with its last task.
    public var removed: Bool
    public var version: UInt64
    /// Of the current generation.
    public var spec: ServiceSpec
}

public struct RolloutRow: Hashable, Sendable {
    public var id: String
    public var app: ObjectKey
    public var release: Int
    public var previousRelease: Int?
    public var state: RolloutView.State
    public var rollingBack: Bool
    public var reason: Reason?
    public var failedTask: TaskID?
    public var progressDeadlineMilliseconds: Int64
    /// Last time a task of the app got further.
    public var progressAt: Timestamp
    public var startedAt: Timestamp
    public var endedAt: Timestamp?
}

public struct TaskRow: Hashable, Sendable {
    public var id: TaskID
    public var app: ObjectKey
    public var service: String
    public var generation: Int
    public var release: Int
    public var node: NodeID
    public var goal: TaskGoal
    public var address: IPv4Address
    public var image: String
    public var status: TaskStatus
    public var createdAt: Timestamp
    public var endedAt: Timestamp?
    /// Creation order over the whole cluster.
    public var sequence: UInt64
    public var version: UInt64
    /// What its containers are made from.
    public var spec: ServiceSpec
}

public struct VolumeRow: Hashable, Sendable {
    public var key: ObjectKey
    public var driver: String
    public var node: NodeID?
    public var deleting: Bool
    public var version: UInt64
    public var createdAt: Timestamp
    /// Apps, sorted.
    public var users: [String]
}

public struct PortRow: Hashable, Sendable {
    public var port: PublishedPort
    public var app: ObjectKey
    public var service: String
}

// MARK: - From SQL

extension Row {
    func text(_ column: String) -> String { self[column] }
    func optionalText(_ column: String) -> String? { self[column] }
    func integer(_ column: String) -> Int { self[column] }
    func optionalInteger(_ column: String) -> Int? { self[column] }
    func time(_ column: String) -> Timestamp { Timestamp(milliseconds: self[column]) }
    func optionalTime(_ column: String) -> Timestamp? { (self[column] as Int64?).map(Timestamp.init(milliseconds:)) }
    func index(_ column: String) -> UInt64 { UInt64(bitPattern: self[column] as Int64) }
    func flag(_ column: String) -> Bool { (self[column] as Int) != 0 }

    var reason: Reason? {
        guard let code = optionalText("reason_code") else { return nil }
        return Reason(
            Reason.Code(rawValue: code) ?? .internal, optionalText("reason_message") ?? "",
            hint: optionalText("reason_hint"))
    }
}

/// A stored value no longer fits its type: the file was changed by hand or by another version.
struct CorruptRow: Error, CustomStringConvertible {
    var description: String
    init(_ table: String, _ value: String) { description = "state row of \(table) cannot be read: \(value)" }
}

func decodeSpec(_ text: String) throws -> ServiceSpec { try JSON.decode(ServiceSpec.self, from: Data(text.utf8)) }
func encodeText(_ value: some Encodable) throws -> String { String(decoding: try JSON.encode(value), as: UTF8.self) }

extension NodeRow {
    init(row: Row) throws {
        guard let subnet = IPv4Subnet(row.text("subnet")) else { throw CorruptRow("nodes", row.text("subnet")) }
        self.init(
            id: NodeID(row.text("id")), name: row.text("name"), address: row.text("address"), subnet: subnet,
            role: row.text("role"), state: row.text("state"),
            labels: try JSON.decode([String: String].self, from: Data(row.text("labels").utf8)),
            cpuMillis: row.integer("cpu_millis"), memoryBytes: row["memory_bytes"], version: row.text("version"))
    }
}

extension AppRow {
    init(row: Row) {
        self.init(
            key: ObjectKey(namespace: row.text("namespace"), name: row.text("name")), release: row.integer("release"),
            deleting: row.flag("deleting"), version: row.index("version"), createdAt: row.time("created_at"),
            updatedAt: row.time("updated_at"))
    }
}

extension ServiceRow {
    static let select = """
        SELECT s.*, g.spec FROM services s JOIN specs g
            ON g.namespace = s.namespace AND g.app = s.app AND g.service = s.name AND g.generation = s.generation
        """

    init(row: Row) throws {
        var spec = try decodeSpec(row.text("spec"))
        spec.replicas = row.integer("replicas")
        self.init(
            app: ObjectKey(namespace: row.text("namespace"), name: row.text("app")), name: row.text("name"),
            replicas: row.integer("replicas"), generation: row.integer("generation"),
            vip: row.optionalText("vip").flatMap { IPv4Address($0) }, removed: row.flag("removed"),
            version: row.index("version"), spec: spec)
    }
}

extension RolloutRow {
    init(row: Row) throws {
        guard let state = RolloutView.State(rawValue: row.text("state")) else {
            throw CorruptRow("rollouts", row.text("state"))
        }
        self.init(
            id: row.text("id"), app: ObjectKey(namespace: row.text("namespace"), name: row.text("app")),
            release: row.integer("release"), previousRelease: row.optionalInteger("previous_release"), state: state,
            rollingBack: row.flag("rolling_back"), reason: row.reason,
            failedTask: row.optionalText("failed_task").map { TaskID($0) },
            progressDeadlineMilliseconds: row["progress_deadline_ms"], progressAt: row.time("progress_at"),
            startedAt: row.time("started_at"), endedAt: row.optionalTime("ended_at"))
    }
}

extension TaskRow {
    static let select = """
        SELECT t.*, g.spec FROM tasks t JOIN specs g
            ON g.namespace = t.namespace AND g.app = t.app AND g.service = t.service AND g.generation = t.generation
        """

    init(row: Row) throws { try self.init(row: row, spec: try decodeSpec(row.text("spec"))) }

    init(row: Row, spec: ServiceSpec) throws {
        guard let state = TaskState(rawValue: row.text("state")), let goal = TaskGoal(rawValue: row.text("goal")),
            let address = IPv4Address(row.text("address"))
        else { throw CorruptRow("tasks", row.text("id")) }
        self.init(
            id: TaskID(row.text("id")), app: ObjectKey(namespace: row.text("namespace"), name: row.text("app")),
            service: row.text("service"), generation: row.integer("generation"), release: row.integer("release"),
            node: NodeID(row.text("node")), goal: goal, address: address, image: row.text("image"),
            status: TaskStatus(
                state: state, ready: row.flag("ready"),
                container: row.optionalText("container_id").map { ContainerID($0) },
                pid: row.optionalInteger("pid").map { Int32($0) }, restarts: row.integer("restarts"),
                exitCode: row.optionalInteger("exit_code"), reason: row.reason,
                startedAt: row.optionalTime("started_at")),
            createdAt: row.time("created_at"), endedAt: row.optionalTime("ended_at"), sequence: row.index("sequence"),
            version: row.index("version"), spec: spec)
    }
}

extension PortRow {
    init(row: Row) throws {
        guard let transport = PortProtocol(rawValue: row.text("protocol")) else {
            throw CorruptRow("published_ports", row.text("protocol"))
        }
        self.init(
            port: PublishedPort(
                hostPort: UInt16(row.integer("host_port")), containerPort: UInt16(row.integer("container_port")),
                protocol: transport),
            app: ObjectKey(namespace: row.text("namespace"), name: row.text("app")), service: row.text("service"))
    }
}
