// SPDX-License-Identifier: Apache-2.0

// How nodes come to a cluster and leave it. Names are pinned in docs/reference/api.md.

/// `POST /v1/cluster/init`.
public struct ClusterInitRequest: Hashable, Codable, Sendable {
    /// IPv4 address of this machine at which the others reach it; nil takes that of its first interface.
    public var advertise: String?
    /// Nil: 4484.
    public var peerPort: Int?
    /// Nil: 4483.
    public var apiPort: Int?
    /// What nodes send one another for containers is to be encrypted, or there shall be no cluster. Nil: false.
    public var encrypt: Bool?

    public init(advertise: String? = nil, peerPort: Int? = nil, apiPort: Int? = nil, encrypt: Bool? = nil) {
        self.advertise = advertise
        self.peerPort = peerPort
        self.apiPort = apiPort
        self.encrypt = encrypt
    }
}

/// Shown once: the code opens the cluster's secrets in a backup.
public struct ClusterInitView: Hashable, Codable, Sendable {
    public var id: String
    public var node: String
    /// `host:port` of the API.
    public var address: String
    public var recoveryCode: String

    public init(id: String, node: String, address: String, recoveryCode: String) {
        self.id = id
        self.node = node
        self.address = address
        self.recoveryCode = recoveryCode
    }
}

/// `POST /v1/cluster/join`, on the machine that joins.
public struct ClusterJoinRequest: Hashable, Codable, Sendable {
    public var token: String
    public var advertise: String?
    /// voter or observer; nil leaves it to the cluster, and to the token.
    public var role: String?
    public var peerPort: Int?
    public var apiPort: Int?

    public init(
        token: String, advertise: String? = nil, role: String? = nil, peerPort: Int? = nil, apiPort: Int? = nil
    ) {
        self.token = token
        self.advertise = advertise
        self.role = role
        self.peerPort = peerPort
        self.apiPort = apiPort
    }
}

public struct ClusterJoinView: Hashable, Codable, Sendable {
    /// Of the cluster.
    public var id: String
    public var node: String
    public var member: UInt64

    public init(id: String, node: String, member: UInt64) {
        self.id = id
        self.node = node
        self.member = member
    }
}

/// Something that keeps a machine from joining.
public struct JoinFinding: Hashable, Codable, Sendable {
    public enum Check: String, Codable, Sendable, CaseIterable {
        /// The machine has apps or volumes of its own.
        case empty
        /// The address it is to be known by is not its own, or not on a link others reach.
        case address
        /// No address of the token leads to its cluster.
        case reach
        case token, version, clock, name
        /// A range of the cluster is something else on this machine.
        case ranges
        /// A port of this machine is taken.
        case ports
        /// TCP from this machine to nodes, and back.
        case tcpOut = "tcp_out"
        case tcpIn = "tcp_in"
        /// Datagrams to the overlay's port of nodes, and back.
        case udpOut = "udp_out"
        case udpIn = "udp_in"
        /// Small datagrams arrive, whole ones do not.
        case mtu
        /// The cluster refused for another reason.
        case refused
    }

    public var check: Check
    /// As the request would have been refused for it alone.
    public var code: Problem.Code
    public var message: String
    public var hint: String?

    public init(_ check: Check, _ code: Problem.Code, _ message: String, hint: String?) {
        self.check = check
        self.code = code
        self.message = message
        self.hint = hint
    }
}

/// `POST /v1/cluster/join/check`: everything that is in the way, and nothing changed.
public struct ClusterJoinCheckView: Hashable, Codable, Sendable {
    public var ready: Bool
    public var findings: [JoinFinding]
    /// Nodes the ways to and from were tried.
    public var nodes: [String]

    public init(findings: [JoinFinding], nodes: [String]) {
        ready = findings.isEmpty
        self.findings = findings
        self.nodes = nodes
    }
}

/// `PATCH /v1/nodes/{name}`: absent fields stay as they are.
public struct NodePatch: Hashable, Codable, Sendable {
    /// active, cordoned (no new tasks) or drained (no tasks).
    public var availability: String?
    /// auto, voter or observer.
    public var role: String?
    /// Set; null takes a label away.
    public var labels: [String: String?]?
    public var addTaints: [String]?
    public var removeTaints: [String]?

    public init(
        availability: String? = nil, role: String? = nil, labels: [String: String?]? = nil,
        addTaints: [String]? = nil, removeTaints: [String]? = nil
    ) {
        self.availability = availability
        self.role = role
        self.labels = labels
        self.addTaints = addTaints
        self.removeTaints = removeTaints
    }
}

/// `POST /v1/cluster/tokens`.
public struct JoinTokenRequest: Hashable, Codable, Sendable {
    /// voter or observer; nil leaves it to the cluster.
    public var role: String?
    /// For example `24h`; nil is a day.
    public var ttl: String?
    /// Machines it lets in; nil is any number.
    public var uses: Int?

    public init(role: String? = nil, ttl: String? = nil, uses: Int? = nil) {
        self.role = role
        self.ttl = ttl
        self.uses = uses
    }
}

public struct JoinTokenView: Hashable, Codable, Sendable {
    public var id: String
    /// Only in the answer to its creation: nobody can show it again.
    public var token: String?
    /// auto, voter or observer.
    public var role: String
    public var usesLeft: Int?
    public var createdAt: Timestamp
    public var expiresAt: Timestamp

    public init(
        id: String, token: String?, role: String, usesLeft: Int?, createdAt: Timestamp, expiresAt: Timestamp
    ) {
        self.id = id
        self.token = token
        self.role = role
        self.usesLeft = usesLeft
        self.createdAt = createdAt
        self.expiresAt = expiresAt
    }
}
