// SPDX-License-Identifier: Apache-2.0

// Who may use the API. Names are pinned in docs/reference/api.md.

/// `POST /v1/tokens`.
public struct APITokenRequest: Hashable, Codable, Sendable {
    /// For people: whose it is. Nil: without a name.
    public var name: String?
    /// viewer, operator or admin; nil is viewer.
    public var role: String?
    /// Nil: good for all namespaces.
    public var namespace: String?
    /// For example `30d`; nil is 90 days.
    public var ttl: String?

    public init(name: String? = nil, role: String? = nil, namespace: String? = nil, ttl: String? = nil) {
        self.name = name
        self.role = role
        self.namespace = namespace
        self.ttl = ttl
    }
}

public struct APITokenView: Hashable, Codable, Sendable {
    public var id: String
    public var name: String
    /// viewer, operator or admin.
    public var role: String
    /// Nil: all.
    public var namespace: String?
    public var createdAt: Timestamp
    public var expiresAt: Timestamp
    /// Only in the answer to its creation: nobody can show it again.
    public var token: String?
    /// `host:port` at which it can be used, and the digest of the authority found there; only at its creation.
    public var addresses: [String]?
    public var authorityDigest: String?

    public init(
        id: String, name: String, role: String, namespace: String?, createdAt: Timestamp, expiresAt: Timestamp,
        token: String? = nil, addresses: [String]? = nil, authorityDigest: String? = nil
    ) {
        self.id = id
        self.name = name
        self.role = role
        self.namespace = namespace
        self.createdAt = createdAt
        self.expiresAt = expiresAt
        self.token = token
        self.addresses = addresses
        self.authorityDigest = authorityDigest
    }
}

/// `GET /v1/whoami`.
public struct IdentityView: Hashable, Codable, Sendable {
    /// socket, certificate or token.
    public var kind: String
    /// Of the token or the node; `root` on the socket.
    public var name: String
    public var token: String?
    public var role: String
    /// Nil: all.
    public var namespace: String?
    public var expiresAt: Timestamp?
    /// The node that answers.
    public var node: String?

    public init(
        kind: String, name: String, token: String? = nil, role: String, namespace: String? = nil,
        expiresAt: Timestamp? = nil, node: String? = nil
    ) {
        self.kind = kind
        self.name = name
        self.token = token
        self.role = role
        self.namespace = namespace
        self.expiresAt = expiresAt
        self.node = node
    }
}

/// `GET /v1/can-i`.
public struct PermissionView: Hashable, Codable, Sendable {
    public var allowed: Bool
    /// What would be needed, when it is not.
    public var reason: String?
    public var hint: String?

    public init(allowed: Bool, reason: String? = nil, hint: String? = nil) {
        self.allowed = allowed
        self.reason = reason
        self.hint = hint
    }
}
