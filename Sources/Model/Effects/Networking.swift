// SPDX-License-Identifier: Apache-2.0

/// Links, routes, namespaces and balancing rules of one node.
///
/// Every method is idempotent: it leads to the state it names from whatever it finds. Errors conform to `ReasonError`.
public protocol Networking: Sendable {
    /// Makes the node ready: sysctls, gateway and name server addresses on `lo`, the route of the VIP range, the
    /// table with its chains, its end of the overlay. Refuses ranges that overlap a route of the host.
    func prepare(_ node: NodeNetwork) async throws

    /// Makes the containers of exactly these nodes reachable, and repairs this node's end of the overlay.
    /// - Parameter nodes: every other node of the cluster, in any order.
    /// - Returns: those that cannot be reached as they are described, with why; the others are connected all the same.
    func connect(_ nodes: [RemoteNode]) async throws -> [RefusedNode]

    /// Gives a task its namespace with one interface. Same task, same address: returns what exists.
    func attach(_ request: AttachmentRequest) async throws -> NetworkAttachment

    /// Removes namespace, interface, routes and open connections of a task. No error when there is nothing.
    func detach(task: TaskID) async throws

    /// Tasks that have anything left here, sorted; found in the kernel, not remembered.
    func attachedTasks() async throws -> [TaskID]

    /// The same with the address each has; a link that is half made may be missing.
    func addresses() async throws -> [TaskID: IPv4Address]

    /// Tries the way to each of `nodes` with real packets, and changes nothing.
    /// - Parameters:
    ///   - nodes: every other node, so that two with one address are found.
    ///   - limit: how long an answer may take.
    /// - Returns: one for each, in their order.
    func probe(_ nodes: [RemoteNode], within limit: Duration) async throws -> [PathDiagnosis]

    /// What of `ranges` something of this machine has already, with what to do about it; empty when both are free.
    func conflicts(_ ranges: AddressRanges) async throws -> [Reason]

    /// Sends datagrams of both sizes to the overlay's port of machines that do the same at the same time.
    /// - Parameters:
    ///   - own: an address of this machine.
    ///   - nonce: 16 bytes both ends know.
    /// - Returns: what came from each; none for those that are missing.
    func knock(
        _ others: [IPv4Address], from own: IPv4Address, nonce: [UInt8], within limit: Duration
    ) async throws -> [IPv4Address: Knocks]

    /// What this machine could encrypt with what nodes send one another, found out by trying.
    func encryption() async throws -> EncryptionSupport

    /// Makes the rules equal to `table` in one transaction, holding a reservation of each published port.
    /// Returns the ports that could not be reserved because a program of the host listens there; those are not published.
    func program(_ table: BalancingTable) async throws -> [PublishedPort]

    /// Those of `ports` a program of the host listens on, for a clear refusal before anything is changed.
    func portsInUse(_ ports: [PublishedPort]) async -> [PublishedPort]

    /// Removes everything `prepare` and `program` made.
    func tearDown() async throws
}

public struct NodeNetwork: Hashable, Codable, Sendable {
    public var subnet: IPv4Subnet
    public var ranges: AddressRanges
    /// Nil: containers of other nodes are not reached, as on a node that is alone.
    public var overlay: OverlayEnd?

    public init(subnet: IPv4Subnet, ranges: AddressRanges, overlay: OverlayEnd? = nil) {
        self.subnet = subnet
        self.ranges = ranges
        self.overlay = overlay
    }
}

/// Where this node sends and receives what its containers say to those of other nodes (VXLAN, RFC 7348).
public struct OverlayEnd: Hashable, Codable, Sendable {
    /// Assigned to VXLAN by IANA.
    public static let standardPort: UInt16 = 4789

    /// Of this node, on the link the other nodes are reached through; not on `lo`.
    public var address: IPv4Address
    /// UDP, the same on every node.
    public var port: UInt16

    public init(address: IPv4Address, port: UInt16 = Self.standardPort) {
        self.address = address
        self.port = port
    }
}

/// Another node as the overlay knows it.
public struct RemoteNode: Hashable, Codable, Sendable {
    public var id: NodeID
    /// Where it receives: the address of its `OverlayEnd`.
    public var address: IPv4Address
    /// Of its containers.
    public var subnet: IPv4Subnet
    /// What people call it.
    public var name: String

    /// - Parameter name: nil where only the id is known.
    public init(id: NodeID, address: IPv4Address, subnet: IPv4Subnet, name: String? = nil) {
        self.id = id
        self.address = address
        self.subnet = subnet
        self.name = name ?? id.raw
    }
}

/// Why each way to encrypt cannot be had; nil for one that can.
public struct EncryptionSupport: Hashable, Codable, Sendable {
    public var wireGuard: String?
    /// IPsec with AES-GCM.
    public var esp: String?

