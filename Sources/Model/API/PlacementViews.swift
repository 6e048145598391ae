// SPDX-License-Identifier: Apache-2.0

/// `GET /v1/why/{kind}/{name}`: why something is as it is.
public struct WhyView: Hashable, Codable, Sendable {
    public struct Item: Hashable, Codable, Sendable {
        /// `service web`, `node alpha`, `task k7…`
        public var about: String
        /// What holds it up; nil when nothing does.
        public var reason: Reason?

        public init(about: String, reason: Reason?) {
            self.about = about
            self.reason = reason
        }
    }

    /// app, task or node.
    public var kind: String
    public var name: String
    /// One sentence.
    public var answer: String
    public var items: [Item]

    public init(kind: String, name: String, answer: String, items: [Item]) {
        self.kind = kind
        self.name = name
        self.answer = answer
        self.items = items
    }
}

/// `GET` and `POST /v1/rebalance`: which tasks go to other nodes, and why.
public struct RebalanceView: Hashable, Codable, Sendable {
    public struct Move: Hashable, Codable, Sendable {
        public var task: TaskID
        public var app: String
        public var namespace: String
        public var service: String
        public var from: String
        /// The best node as things are now; which it becomes is decided when its turn comes.
        public var to: String
        public var why: String

        public init(
            task: TaskID, app: String, namespace: String, service: String, from: String, to: String, why: String
        ) {
            self.task = task
            self.app = app
            self.namespace = namespace
            self.service = service
            self.from = from
            self.to = to
            self.why = why
        }
    }

    public var moves: [Move]
    /// Tasks that are moving, or wait for their turn.
    public var underWay: Int

    public init(moves: [Move], underWay: Int) {
        self.moves = moves
        self.underWay = underWay
    }
}

extension Validation {
    public static let nodeLabelsMax = 64
    public static let nodeTaintsMax = 50

    /// Labels and taints that a node may carry.
    public static func node(_ request: NodePatch) throws(Problem) {
        var faults = SpecFaults()
        let labels = request.labels ?? [:], taints = (request.addTaints ?? []) + (request.removeTaints ?? [])
        if labels.count > nodeLabelsMax {
            faults.add("labels", "has \(labels.count) entries, more than \(nodeLabelsMax)")
        }
        if taints.count > nodeTaintsMax {
            faults.add("taints", "has \(taints.count) entries, more than \(nodeTaintsMax)")
        }
        for (name, value) in labels.sorted(by: { $0.key < $1.key }).prefix(nodeLabelsMax) {
            if let fault = nodeWordFault(name) { faults.add("labels", "\(shown(name)) \(fault)") }
            if let value, let fault = nodeWordFault(value) {
                faults.add("labels", "the value of \(shown(name)), \(shown(value)), \(fault)")
            }
        }
        for taint in taints.prefix(nodeTaintsMax) {
            if let fault = nodeWordFault(taint) { faults.add("taints", "\(shown(taint)) \(fault)") }
        }
        try faults.throwIfAny(of: "the change of the node")
    }
}
