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
    /// When it took that one's place; 0 when it was made new, or that is not in the log yet.
    public var succeededAt: Timestamp
    public var ranges: AddressRanges
    public var appliedIndex: UInt64
    public var appliedTerm: UInt64
    public var logTime: Timestamp
    public var configuration: ConfigurationPoint
    /// Events at and below this index are no longer kept.
    public var eventsCompacted: UInt64
    /// A node that says nothing for so long is down.
    public var downAfterMilliseconds: Int64

    /// This node is on its way to the cluster that took the place of its own: what the state says of members is of that one
    /// before.
    public var isSucceeding: Bool { !previousClusterID.isEmpty && succeededAt.milliseconds == 0 }

    public static let downAfterStandard: Int64 = 5_000
    /// Less is a few lost reports, more is a night without anybody looking.
    public static let downAfterRange: ClosedRange<Int64> = 3_000...3_600_000
}

public struct NodeRow: Hashable, Codable, Sendable {
    /// What the cluster makes of it.
    public enum Role: String, Hashable, Codable, Sendable {
        case voter, standby, observer
    }

    /// What people want it to be; `auto` leaves it to the cluster.
    public enum Pin: String, Hashable, Codable, Sendable {
        case auto, voter, observer
    }

    /// Whether tasks may be placed there.
    public enum Availability: String, Hashable, Codable, Sendable {
        case active
        /// No new tasks; those there go on.
        case cordoned
        /// No tasks: those there are moved away.
        case drained
    }

    /// Whether it answers, as the leader sees it.
    public enum Liveness: String, Hashable, Codable, Sendable {
        case ready, suspect, down
    }

    public var id: NodeID
    public var name: String
    /// In the log's membership and between nodes; never used again.
    public var member: UInt64
    /// At which its end of the overlay receives.
    public var address: String
    /// `host:port` for other nodes; empty for a node that is alone.
    public var peerAddress: String
    /// `host:port` of the API over TLS; empty where it does not listen.
    public var apiAddress: String
    public var subnet: IPv4Subnet
    public var role: Role
    public var pin: Pin
    public var availability: Availability
    public var liveness: Liveness
    public var labels: [String: String]
    /// Sorted; tasks that do not tolerate one are not placed here.
    public var taints: [String]
    public var cpuMillis: Int
    public var memoryBytes: Int64
    public var version: String
    public var joinedAt: Timestamp

    public init(
        id: NodeID, name: String, member: UInt64 = 1, address: String, peerAddress: String = "",
        apiAddress: String = "", subnet: IPv4Subnet, role: Role = .voter, pin: Pin = .auto,
        availability: Availability = .active, liveness: Liveness = .ready, labels: [String: String] = [:],
        taints: [String] = [], cpuMillis: Int, memoryBytes: Int64, version: String,
        joinedAt: Timestamp = Timestamp(milliseconds: 0)
    ) {
        self.id = id
        self.name = name
        self.member = member
        self.address = address
        self.peerAddress = peerAddress
        self.apiAddress = apiAddress
        self.subnet = subnet
        self.role = role
        self.pin = pin
        self.availability = availability
        self.liveness = liveness
        self.labels = labels
        self.taints = taints
        self.cpuMillis = cpuMillis
        self.memoryBytes = memoryBytes
        self.version = version
        self.joinedAt = joinedAt
    }

    /// What a node says of itself; the rest is said of it.
    public var facts: NodeRow {
        NodeRow(
            id: id, name: name, member: member, address: address, peerAddress: peerAddress, apiAddress: apiAddress,
            subnet: subnet, cpuMillis: cpuMillis, memoryBytes: memoryBytes, version: version)
    }

    /// As people see it: ready, suspect, down or drained.
    public var state: String {
        liveness == .ready && availability == .drained ? "drained" : liveness.rawValue
    }
}

/// A machine that was a node and never is again under the same ids.
public struct RemovedNodeRow: Hashable, Sendable {
    public var id: NodeID
    public var name: String
    public var member: UInt64
    public var subnet: IPv4Subnet
    public var removedAt: Timestamp
}

/// An authority of the cluster. Its key is ciphertext: the voters hold what opens it.
public struct AuthorityRow: Hashable, Codable, Sendable {
    /// SHA-256 of its public key, hexadecimal.
    public var id: String
    /// PEM.
    public var certificate: String
    /// Base64; empty once it is gone.
    public var sealedKey: String
    public var createdAt: Timestamp
    public var phase: Phase

    /// What it is for, in the order of its life.
    public enum Phase: String, Codable, Sendable {
        /// Believed, so that it may issue later.
        case coming
        /// Believed, and what is issued is signed with it: one at a time.
        case issuing
        /// Believed until nobody shows a certificate of it.
        case going
        /// Believed by nobody. Remembered, so that nodes that are behind know that they need not believe it.
        case gone
    }

