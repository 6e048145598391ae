// SPDX-License-Identifier: Apache-2.0

/// Images and containers of one node. The Agent is its only caller; calls for different ids run side by side, calls
/// for one id never overlap.
///
/// Every method may be repeated after a crash: each leads to the state it names, whatever was half done before.
/// Errors conform to `ReasonError`. Every call ends in bounded time.
public protocol Runtime: Sendable {
    /// Finds what `reference` means now, without fetching layers: the registry first, then what is stored here.
    func resolve(image reference: String) async throws -> ResolvedImage

    /// Fetches and unpacks the image unless it is complete here already.
    /// - Parameter digest: what `resolve` gave; the content is checked against it.
    func pull(image reference: String, digest: String) async throws

    /// Imports every image of an OCI-layout or docker-archive tar.
    /// - Parameter name: reference for an image the archive does not name; nil refuses such an archive.
    func importImages(archive path: String, name: String?) async throws -> [ImageSummary]

    /// Sorted by name.
    func images() async throws -> [ImageSummary]

    /// Removes the name; content no other name or container uses goes with it. Throws `imageNotFound`.
    func removeImage(_ reference: String) async throws

    /// Makes and starts a container whose image was pulled. Returns once its process runs.
    /// Throws a final Reason (`commandNotFound` and the like) where trying again cannot help; nothing is left behind then.
    func start(_ container: ContainerSpec) async throws -> StartedContainer

    /// Sends the stop signal, SIGKILL after the timeout, and returns when the process is gone. No error when it is
    /// gone already. The container's record stays until `remove`.
    func stop(_ id: ContainerID, signal: String?, timeoutMilliseconds: Int) async throws

    /// Removes container, snapshot and files of it, killing it when it still runs. Logs stay.
    func remove(_ id: ContainerID) async throws

    /// Deletes the logs of a task.
    func removeLogs(task: TaskID) async throws

    /// Tasks that have logs here, sorted.
    func loggedTasks() async throws -> [TaskID]

    /// Every container of this daemon, running or not, sorted by id.
    func containers() async throws -> [ObservedContainer]

    /// What happened since the call; ends only with the runtime. After `.resync` the caller lists again.
    func events() -> AsyncStream<RuntimeEvent>

    /// Lines of a task's containers, oldest first, over all its attempts.
    func logs(_ query: LogQuery) -> AsyncThrowingStream<LogLine, any Error>

    /// Version and state, for `status` and `node info`.
    func info() async -> RuntimeInfo
}

public struct ResolvedImage: Hashable, Codable, Sendable {
    /// The full form: registry, repository, tag or digest.
    public var reference: String
    public var digest: String
    /// True when the registry could not be asked and the stored image was taken.
    public var isLocal: Bool

    public init(reference: String, digest: String, isLocal: Bool) {
        self.reference = reference
        self.digest = digest
        self.isLocal = isLocal
    }
}

public struct ImageSummary: Hashable, Codable, Sendable {
    public var name: String
    public var digest: String
    public var sizeBytes: Int64
    public var createdAt: Timestamp?

    public init(name: String, digest: String, sizeBytes: Int64, createdAt: Timestamp?) {
        self.name = name
        self.digest = digest
        self.sizeBytes = sizeBytes
        self.createdAt = createdAt
    }
}

/// Everything the runtime needs to make one container; it knows nothing of replicas or other nodes.
public struct ContainerSpec: Hashable, Codable, Sendable {
    public var id: ContainerID
    public var task: TaskID
    public var attempt: Int
    public var service: ServiceSpec
    /// Shown in labels and names, never looked up.
    public var app: ObjectKey
    public var mounts: [ContainerMount]
    /// Path of the network namespace; nil in a simulated network.
    public var networkNamespace: String?
    public var address: IPv4Address?
    /// Lines of /etc/resolv.conf come from these.
    public var nameServers: [IPv4Address]
    public var hostname: String

    public init(
        id: ContainerID,
        task: TaskID,
        attempt: Int,
        service: ServiceSpec,
        app: ObjectKey,
        mounts: [ContainerMount],
        networkNamespace: String?,
        address: IPv4Address?,
        nameServers: [IPv4Address],
        hostname: String
    ) {
        self.id = id
        self.task = task
        self.attempt = attempt
        self.service = service
        self.app = app
        self.mounts = mounts
        self.networkNamespace = networkNamespace
        self.address = address
        self.nameServers = nameServers
        self.hostname = hostname
    }
}

