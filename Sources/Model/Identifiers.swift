// SPDX-License-Identifier: Apache-2.0

/// A value that names one object. Ids are stamped once, by the node that accepted the request, and never reused.
public protocol Identifier: Hashable, Comparable, Codable, Sendable, CustomStringConvertible,
    ExpressibleByStringLiteral
{
    var raw: String { get }
    init(_ raw: String)
}

extension Identifier {
    public static func < (left: Self, right: Self) -> Bool { left.raw < right.raw }
    public var description: String { raw }
    public init(stringLiteral value: String) { self.init(value) }
    public init(from decoder: any Decoder) throws { self.init(try decoder.singleValueContainer().decode(String.self)) }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(raw)
    }
}

/// A task: 12 characters of lower-case base32, so that it is a legal part of a container id, a link name and a path.
public struct TaskID: Identifier {
    public let raw: String
    public init(_ raw: String) { self.raw = raw }
}

/// A node, for its whole life. A wiped machine gets a new one.
public struct NodeID: Identifier {
    public let raw: String
    public init(_ raw: String) { self.raw = raw }
}

/// A container of a task: `<task id>.<attempt>`, attempt counting from 0.
public struct ContainerID: Identifier {
    public let raw: String
    public init(_ raw: String) { self.raw = raw }
    public init(task: TaskID, attempt: Int) { raw = "\(task.raw).\(attempt)" }

    /// The task and attempt this id was made of, or nil for a foreign id.
    public var parts: (task: TaskID, attempt: Int)? {
        guard let dot = raw.lastIndex(of: "."), let attempt = Int(raw[raw.index(after: dot)...]), attempt >= 0 else {
            return nil
        }
        return (TaskID(String(raw[..<dot])), attempt)
    }
}

/// Makes ids from a generator handed in, so that a cluster run from one seed makes the same ids.
public enum IdentifierMaker {
    private static let alphabet = Array("abcdefghijkmnpqrstuvwxyz23456789")

    /// 12 characters, 60 random bits, first one a letter.
    public static func make(using random: inout some RandomNumberGenerator) -> String {
        var text = String(alphabet[Int.random(in: 0..<24, using: &random)])
        for _ in 1..<12 { text.append(alphabet[Int.random(in: 0..<alphabet.count, using: &random)]) }
        return text
    }
}

/// The two names that find an app, a volume or a config.
public struct ObjectKey: Hashable, Comparable, Codable, Sendable, CustomStringConvertible {
    public static let defaultNamespace = "default"
    public var namespace: String
    public var name: String

    public init(namespace: String = ObjectKey.defaultNamespace, name: String) {
        self.namespace = namespace
        self.name = name
    }

    public static func < (left: Self, right: Self) -> Bool {
        (left.namespace, left.name) < (right.namespace, right.name)
    }

    /// `name` in the default namespace, else `namespace/name`.
    public var description: String { namespace == Self.defaultNamespace ? name : "\(namespace)/\(name)" }
}
