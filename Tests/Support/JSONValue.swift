// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials

/// JSON as a client in another language sees it: tests from outside read names, not our types.
///
/// A path that is not there gives `.null`, so that `value["replicas"]["running"].int` is nil rather than a crash.
public enum JSONValue: Sendable, Hashable, Decodable, CustomStringConvertible {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    public init(parsing text: String) throws {
        do {
            self = try JSONDecoder().decode(JSONValue.self, from: Data(text.utf8))
        } catch {
            throw TestFailure("not JSON: \(text.prefix(500))")
        }
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    public subscript(_ key: String) -> JSONValue {
        if case .object(let members) = self { members[key] ?? .null } else { .null }
    }
    public subscript(_ index: Int) -> JSONValue {
        if case .array(let items) = self, items.indices.contains(index) { items[index] } else { .null }
    }

    public var string: String? { if case .string(let value) = self { value } else { nil } }
    public var int: Int? { if case .number(let value) = self { Int(exactly: value) } else { nil } }
    public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    /// Elements, or nothing for anything that is not an array.
    public var array: [JSONValue] { if case .array(let items) = self { items } else { [] } }
    public var keys: [String] { if case .object(let members) = self { members.keys.sorted() } else { [] } }
    public var isNull: Bool { self == .null }

    /// What a list answers with.
    public var items: [JSONValue] { self["items"].array }

    public var description: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .number(let value): Int(exactly: value).map(String.init) ?? "\(value)"
        case .string(let value): "\"\(value)\""
        case .array(let items): "[\(items.map(\.description).joined(separator: ", "))]"
        case .object: "{\(keys.map { "\($0): \(self[$0])" }.joined(separator: ", "))}"
        }
    }
}
