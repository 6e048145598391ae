// SPDX-License-Identifier: Apache-2.0

// What the API says of networks. Names are pinned in docs/reference/api.md; JSON.encode writes them in snake_case.

/// A range of addresses and what it is for.
public struct NetworkView: Hashable, Codable, Sendable {
    public struct Node: Hashable, Codable, Sendable {
        public var name: String
        /// Other nodes send to it.
        public var address: String
        public var subnet: IPv4Subnet
        /// Addresses of tasks that have not ended.
        public var used: Int

        public init(name: String, address: String, subnet: IPv4Subnet, used: Int) {
            self.name = name
            self.address = address
            self.subnet = subnet
            self.used = used
        }
    }

    /// `containers` or `services`.
    public var name: String
    /// `overlay`: an address for each task, reached from every node. `virtual`: one for each service.
    public var kind: String
    public var subnet: IPv4Subnet
    public var used: Int
    /// `none`: what nodes send one another can be read on the way.
    public var encryption: String
    /// Shares of the nodes; empty where there are none.
    public var nodes: [Node]

    public init(
        name: String, kind: String, subnet: IPv4Subnet, used: Int, encryption: String, nodes: [Node] = []
    ) {
        self.name = name
        self.kind = kind
        self.subnet = subnet
        self.used = used
        self.encryption = encryption
        self.nodes = nodes
    }
}

/// What was found on the way from each node to each other one.
public struct NetworkDoctorView: Hashable, Codable, Sendable {
    public struct Path: Hashable, Codable, Sendable {
        public var from: String
        public var to: String
        public var finding: PathFinding
        /// Nil when all is well.
        public var reason: Reason?

        public init(from: String, to: String, finding: PathFinding, reason: Reason?) {
            self.from = from
            self.to = to
            self.finding = finding
            self.reason = reason
        }
    }

    /// Every path is, and every node was asked.
    public var healthy: Bool
    public var paths: [Path]
    /// Nodes that could not be asked.
    public var silent: [SilentNode]

    public init(paths: [Path], silent: [SilentNode]) {
        healthy = silent.isEmpty && paths.allSatisfy { $0.finding == .healthy }
        self.paths = paths
        self.silent = silent
    }
}

/// A node that could not be asked, and why.
public struct SilentNode: Hashable, Codable, Sendable {
    public var node: String
    public var why: String

    public init(node: String, why: String) {
        self.node = node
        self.why = why
    }
}

/// Addresses in the state compared with those in the kernels.
public struct AddressCheckView: Hashable, Codable, Sendable {
    public var healthy: Bool
    /// Addresses that were compared.
    public var compared: Int
    public var findings: [AddressFinding]
    public var silent: [SilentNode]

    public init(compared: Int, findings: [AddressFinding], silent: [SilentNode]) {
        healthy = silent.isEmpty && findings.isEmpty
        self.compared = compared
        self.findings = findings
        self.silent = silent
    }
}

/// An address that is not where it should be.
public struct AddressFinding: Hashable, Codable, Sendable {
    public enum Kind: String, Codable, Sendable {
        /// A link has it, no task does.
        case leaked
        /// A running task should have it, no link does.
        case missing
        /// The link of a task has another one than the state says.
        case wrong
        /// Two tasks or services have it.
        case duplicate
        /// It is not in the range of its node or of the cluster.
        case outside
    }

    public var kind: Kind
    public var address: IPv4Address
    /// Name of the node; nil for a service's.
    public var node: String?
    /// What is wrong, and with which task or service.
    public var message: String
    public var hint: String

    public init(_ kind: Kind, _ address: IPv4Address, node: String?, _ message: String, hint: String) {
        self.kind = kind
        self.address = address
        self.node = node
        self.message = message
        self.hint = hint
    }
}