/// One mount, ready: the source exists on this node.
public struct ContainerMount: Hashable, Codable, Sendable {
    public enum Kind: Hashable, Codable, Sendable {
        case bind(source: String)
        case tmpfs(sizeBytes: Int64?)
    }

    public var kind: Kind
    public var target: String
    public var readOnly: Bool
    /// A volume never used before: before the first start the runtime gives it the owner, mode and content the image
    /// has at `target`.
    public var seedsFromImage: Bool

    public init(kind: Kind, target: String, readOnly: Bool, seedsFromImage: Bool = false) {
        self.kind = kind
        self.target = target
        self.readOnly = readOnly
        self.seedsFromImage = seedsFromImage
    }
}

public struct StartedContainer: Hashable, Codable, Sendable {
    public var pid: Int32
    public var startedAt: Timestamp

    public init(pid: Int32, startedAt: Timestamp) {
        self.pid = pid
        self.startedAt = startedAt
    }
}

/// How a container ended.
public struct ExitStatus: Hashable, Codable, Sendable {
    /// 0...255, 128 + signal when a signal ended it.
    public var code: Int
    public var outOfMemory: Bool
    public var at: Timestamp

    public init(code: Int, outOfMemory: Bool, at: Timestamp) {
        self.code = code
        self.outOfMemory = outOfMemory
        self.at = at
    }

    /// The signal that ended it, by the shell's convention.
    public var signal: Int? { code > 128 && code <= 192 ? code - 128 : nil }

    public var reason: Reason {
        if outOfMemory {
            return Reason(
                .outOfMemory, "killed: it used more memory than its limit", hint: "raise --memory or find the leak")
        }
        if let signal { return Reason(.killed, "ended by signal \(signal)") }
        return code == 0 ? Reason(.completed, "finished with exit code 0") : Reason(.exited, "exited with code \(code)")
    }
}

public struct ObservedContainer: Hashable, Codable, Sendable {
    public enum State: Hashable, Codable, Sendable {
        /// Made but never started, or left half made by a crash: only fit to be removed.
        case created
        case running(pid: Int32)
        case exited(ExitStatus)
    }

    public var id: ContainerID
    public var task: TaskID
    public var attempt: Int
    public var state: State
    public var startedAt: Timestamp?

    public init(id: ContainerID, task: TaskID, attempt: Int, state: State, startedAt: Timestamp?) {
        self.id = id
        self.task = task
        self.attempt = attempt
        self.state = state
        self.startedAt = startedAt
    }
}

public enum RuntimeEvent: Hashable, Sendable {
    case exited(ContainerID, ExitStatus)
    /// Events may have been missed (the runtime restarted): list again.
    case resync
}

/// Which lines to read.
public struct LogQuery: Hashable, Sendable {
    public var task: TaskID
    /// Only the last n lines of what is stored; nil for all.
    public var tail: Int?
    public var since: Timestamp?
    /// Goes on with new lines until the caller stops or the task's logs are removed.
    public var follow: Bool

    public init(task: TaskID, tail: Int? = nil, since: Timestamp? = nil, follow: Bool = false) {
        self.task = task
        self.tail = tail
        self.since = since
        self.follow = follow
    }
}

public struct LogLine: Hashable, Codable, Sendable {
    public enum Stream: String, Codable, Sendable { case stdout, stderr }

    public var at: Timestamp
    public var stream: Stream
    public var text: String

    public init(at: Timestamp, stream: Stream, text: String) {
        self.at = at
        self.stream = stream
        self.text = text
    }
}

public struct RuntimeInfo: Hashable, Codable, Sendable {
    /// `containerd` or `simulated`.
    public var kind: String
    public var version: String
    public var address: String
    public var isReady: Bool
    /// What a person should know: a missing capability, a deprecation of the host.
    public var conditions: [String]

    public init(kind: String, version: String, address: String, isReady: Bool, conditions: [String] = []) {
        self.kind = kind
        self.version = version
        self.address = address
        self.isReady = isReady
        self.conditions = conditions
    }
}
