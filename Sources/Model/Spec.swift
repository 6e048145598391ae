// SPDX-License-Identifier: Apache-2.0

/// What a user asks for: a named set of services. One deploy replaces the whole of it.
public struct AppSpec: Hashable, Codable, Sendable {
    public var key: ObjectKey
    /// 1...100, names unique, sorted by name.
    public var services: [ServiceSpec]

    public init(key: ObjectKey, services: [ServiceSpec]) {
        self.key = key
        self.services = services.sorted { $0.name < $1.name }
    }
}

/// One service of an app: what every replica of it is.
///
/// A task is replaced when anything here but `replicas`, `endpointMode` and ports in ingress mode changes (`taskFields`).
public struct ServiceSpec: Hashable, Codable, Sendable {
    public var name: String
    /// As the user wrote it: `nginx`, `registry:5000/team/app:1.2`, `app@sha256:…`.
    public var image: String
    /// Manifest or index digest the reference meant at deploy; stamped by the API, never by a node later on.
    public var imageDigest: String?
    /// 0...1000; 1 for a global service, whose nodes say how many there are.
    public var replicas: Int
    /// Replaces the image's entrypoint.
    public var entrypoint: [String]?
    /// Replaces the image's command.
    public var command: [String]?
    public var environment: [String: String]
    public var user: String?
    public var workingDirectory: String?
    public var hostname: String?
    public var labels: [String: String]
    public var mounts: [MountSpec]
    public var ports: [PortSpec]
    public var resources: Resources
    public var restart: RestartPolicy
    public var endpointMode: EndpointMode
    public var readOnlyRoot: Bool
    public var capabilitiesAdd: [String]
    public var capabilitiesDrop: [String]
    /// Signal name (`SIGTERM`); nil takes the image's, else SIGTERM.
    public var stopSignal: String?
    /// Between the stop signal and SIGKILL, 0...3,600,000.
    public var stopTimeoutMilliseconds: Int
    /// Nil for any node that takes tasks.
    public var placement: Placement?
    /// Nil for `replicated`.
    public var mode: ServiceMode?

    public init(
        name: String,
        image: String,
        imageDigest: String? = nil,
        replicas: Int = 1,
        entrypoint: [String]? = nil,
        command: [String]? = nil,
        environment: [String: String] = [:],
        user: String? = nil,
        workingDirectory: String? = nil,
        hostname: String? = nil,
        labels: [String: String] = [:],
        mounts: [MountSpec] = [],
        ports: [PortSpec] = [],
        resources: Resources = Resources(),
        restart: RestartPolicy = .always,
        endpointMode: EndpointMode = .vip,
        readOnlyRoot: Bool = false,
        capabilitiesAdd: [String] = [],
        capabilitiesDrop: [String] = [],
        stopSignal: String? = nil,
        stopTimeoutMilliseconds: Int = 10_000,
        placement: Placement? = nil,
        mode: ServiceMode? = nil
    ) {
        self.name = name
        self.image = image
        self.imageDigest = imageDigest
        self.replicas = replicas
        self.entrypoint = entrypoint
        self.command = command
        self.environment = environment
        self.user = user
        self.workingDirectory = workingDirectory
        self.hostname = hostname
        self.labels = labels
        self.mounts = mounts
        self.ports = ports
        self.resources = resources
        self.restart = restart
        self.endpointMode = endpointMode
        self.readOnlyRoot = readOnlyRoot
        self.capabilitiesAdd = capabilitiesAdd
        self.capabilitiesDrop = capabilitiesDrop
        self.stopSignal = stopSignal
        self.stopTimeoutMilliseconds = stopTimeoutMilliseconds
        self.placement = placement
        self.mode = mode
    }

    /// The part of the spec a running container was made from: two specs with equal `taskFields` need no new task.
    public var taskFields: ServiceSpec {
        var copy = self
        copy.replicas = 0
        copy.ports = ports.filter { $0.mode == .host }
        copy.endpointMode = .vip
        return copy
    }

    public var isGlobal: Bool { mode == .global }