    public init(
        id: String, certificate: String, sealedKey: String, createdAt: Timestamp, phase: Phase = .issuing
    ) {
        self.id = id
        self.certificate = certificate
        self.sealedKey = sealedKey
        self.createdAt = createdAt
        self.phase = phase
    }
}

/// A token that lets machines join, without its secret.
public struct JoinTokenRow: Hashable, Codable, Sendable {
    public var id: String
    /// SHA-256 of the secret, hexadecimal.
    public var hash: String
    public var role: NodeRow.Pin
    /// Nil for any number of machines.
    public var usesLeft: Int?
    public var createdAt: Timestamp
    public var expiresAt: Timestamp

    public init(
        id: String, hash: String, role: NodeRow.Pin, usesLeft: Int?, createdAt: Timestamp, expiresAt: Timestamp
    ) {
        self.id = id
        self.hash = hash
        self.role = role
        self.usesLeft = usesLeft
        self.createdAt = createdAt
        self.expiresAt = expiresAt
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

    public init(
        app: ObjectKey, name: String, replicas: Int, generation: Int, vip: IPv4Address? = nil, removed: Bool = false,
        version: UInt64 = 0, spec: ServiceSpec
    ) {
        self.app = app
        self.name = name
        self.replicas = replicas
        self.generation = generation
        self.vip = vip
        self.removed = removed
        self.version = version
        self.spec = spec
    }
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
    /// It goes to another node as soon as another task has taken its place.
    public var isMoving = false
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

/// Tasks of one generation of a service on one node that have not ended.
public struct TaskCountRow: Hashable, Sendable {
    public var node: NodeID
    public var app: ObjectKey
    public var service: String
    public var generation: Int
    public var living: Int
    /// Of these, how many are to run on.
    public var wanted: Int

    static func select(where condition: String) -> String {
        """
        SELECT node, namespace, app, service, generation, count(*) AS living, sum(goal = 'run') AS wanted
        FROM tasks WHERE state NOT IN ('stopped', 'failed') \(condition)
        GROUP BY node, namespace, app, service, generation ORDER BY node, namespace, app, service, generation
        """
    }

    init(row: Row) {
        node = NodeID(row.text("node"))
        app = ObjectKey(namespace: row.text("namespace"), name: row.text("app"))
        service = row.text("service")
        generation = row.integer("generation")
        living = row.integer("living")
        wanted = row.integer("wanted")
    }
}

/// What one task of a generation has set aside for it.
public struct ReservationRow: Hashable, Sendable {
    public var app: ObjectKey
    public var service: String
    public var generation: Int
    public var cpuMillis: Int
    public var memoryBytes: Int64
    /// What each task of it has of its node alone.
    public var ports: [HostPort]

    static func select(where condition: String) -> String {
        """
        SELECT namespace, app, service, generation,
            coalesce(json_extract(spec, '$.resources.reserved_cpu_millis'), 0) AS cpu_millis,
            coalesce(json_extract(spec, '$.resources.reserved_memory_bytes'), 0) AS memory_bytes,
            CASE WHEN EXISTS (SELECT 1 FROM json_each(spec, '$.ports') WHERE json_extract(value, '$.mode') = 'host')
                THEN json_extract(spec, '$.ports') END AS ports
        FROM specs WHERE (cpu_millis > 0 OR memory_bytes > 0 OR ports IS NOT NULL) \(condition)
        ORDER BY namespace, app, service, generation
        """
    }

    init(row: Row) throws {
        app = ObjectKey(namespace: row.text("namespace"), name: row.text("app"))
        service = row.text("service")
        generation = row.integer("generation")
        cpuMillis = row.integer("cpu_millis")
        memoryBytes = row["memory_bytes"]
        ports =
            try row.optionalText("ports").map { text in
                try JSON.decode([PortSpec].self, from: Data(text.utf8)).compactMap { port in
                    port.mode == .host ? port.hostPort.map { HostPort($0, protocol: port.protocol) } : nil
                }
            } ?? []
    }
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
        guard let subnet = IPv4Subnet(row.text("subnet")), let role = Role(rawValue: row.text("role")),
            let pin = Pin(rawValue: row.text("pin")),
            let availability = Availability(rawValue: row.text("availability")),
            let liveness = Liveness(rawValue: row.text("liveness"))
        else { throw CorruptRow("nodes", row.text("id")) }
        self.init(
            id: NodeID(row.text("id")), name: row.text("name"), member: row.index("member"),
            address: row.text("address"), peerAddress: row.text("peer_address"), apiAddress: row.text("api_address"),
            subnet: subnet, role: role, pin: pin, availability: availability, liveness: liveness,
            labels: try JSON.decode([String: String].self, from: Data(row.text("labels").utf8)),
            taints: try JSON.decode([String].self, from: Data(row.text("taints").utf8)),
            cpuMillis: row.integer("cpu_millis"), memoryBytes: row["memory_bytes"], version: row.text("version"),
            joinedAt: row.time("joined_at"))
    }
}

extension RemovedNodeRow {
    init(row: Row) throws {
        guard let subnet = IPv4Subnet(row.text("subnet")) else {
            throw CorruptRow("removed_nodes", row.text("id"))
        }
        self.init(
            id: NodeID(row.text("id")), name: row.text("name"), member: row.index("member"), subnet: subnet,
            removedAt: row.time("removed_at"))
    }
}

extension AuthorityRow {
    init(row: Row) throws {
        guard let phase = Phase(rawValue: row.text("phase")) else { throw CorruptRow("authorities", row.text("id")) }
        self.init(
            id: row.text("id"), certificate: row.text("certificate"), sealedKey: row.text("sealed_key"),
            createdAt: row.time("created_at"), phase: phase)
    }
}

extension JoinTokenRow {
    init(row: Row) throws {
        guard let role = NodeRow.Pin(rawValue: row.text("role")) else {
            throw CorruptRow("join_tokens", row.text("id"))
        }
        self.init(
            id: row.text("id"), hash: row.text("hash"), role: role, usesLeft: row.optionalInteger("uses_left"),
            createdAt: row.time("created_at"), expiresAt: row.time("expires_at"))
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
    /// Read by place: there are ten thousands of them, and finding a column by its name takes longer than reading it.
    static let select = """
        SELECT t.id, t.namespace, t.app, t.service, t.generation, t.goal, t.state, t.ready, t.container_id, t.pid,
            t.restarts, t.exit_code, t.reason_code, t.reason_message, t.reason_hint, t.started_at, t.release, t.node,
            t.address, t.image, t.created_at, t.ended_at, t.sequence, t.version, g.spec, t.moving
        FROM tasks t JOIN specs g
            ON g.namespace = t.namespace AND g.app = t.app AND g.service = t.service AND g.generation = t.generation
        """

    init(row: Row) throws { try self.init(row: row, spec: try Self.spec(row)) }

    static func spec(_ row: Row) throws -> ServiceSpec { try decodeSpec(row[24]) }

    init(row: Row, spec: ServiceSpec) throws {
        let head = try TaskHead(row: row)
        guard let address = IPv4Address(row[18] as String) else { throw CorruptRow("tasks", head.id.raw) }
        self.init(
            id: head.id, app: head.app, service: head.service, generation: head.generation, release: row[16],
            node: NodeID(row[17] as String), goal: head.goal, address: address, image: row[19], status: head.status,
            createdAt: Timestamp(milliseconds: row[20]),
            endedAt: (row[21] as Int64?).map(Timestamp.init(milliseconds:)),
            sequence: UInt64(bitPattern: row[22] as Int64), version: UInt64(bitPattern: row[23] as Int64),
            isMoving: (row[25] as Int) != 0, spec: spec)
    }
}

/// What of a task changes, without what its containers are made from.
struct TaskHead {
    var id: TaskID
    var app: ObjectKey
    var service: String
    var generation: Int
    var goal: TaskGoal
    var status: TaskStatus

    static let select = """
        SELECT id, namespace, app, service, generation, goal, state, ready, container_id, pid, restarts, exit_code,
            reason_code, reason_message, reason_hint, started_at FROM tasks
        """

    /// The first columns of `TaskRow.select` are the same.
    init(row: Row) throws {
        guard let goal = TaskGoal(rawValue: row[5]), let state = TaskState(rawValue: row[6]) else {
            throw CorruptRow("tasks", row[0])
        }
        id = TaskID(row[0] as String)
        app = ObjectKey(namespace: row[1], name: row[2])
        service = row[3]
        generation = row[4]
        self.goal = goal
        let reason = (row[12] as String?).map { code in
            Reason(Reason.Code(rawValue: code) ?? .internal, row[13] ?? "", hint: row[14])
        }
        status = TaskStatus(
            state: state, ready: (row[7] as Int) != 0, container: (row[8] as String?).map { ContainerID($0) },
            pid: (row[9] as Int?).map { Int32($0) }, restarts: row[10], exitCode: row[11], reason: reason,
            startedAt: (row[15] as Int64?).map(Timestamp.init(milliseconds:)))
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