    public init(wireGuard: String?, esp: String?) {
        self.wireGuard = wireGuard
        self.esp = esp
    }
}

/// Datagrams that arrived from another machine.
public struct Knocks: OptionSet, Hashable, Codable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let small = Self(rawValue: 1)
    /// As long as the sender's link lets through in one piece.
    public static let whole = Self(rawValue: 2)
    public static let all: Self = [.small, .whole]
}

/// What is wrong with the way from one node to another.
public enum PathFinding: String, Hashable, Codable, Sendable {
    case healthy, unreachable
    case duplicateAddress = "duplicate_address"
    case missingRoute = "missing_route"
    case blockedUDP = "blocked_udp"
    case wrongMTU = "wrong_mtu"
    case brokenOffload = "broken_offload"
}

/// How the way to one node was found.
public struct PathDiagnosis: Hashable, Codable, Sendable {
    public var node: NodeID
    public var finding: PathFinding
    /// Nil when all is well.
    public var reason: Reason?

    public init(node: NodeID, finding: PathFinding, reason: Reason? = nil) {
        self.node = node
        self.finding = finding
        self.reason = reason
    }
}

/// A node the overlay does not lead to.
public struct RefusedNode: Hashable, Codable, Sendable {
    public var node: NodeID
    public var reason: Reason

    public init(node: NodeID, reason: Reason) {
        self.node = node
        self.reason = reason
    }
}

public struct AttachmentRequest: Hashable, Codable, Sendable {
    public var task: TaskID
    public var address: IPv4Address

    public init(task: TaskID, address: IPv4Address) {
        self.task = task
        self.address = address
    }
}

public struct NetworkAttachment: Hashable, Codable, Sendable {
    /// Nil in a simulated network.
    public var namespacePath: String?
    public var interface: String
    public var address: IPv4Address

    public init(namespacePath: String?, interface: String, address: IPv4Address) {
        self.namespacePath = namespacePath
        self.interface = interface
        self.address = address
    }
}

/// All the balancing of a node as one value, made by a pure function of the applied state.
public struct BalancingTable: Hashable, Codable, Sendable {
    /// Applied index this was made from.
    public var index: UInt64
    /// Sorted by vip.
    public var services: [BalancedService]
    /// Of tasks of this node alone, sorted by port.
    public var pinned: [PinnedPort]

    public init(index: UInt64, services: [BalancedService], pinned: [PinnedPort] = []) {
        self.index = index
        self.services = services
        self.pinned = pinned
    }

    /// Every port this node publishes, however it is reached.
    public var ports: [PublishedPort] { services.flatMap(\.ports) + pinned.map(\.port) }

    public static let empty = BalancingTable(index: 0, services: [])
}

/// A VIP reaches its endpoints on every port and protocol; a published port reaches one port of them.
public struct BalancedService: Hashable, Codable, Sendable {
    public var vip: IPv4Address
    /// In service, sorted. Empty: connections are refused at once, not left to time out.
    public var endpoints: [IPv4Address]
    public var ports: [PublishedPort]

    public init(vip: IPv4Address, endpoints: [IPv4Address], ports: [PublishedPort]) {
        self.vip = vip
        self.endpoints = endpoints
        self.ports = ports
    }
}

/// A port of this node that leads to one task here.
public struct PinnedPort: Hashable, Codable, Sendable {
    public var port: PublishedPort
    public var endpoint: IPv4Address

    public init(port: PublishedPort, endpoint: IPv4Address) {
        self.port = port
        self.endpoint = endpoint
    }
}

/// What a node can give only once.
public struct HostPort: Hashable, Comparable, Codable, Sendable, CustomStringConvertible {
    public var number: UInt16
    public var `protocol`: PortProtocol

    public init(_ number: UInt16, protocol: PortProtocol) {
        self.number = number
        self.protocol = `protocol`
    }

    public init(_ port: PublishedPort) { self.init(port.hostPort, protocol: port.protocol) }

    public static func < (left: Self, right: Self) -> Bool {
        (left.number, left.protocol.rawValue) < (right.number, right.protocol.rawValue)
    }
    public var description: String { "\(number)/\(`protocol`.rawValue)" }
}

public struct PublishedPort: Hashable, Comparable, Codable, Sendable, CustomStringConvertible {
    public var hostPort: UInt16
    public var containerPort: UInt16
    public var `protocol`: PortProtocol

    public init(hostPort: UInt16, containerPort: UInt16, protocol: PortProtocol) {
        self.hostPort = hostPort
        self.containerPort = containerPort
        self.protocol = `protocol`
    }

    public static func < (left: Self, right: Self) -> Bool {
        (left.hostPort, left.protocol.rawValue, left.containerPort)
            < (right.hostPort, right.protocol.rawValue, right.containerPort)
    }
    public var description: String { "\(hostPort):\(containerPort)/\(`protocol`.rawValue)" }
}
