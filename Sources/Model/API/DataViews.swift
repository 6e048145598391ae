// SPDX-License-Identifier: Apache-2.0

// What the API answers. Names are pinned in docs/reference/api.md; JSON.encode writes them in snake_case.

public struct VolumeView: Hashable, Codable, Sendable {
    public var name: String
    public var namespace: String
    /// `local`
    public var driver: String
    public var node: String
    public var path: String
    /// Size limit; 0 when there is none.
    public var sizeBytes: Int64
    /// Nil where it was not measured (lists).
    public var usedBytes: Int64?
    /// Apps, sorted.
    public var usedBy: [String]
    public var createdAt: Timestamp

    public init(
        name: String, namespace: String, driver: String, node: String, path: String, sizeBytes: Int64,
        usedBytes: Int64?, usedBy: [String], createdAt: Timestamp
    ) {
        self.name = name
        self.namespace = namespace
        self.driver = driver
        self.node = node
        self.path = path
        self.sizeBytes = sizeBytes
        self.usedBytes = usedBytes
        self.usedBy = usedBy
        self.createdAt = createdAt
    }

    private enum CodingKeys: String, CodingKey {
        case name, namespace, driver, node, path, sizeBytes, usedBytes, usedBy, createdAt
    }

    /// Absent values are written as null: every name is always there.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(namespace, forKey: .namespace)
        try container.encode(driver, forKey: .driver)
        try container.encode(node, forKey: .node)
        try container.encode(path, forKey: .path)
        try container.encode(sizeBytes, forKey: .sizeBytes)
        try container.encode(usedBytes, forKey: .usedBytes)
        try container.encode(usedBy, forKey: .usedBy)
        try container.encode(createdAt, forKey: .createdAt)
    }
}

public struct ConfigView: Hashable, Codable, Sendable {
    public var name: String
    public var namespace: String
    public var data: String
    /// The unique commit index of the write, also its ETag.
    public var version: UInt64

    public init(name: String, namespace: String, data: String, version: UInt64) {
        self.name = name
        self.namespace = namespace
        self.data = data
        self.version = version
    }
}

/// A list with the applied index it was read at.
public struct ItemList<Item: Codable & Hashable & Sendable>: Hashable, Codable, Sendable {
    public var items: [Item]
    public var index: UInt64

    public init(items: [Item], index: UInt64) {
        self.items = items
        self.index = index
    }
}

/// The answer of `POST /v1/query`: at most 10,000 rows, cells as text, numbers and null.
public struct QueryView: Hashable, Codable, Sendable {
    public var columns: [String]
    public var rows: [[QueryCell]]
    public var truncated: Bool

    public init(columns: [String], rows: [[QueryCell]], truncated: Bool) {
        self.columns = columns
        self.rows = rows
        self.truncated = truncated
    }
}

public enum QueryCell: Hashable, Codable, Sendable {
    case null
    case integer(Int64)
    case real(Double)
    case text(String)

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .real(value)
        } else {
            self = .text(try container.decode(String.self))
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .integer(let value): try container.encode(value)
        case .real(let value): try container.encode(value)
        case .text(let value): try container.encode(value)
        }
    }
}