    /// What one task of it takes of its node, and of that node alone.
    public var hostPorts: [PublishedPort] {
        ports.compactMap { port in
            guard port.mode == .host, let hostPort = port.hostPort else { return nil }
            return PublishedPort(hostPort: hostPort, containerPort: port.containerPort, protocol: port.protocol)
        }
    }

    /// Start-first updates are safe only where two replicas may run side by side on the same data.
    public var hasWritableVolume: Bool {
        mounts.contains { mount in
            if case .tmpfs = mount.source { return false }
            return !mount.readOnly
        }
    }

    // Every field but name and image may be left out of JSON.
    public init(from decoder: any Decoder) throws {
        let c = try decoder.container(keyedBy: CodingKeys.self)
        name = try c.decode(String.self, forKey: .name)
        image = try c.decode(String.self, forKey: .image)
        imageDigest = try c.decodeIfPresent(String.self, forKey: .imageDigest)
        replicas = try c.decodeIfPresent(Int.self, forKey: .replicas) ?? 1
        entrypoint = try c.decodeIfPresent([String].self, forKey: .entrypoint)
        command = try c.decodeIfPresent([String].self, forKey: .command)
        environment = try c.decodeIfPresent([String: String].self, forKey: .environment) ?? [:]
        user = try c.decodeIfPresent(String.self, forKey: .user)
        workingDirectory = try c.decodeIfPresent(String.self, forKey: .workingDirectory)
        hostname = try c.decodeIfPresent(String.self, forKey: .hostname)
        labels = try c.decodeIfPresent([String: String].self, forKey: .labels) ?? [:]
        mounts = try c.decodeIfPresent([MountSpec].self, forKey: .mounts) ?? []
        ports = try c.decodeIfPresent([PortSpec].self, forKey: .ports) ?? []
        resources = try c.decodeIfPresent(Resources.self, forKey: .resources) ?? Resources()
        restart = try c.decodeIfPresent(RestartPolicy.self, forKey: .restart) ?? .always
        endpointMode = try c.decodeIfPresent(EndpointMode.self, forKey: .endpointMode) ?? .vip
        readOnlyRoot = try c.decodeIfPresent(Bool.self, forKey: .readOnlyRoot) ?? false
        capabilitiesAdd = try c.decodeIfPresent([String].self, forKey: .capabilitiesAdd) ?? []
        capabilitiesDrop = try c.decodeIfPresent([String].self, forKey: .capabilitiesDrop) ?? []
        stopSignal = try c.decodeIfPresent(String.self, forKey: .stopSignal)
        stopTimeoutMilliseconds = try c.decodeIfPresent(Int.self, forKey: .stopTimeoutMilliseconds) ?? 10_000
        placement = try c.decodeIfPresent(Placement.self, forKey: .placement)
        mode = try c.decodeIfPresent(ServiceMode.self, forKey: .mode)
    }
}

/// One mount of a service; in JSON `{"type": "volume", "source": "data", "target": "/data", "read_only": false}`.
public struct MountSpec: Hashable, Codable, Sendable {
    public enum Source: Hashable, Sendable {
        /// A volume by name, made at first use when it does not exist.
        case volume(String)
        /// A path of the node, which must exist.
        case bind(String)
        /// Memory, gone with the container. Size in bytes, nil for the kernel's default (half the memory).
        case tmpfs(sizeBytes: Int64?)
    }

    public var source: Source
    /// Absolute path in the container.
    public var target: String
    public var readOnly: Bool

    public init(source: Source, target: String, readOnly: Bool = false) {
        self.source = source
        self.target = target
        self.readOnly = readOnly
    }

