// SPDX-License-Identifier: Apache-2.0
public import Model

/// One typed change of the replicated state, as it stands in a log entry.
///
/// Whatever is not a function of the state itself (ids, time) was decided by the proposer and travels along: applying
/// a command is pure.
public struct Command: Hashable, Sendable {
    /// Given by the client for a safe retry: the second command with the same id answers like the first and changes
    /// nothing.
    public var request: String?
    /// Stamped by the leader; never goes back along the log.
    public var at: Timestamp
    public var change: Change

    public init(request: String? = nil, at: Timestamp, change: Change) {
        self.request = request
        self.at = at
        self.change = change
    }
}

/// Every kind of change. The number of a kind is part of the log format: never reuse one.
public enum Change: Hashable, Sendable {
    case initializeCluster(InitializeCluster)
    case putNode(NodeRow)
    case putApp(PutApp)
    case scaleService(ScaleService)
    case restartApp(AppChange)
    case deleteApp(AppChange)
    case removeApp(AppChange)
    case assignTasks(AssignTasks)
    case stopTasks(StopTasks)
    case recordTasks(RecordTasks)
    case removeTasks(RemoveTasks)
    case endRollout(EndRollout)
    case putVolume(PutVolume)
    case deleteVolume(VolumeChange)
    case removeVolume(VolumeChange)
    case putConfig(PutConfig)
    case deleteConfig(DeleteConfig)
    /// Changes nothing: marks the index at which members compare their state.
    case compareState
    case putAuthority(AuthorityRow)
    case putJoinToken(JoinTokenRow)
    case removeJoinToken(JoinTokenChange)
    case admitNode(AdmitNode)
    case removeNode(NodeChange)
    case setNode(SetNode)
    case setLiveness(SetLiveness)
    case rotateJoinToken(RotateJoinToken)
    case changeCertificates(CertificateChange)
    case changeAuthority(AuthorityChange)
    case moveTasks(MoveTasks)
    case putAPIToken(APITokenRow)
    case removeAPIToken(APITokenChange)
    case setCluster(SetCluster)
    /// A member id in the place of one that left the log's membership: for a node that outlived its cluster's quorum.
    case giveMember(NodeChange)
    case succeedCluster(SucceedCluster)
}

/// What people say about the cluster. Nil leaves it as it is.
public struct SetCluster: Hashable, Codable, Sendable {
    /// In `MetaRow.downAfterRange`.
    public var downAfterMilliseconds: Int64?
    public init(downAfterMilliseconds: Int64?) { self.downAfterMilliseconds = downAfterMilliseconds }
}

public struct JoinTokenChange: Hashable, Codable, Sendable {
    public var id: String
    public init(id: String) { self.id = id }
}

/// Puts a token with another id and secret in the place of one that is good. Role and uses left are the old one's as they
/// are then; it lives as long again as the old one was given.
public struct RotateJoinToken: Hashable, Codable, Sendable {
    public var id: String
    public var newID: String
    /// SHA-256 of the new secret, hexadecimal.
    public var hash: String

    public init(id: String, newID: String, hash: String) {
        self.id = id
        self.newID = newID
        self.hash = hash
    }
}

public struct APITokenChange: Hashable, Codable, Sendable {
    public var id: String
    public init(id: String) { self.id = id }
}

/// Makes a machine a node, if its token is good for it and neither its id nor its name is in use. `node.member` and
/// `node.subnet` are given by the state, whatever they say.
public struct AdmitNode: Hashable, Codable, Sendable {
    public var token: String
    public var node: NodeRow

    public init(token: String, node: NodeRow) {
        self.token = token
        self.node = node
    }
}

public struct NodeChange: Hashable, Codable, Sendable {
    public var node: NodeID
    public init(node: NodeID) { self.node = node }
}

/// Writes into the log what was decided offline: that a survivor was made a cluster of its own. Whoever replays the log
/// from its beginning learns of it here.
public struct SucceedCluster: Hashable, Codable, Sendable {
    public var clusterID: String
    public var previousClusterID: String

    public init(clusterID: String, previousClusterID: String) {
        self.clusterID = clusterID
        self.previousClusterID = previousClusterID
    }
}

/// What people say about a node. Nil leaves it as it is.
public struct SetNode: Hashable, Codable, Sendable {
    public var node: NodeID
    public var availability: NodeRow.Availability?
    public var pin: NodeRow.Pin?
    /// Set; nil values are taken away.
    public var labels: [String: String?]
    public var addTaints: [String]
    public var removeTaints: [String]

    public init(
        node: NodeID, availability: NodeRow.Availability? = nil, pin: NodeRow.Pin? = nil,
        labels: [String: String?] = [:], addTaints: [String] = [], removeTaints: [String] = []
    ) {
        self.node = node
        self.availability = availability
        self.pin = pin
        self.labels = labels
        self.addTaints = addTaints
        self.removeTaints = removeTaints
    }
}

/// Which nodes answer, as the leader sees it.
public struct SetLiveness: Hashable, Codable, Sendable {
    public struct Item: Hashable, Codable, Sendable {
        public var node: NodeID
        public var liveness: NodeRow.Liveness

        public init(node: NodeID, liveness: NodeRow.Liveness) {
            self.node = node
            self.liveness = liveness
        }
    }

    public var items: [Item]
    public init(items: [Item]) { self.items = items }
}

public struct InitializeCluster: Hashable, Codable, Sendable {
    public var clusterID: String
    public var ranges: AddressRanges

    public init(clusterID: String, ranges: AddressRanges) {
        self.clusterID = clusterID
        self.ranges = ranges
    }
}

