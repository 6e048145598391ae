// SPDX-License-Identifier: Apache-2.0
internal import GRDB
public import Model

/// A token for the API, without its secret.
public struct APITokenRow: Hashable, Codable, Sendable {
    public var id: String
    /// For people; may be empty.
    public var name: String
    /// SHA-256 of the secret, hexadecimal.
    public var hash: String
    public var role: APIRole
    /// Nil: good for all namespaces.
    public var namespace: String?
    public var createdAt: Timestamp
    public var expiresAt: Timestamp

    public init(
        id: String, name: String, hash: String, role: APIRole, namespace: String?, createdAt: Timestamp,
        expiresAt: Timestamp
    ) {
        self.id = id
        self.name = name
        self.hash = hash
        self.role = role
        self.namespace = namespace
        self.createdAt = createdAt
        self.expiresAt = expiresAt
    }
}

extension APITokenRow {
    init(row: Row) throws {
        guard let role = APIRole(rawValue: row.text("role")) else { throw CorruptRow("api_tokens", row.text("id")) }
        self.init(
            id: row.text("id"), name: row.text("name"), hash: row.text("hash"), role: role,
            namespace: row.optionalText("namespace"), createdAt: row.time("created_at"),
            expiresAt: row.time("expires_at"))
    }
}
