// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Yams

/// The API's answer as text: only white space changes in JSON, YAML is made of the same values.
enum JSONText {
    /// Indents by two. Keys, order, strings and numbers stay byte for byte as they came.
    static func pretty(_ json: [UInt8]) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity(json.count * 2)
        var depth = 0
        var isInString = false
        var isEscaped = false
        var isEmpty = false  // just after an opening bracket
        func newLine() {
            text.append(UInt8(ascii: "\n"))
            text.append(contentsOf: repeatElement(UInt8(ascii: " "), count: depth * 2))
        }
        for byte in json {
            if isInString {
                text.append(byte)
                if isEscaped {
                    isEscaped = false
                } else if byte == UInt8(ascii: "\\") {
                    isEscaped = true
                } else if byte == UInt8(ascii: "\"") {
                    isInString = false
                }
                continue
            }
            switch byte {
            case UInt8(ascii: " "), UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "\t"): continue
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                depth = max(0, depth - 1)
                if !isEmpty { newLine() }
                isEmpty = false
                text.append(byte)
                continue
            default: break
            }
            if isEmpty { newLine() }
            isEmpty = false
            text.append(byte)
            switch byte {
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                depth += 1
                isEmpty = true
            case UInt8(ascii: ","): newLine()
            case UInt8(ascii: ":"): text.append(UInt8(ascii: " "))
            case UInt8(ascii: "\""): isInString = true
            default: break
            }
        }
        if !text.isEmpty { text.append(UInt8(ascii: "\n")) }
        return text
    }

    /// Keys sorted, block style.
    static func yaml(_ json: [UInt8]) throws -> String {
        // Plain decoding: keys are to stay as they came.
        let value = try JSONDecoder().decode(JSONValue.self, from: Data(json))
        return try Yams.serialize(node: value.node(), width: -1, allowUnicode: true)
    }
}

/// Any JSON.
indirect enum JSONValue: Decodable, Sendable {
    case null
    case bool(Bool)
    case integer(Int64)
    case unsigned(UInt64)
    case real(Double)
    case text(String)
    case array([JSONValue])
    case object([String: JSONValue])

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(UInt64.self) {
            self = .unsigned(value)
        } else if let value = try? container.decode(Double.self) {
            self = .real(value)
        } else if let value = try? container.decode(String.self) {
            self = .text(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    fileprivate func node() throws -> Node {
        switch self {
        case .null: Node("null", Tag(.null))
        case .bool(let value): try Node(value)
        case .integer(let value): try Node(value)
        case .unsigned(let value): try Node(value)
        case .real(let value): try Node(value)
        case .text(let value): .scalar(value.represented())
        case .array(let values): Node(try values.map { try $0.node() }, Tag(.seq), values.isEmpty ? .flow : .block)
        case .object(let values):
            Node(
                try values.sorted { $0.key < $1.key }.map { (.scalar($0.key.represented()), try $0.value.node()) },
                Tag(.map), values.isEmpty ? .flow : .block)
        }
    }
}