    private enum Kind: String, Codable { case volume, bind, tmpfs }
    private enum CodingKeys: String, CodingKey { case type, source, target, readOnly, sizeBytes }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        switch try container.decode(Kind.self, forKey: .type) {
        case .volume: source = .volume(try container.decode(String.self, forKey: .source))
        case .bind: source = .bind(try container.decode(String.self, forKey: .source))
        case .tmpfs: source = .tmpfs(sizeBytes: try container.decodeIfPresent(Int64.self, forKey: .sizeBytes))
        }
        target = try container.decode(String.self, forKey: .target)
        readOnly = try container.decodeIfPresent(Bool.self, forKey: .readOnly) ?? false
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        switch source {
        case .volume(let name):
            try container.encode(Kind.volume, forKey: .type)
            try container.encode(name, forKey: .source)
        case .bind(let path):
            try container.encode(Kind.bind, forKey: .type)
            try container.encode(path, forKey: .source)
        case .tmpfs(let size):
            try container.encode(Kind.tmpfs, forKey: .type)
            try container.encodeIfPresent(size, forKey: .sizeBytes)
        }
        try container.encode(target, forKey: .target)
        try container.encode(readOnly, forKey: .readOnly)
    }
}

public enum PortProtocol: String, Hashable, Codable, Sendable, CaseIterable {
    case tcp, udp
}

/// Where a published port is reached; words of Compose.
public enum PortMode: String, Hashable, Codable, Sendable, CaseIterable {
    /// On every node, balanced over all endpoints.
    case ingress
    /// On the node of each task, leading to that task: one to a node, and a node whose port is taken takes no task.
    case host
}

/// A port of the service that is published; in JSON `mode` may be left out and is `ingress` then.
public struct PortSpec: Hashable, Codable, Sendable, CustomStringConvertible {
    /// 1...65535; nil lets the leader choose one of 30000...32767, in mode `ingress` only.
    public var hostPort: UInt16?
    public var containerPort: UInt16
    public var `protocol`: PortProtocol
    public var mode: PortMode

    public init(
        hostPort: UInt16?, containerPort: UInt16, protocol: PortProtocol = .tcp, mode: PortMode = .ingress
    ) {
        self.hostPort = hostPort
        self.containerPort = containerPort
        self.protocol = `protocol`
        self.mode = mode
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        hostPort = try container.decodeIfPresent(UInt16.self, forKey: .hostPort)
        containerPort = try container.decode(UInt16.self, forKey: .containerPort)
        `protocol` = try container.decode(PortProtocol.self, forKey: .protocol)
        mode = try container.decodeIfPresent(PortMode.self, forKey: .mode) ?? .ingress
    }

    public var description: String { "\(hostPort.map { "\($0):" } ?? "")\(containerPort)/\(`protocol`.rawValue)" }
}

/// Limits of one container, and what is set aside for it. Zero or nil means no limit, except pids.
public struct Resources: Hashable, Codable, Sendable {
    /// Thousandths of a core.
    public var cpuMillis: Int?
    public var memoryBytes: Int64?
    /// Processes and threads; a fork bomb stops here.
    public var pidsMax: Int64
    /// Thousandths of a core that its node must have left for it; at most the limit.
    public var reservedCpuMillis: Int?
    /// Memory that its node must have left for it; at most the limit.
    public var reservedMemoryBytes: Int64?
    public var isReserving: Bool { (reservedCpuMillis ?? 0) > 0 || (reservedMemoryBytes ?? 0) > 0 }

    public init(
        cpuMillis: Int? = nil, memoryBytes: Int64? = nil, pidsMax: Int64 = 4096, reservedCpuMillis: Int? = nil,
        reservedMemoryBytes: Int64? = nil
    ) {
        self.cpuMillis = cpuMillis
        self.memoryBytes = memoryBytes
        self.pidsMax = pidsMax
        self.reservedCpuMillis = reservedCpuMillis
        self.reservedMemoryBytes = reservedMemoryBytes
    }
}

/// What follows when a container of a task ends by itself.
public enum RestartPolicy: String, Hashable, Codable, Sendable, CaseIterable {
    case always
    case onFailure = "on-failure"
    case no

    public func restarts(afterExitCode code: Int) -> Bool {
        switch self {
        case .always: true
        case .onFailure: code != 0
        case .no: false
        }
    }
}

/// How many tasks a service has: so many as it says, or one on every node that may run it.
public enum ServiceMode: String, Hashable, Codable, Sendable, CaseIterable {
    case replicated, global
}

/// What a service's name answers with.
public enum EndpointMode: String, Hashable, Codable, Sendable, CaseIterable {
    case vip, dnsrr
}
