// SPDX-License-Identifier: Apache-2.0

// What nodes show one another, and who vouches for it. Names are pinned in docs/reference/api.md.

/// `GET /v1/security/certificates`.
public struct CertificatesView: Hashable, Codable, Sendable {
    /// The one that issues first.
    public var authorities: [AuthorityStateView]
    /// Nil unless an authority takes the place of another.
    public var exchange: AuthorityExchangeView?
    /// By the nodes' names.
    public var items: [CertificateView]
    public var index: UInt64

    public init(
        authorities: [AuthorityStateView], exchange: AuthorityExchangeView?, items: [CertificateView], index: UInt64
    ) {
        self.authorities = authorities
        self.exchange = exchange
        self.items = items
        self.index = index
    }
}

public struct AuthorityStateView: Hashable, Codable, Sendable {
    /// SHA-256 of its public key, hexadecimal.
    public var id: String
    /// coming (believed), issuing or going (believed still).
    public var phase: String
    public var createdAt: Timestamp

    public init(id: String, phase: String, createdAt: Timestamp) {
        self.id = id
        self.phase = phase
        self.createdAt = createdAt
    }
}

public struct AuthorityExchangeView: Hashable, Codable, Sendable {
    /// spreading (every node is to believe the new one) or renewing (every node is to get a certificate of it).
    public var step: String
    /// Names of nodes.
    public var waitingFor: [String]

    public init(step: String, waitingFor: [String]) {
        self.step = step
        self.waitingFor = waitingFor
    }
}

/// The certificate of a node, as the node said itself. Without the fields after `state` nothing is known of it yet.
public struct CertificateView: Hashable, Codable, Sendable {
    public var node: String
    /// Of the node: ready, suspect, down or drained.
    public var state: String
    /// The name that stands in it.
    public var subject: String?
    /// Hexadecimal.
    public var serial: String?
    /// Id of the authority that signed it.
    public var authority: String?
    public var notBefore: Timestamp?
    public var notAfter: Timestamp?
    /// Whole days until its end; negative once it has expired.
    public var daysLeft: Int?
    /// When the node renews it by itself.
    public var renewsAt: Timestamp?
    /// It is to be exchanged now.
    public var isRenewing: Bool?

    public init(node: String, state: String) {
        self.node = node
        self.state = state
    }
}

/// `POST /v1/security/certificates/renew`.
public struct CertificateRenewRequest: Hashable, Codable, Sendable {
    /// Names or ids; nil is all.
    public var nodes: [String]?
    public init(nodes: [String]? = nil) { self.nodes = nodes }
}