/// Creates an app or replaces its spec; image digests are stamped.
public struct PutApp: Hashable, Codable, Sendable {
    public var spec: AppSpec
    public var condition: Precondition
    /// Without progress for this long the rollout fails.
    public var progressDeadlineMilliseconds: Int64

    public init(spec: AppSpec, condition: Precondition = .none, progressDeadlineMilliseconds: Int64 = 120_000) {
        self.spec = spec
        self.condition = condition
        self.progressDeadlineMilliseconds = progressDeadlineMilliseconds
    }
}

/// What must be true of the object for the write to happen.
public enum Precondition: Hashable, Codable, Sendable {
    case none
    case absent
    case version(UInt64)
}

public struct ScaleService: Hashable, Codable, Sendable {
    public var app: ObjectKey
    public var service: String
    public var replicas: Int

    public init(app: ObjectKey, service: String, replicas: Int) {
        self.app = app
        self.service = service
        self.replicas = replicas
    }
}

public struct AppChange: Hashable, Codable, Sendable {
    public var app: ObjectKey
    /// Only a deletion looks at it.
    public var condition: Precondition?
    public init(app: ObjectKey, condition: Precondition? = nil) {
        self.app = app
        self.condition = condition
    }
}

/// Tasks the leader places. An item whose service, generation or address is no longer free to use, or whose node is gone,
/// takes none by now or is another than it was when the place was found, is skipped.
public struct AssignTasks: Hashable, Codable, Sendable {
    /// So many get places of their own in the order of all tasks, and stay far below the bound of an entry.
    public static let tasksMax = 500

    public var tasks: [NewTask]
    /// Index of the state the places were found in; nil where that does not matter.
    public var decidedAt: UInt64?

    public init(tasks: [NewTask], decidedAt: UInt64? = nil) {
        self.tasks = tasks
        self.decidedAt = decidedAt
    }
}

public struct NewTask: Hashable, Codable, Sendable {
    public var id: TaskID
    public var app: ObjectKey
    public var service: String
    public var generation: Int
    public var node: NodeID
    public var address: IPv4Address

    public init(
        id: TaskID, app: ObjectKey, service: String, generation: Int, node: NodeID, address: IPv4Address
    ) {
        self.id = id
        self.app = app
        self.service = service
        self.generation = generation
        self.node = node
        self.address = address
    }
}

public struct StopTasks: Hashable, Codable, Sendable {
    public var tasks: [TaskID]
    public var reason: Reason

    public init(tasks: [TaskID], reason: Reason) {
        self.tasks = tasks
        self.reason = reason
    }
}

/// Tasks that are to move to better nodes, each once another has taken its place; or that stay after all.
public struct MoveTasks: Hashable, Codable, Sendable {
    public var tasks: [TaskID]
    public var moving: Bool

    public init(tasks: [TaskID], moving: Bool) {
        self.tasks = tasks
        self.moving = moving
    }
}

/// What nodes saw of their tasks.
public struct RecordTasks: Hashable, Codable, Sendable {
    public var reports: [TaskReport]
    public init(reports: [TaskReport]) { self.reports = reports }
}

/// The observed half of a task. Replaces the whole of it; a state that would go back is ignored.
public struct TaskReport: Hashable, Codable, Sendable {
    public var task: TaskID
    public var status: TaskStatus

    public init(task: TaskID, status: TaskStatus) {
        self.task = task
        self.status = status
    }
}

public struct TaskStatus: Hashable, Codable, Sendable {
    public var state: TaskState
    /// Its container runs and may get traffic.
    public var ready: Bool
    public var container: ContainerID?
    public var pid: Int32?
    public var restarts: Int
    public var exitCode: Int?
    public var reason: Reason?
    /// Of the current or last container.
    public var startedAt: Timestamp?

    public init(
        state: TaskState, ready: Bool = false, container: ContainerID? = nil, pid: Int32? = nil, restarts: Int = 0,
        exitCode: Int? = nil, reason: Reason? = nil, startedAt: Timestamp? = nil
    ) {
        self.state = state
        self.ready = ready
        self.container = container
        self.pid = pid
        self.restarts = restarts
        self.exitCode = exitCode
        self.reason = reason
        self.startedAt = startedAt
    }
}

/// Drops the rows of ended tasks.
public struct RemoveTasks: Hashable, Codable, Sendable {
    public var tasks: [TaskID]
    public init(tasks: [TaskID]) { self.tasks = tasks }
}

public struct EndRollout: Hashable, Codable, Sendable {
    public enum Outcome: Hashable, Codable, Sendable {
        case succeeded
        /// Goes back to the release before when there is one; that is what decides between failed and rolled back.
        case failed(Reason, task: TaskID?)
        /// The release before runs again.
        case rolledBack
    }

    public var id: String
    public var outcome: Outcome

    public init(id: String, outcome: Outcome) {
        self.id = id
        self.outcome = outcome
    }
}

public struct PutVolume: Hashable, Codable, Sendable {
    public var volume: ObjectKey
    public var node: NodeID?

    public init(volume: ObjectKey, node: NodeID?) {
        self.volume = volume
        self.node = node
    }
}

public struct VolumeChange: Hashable, Codable, Sendable {
    public var volume: ObjectKey
    public init(volume: ObjectKey) { self.volume = volume }
}

public struct PutConfig: Hashable, Codable, Sendable {
    public var config: ObjectKey
    public var data: String
    public var condition: Precondition

    public init(config: ObjectKey, data: String, condition: Precondition) {
        self.config = config
        self.data = data
        self.condition = condition
    }
}

public struct DeleteConfig: Hashable, Codable, Sendable {
    public var config: ObjectKey
    public var condition: Precondition

    public init(config: ObjectKey, condition: Precondition) {
        self.config = config
        self.condition = condition
    }
}
