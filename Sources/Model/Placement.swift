// SPDX-License-Identifier: Apache-2.0

/// Where tasks of a service may run.
public struct Placement: Hashable, Codable, Sendable {
    /// Compose syntax, `node.labels.zone == eu`; all must hold. See `PlacementConstraint`.
    public var constraints: [String]
    /// Labels over whose values tasks are spread, before zones and nodes; the most important one first. Compose's
    /// `preferences: [{spread: node.labels.NAME}]`.
    public var spread: [String]
    /// Taints of nodes that do not keep the service away.
    public var tolerations: [String]
    /// 1...1000; nil for no limit.
    public var maxReplicasPerNode: Int?

    /// Tasks are spread over its values in any case.
    public static let zoneLabel = "zone"

    public init(
        constraints: [String] = [], spread: [String] = [], tolerations: [String] = [], maxReplicasPerNode: Int? = nil
    ) {
        self.constraints = constraints
        self.spread = spread
        self.tolerations = tolerations
        self.maxReplicasPerNode = maxReplicasPerNode
    }

    public var isEmpty: Bool {
        constraints.isEmpty && spread.isEmpty && tolerations.isEmpty && maxReplicasPerNode == nil
    }

    // Each may be left out of JSON.
    public init(from decoder: any Decoder) throws {
        let c = try decoder.container(keyedBy: CodingKeys.self)
        constraints = try c.decodeIfPresent([String].self, forKey: .constraints) ?? []
        spread = try c.decodeIfPresent([String].self, forKey: .spread) ?? []
        tolerations = try c.decodeIfPresent([String].self, forKey: .tolerations) ?? []
        maxReplicasPerNode = try c.decodeIfPresent(Int.self, forKey: .maxReplicasPerNode)
    }
}

/// One condition on a node: `FIELD == VALUE` or `FIELD != VALUE` with the field `node.id`, `node.hostname`, `node.role`
/// or `node.labels.NAME`. A label that a node does not have equals nothing.
public struct PlacementConstraint: Hashable, Sendable, CustomStringConvertible {
    public enum Field: Hashable, Sendable {
        case id, hostname, role
        case label(String)
    }

    public var field: Field
    public var isEqual: Bool
    public var value: String

    /// Nil when `text` is no constraint.
    public init?(_ text: String) {
        guard let range = Self.sign(in: text) else { return nil }
        let name = Self.trimmed(text[..<range.lowerBound]), value = Self.trimmed(text[range.upperBound...])
        guard !value.isEmpty, !value.contains(where: { $0.isWhitespace || $0 == "=" }) else { return nil }
        switch name {
        case "node.id": field = .id
        case "node.hostname": field = .hostname
        case "node.role": field = .role
        default:
            guard name.hasPrefix("node.labels.") else { return nil }
            let label = String(name.dropFirst("node.labels.".count))
            guard Validation.nodeWordFault(label) == nil else { return nil }
            field = .label(label)
        }
        isEqual = text[range] == "=="
        self.value = value
    }

    /// The first `==` or `!=`.
    private static func sign(in text: String) -> Range<String.Index>? {
        var index = text.startIndex
        while index < text.endIndex, let end = text.index(index, offsetBy: 2, limitedBy: text.endIndex) {
            if text[index..<end] == "==" || text[index..<end] == "!=" { return index..<end }
            index = text.index(after: index)
        }
        return nil
    }

    private static func trimmed(_ text: Substring) -> String {
        var text = text
        while text.first?.isWhitespace == true { text.removeFirst() }
        while text.last?.isWhitespace == true { text.removeLast() }
        return String(text)
    }

    /// The one spelling all others mean.
    public var description: String {
        let name =
            switch field {
            case .id: "node.id"
            case .hostname: "node.hostname"
            case .role: "node.role"
            case .label(let label): "node.labels.\(label)"
            }
        return "\(name) \(isEqual ? "==" : "!=") \(value)"
    }
}

extension Validation {
    public static let constraintsMax = 50
    public static let tolerationsMax = 50
    public static let spreadMax = 5

    /// Why `text` is no name or value of a label and no taint, or nil: 1 to 63 of `A-Z a-z 0-9 . _ / -`.
    public static func nodeWordFault(_ text: String) -> String? {
        if text.isEmpty { return "is empty" }
        if text.utf8.count > 63 { return "has \(text.utf8.count) characters, more than 63" }
        for scalar in text.unicodeScalars {
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9", ".", "_", "/", "-": continue
            default: return "contains \(shown(String(scalar)))"
            }
        }
        return nil
    }

    /// Constraints in their one spelling, lists sorted and each entry once; nil when nothing is left.
    static func placement(_ placement: Placement?, _ field: String, _ faults: inout SpecFaults) -> Placement? {
        guard var placement, !placement.isEmpty else { return nil }
        if placement.constraints.count > constraintsMax {
            faults.add(
                "\(field).constraints", "has \(placement.constraints.count) entries, more than \(constraintsMax)")
        }
        if placement.tolerations.count > tolerationsMax {
            faults.add(
                "\(field).tolerations", "has \(placement.tolerations.count) entries, more than \(tolerationsMax)")
        }
        var constraints: Set<String> = []
        for text in placement.constraints.prefix(constraintsMax) {
            if let constraint = PlacementConstraint(text) {
                constraints.insert(constraint.description)
            } else {
                faults.add(
                    "\(field).constraints", "\(shown(text)) is no constraint",
                    hint: "write `node.labels.zone == eu`, or !=; "
                        + "besides labels there are node.id, node.hostname and node.role")
            }
        }
        if placement.spread.count > spreadMax {
            faults.add("\(field).spread", "has \(placement.spread.count) entries, more than \(spreadMax)")
        }
        for text in placement.spread.prefix(spreadMax) {
            if let fault = nodeWordFault(text) { faults.add("\(field).spread", "\(shown(text)) \(fault)") }
        }
        if Set(placement.spread).count < placement.spread.count {
            faults.add("\(field).spread", "names a label twice")
        }
        for text in placement.tolerations.prefix(tolerationsMax) {
            if let fault = nodeWordFault(text) { faults.add("\(field).tolerations", "\(shown(text)) \(fault)") }
        }
        if let limit = placement.maxReplicasPerNode, !(1...replicasMax).contains(limit) {
            faults.add("\(field).max_replicas_per_node", "\(limit) is not in 1...\(replicasMax)")
        }
        placement.constraints = constraints.sorted()
        placement.tolerations = Set(placement.tolerations).sorted()
        return placement
    }
}
