// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// Tells from the reports of the nodes which of them answer. One for as long as a member leads.
///
/// Pure; times are milliseconds of a clock that never jumps.
public struct FailureDetector: Sendable {
    public struct Limits: Hashable, Sendable {
        /// Without a report for this long: no new tasks, no traffic.
        public var suspectMilliseconds: Int64 = 2_000
        /// Its tasks are started elsewhere.
        public var downMilliseconds: Int64 = 5_000
        /// More for nodes this leader has not heard of yet.
        public var graceMilliseconds: Int64 = 2_000
        /// When so many vanish together that this node is rather the one with the trouble.
        public var massMilliseconds: Int64 = 30_000

        public init() {}
    }

    public var limits: Limits
    /// When this member began to lead.
    private let since: Int64
    private var heard: [NodeID: Int64] = [:]

    public init(since: Int64, limits: Limits = Limits()) {
        self.since = since
        self.limits = limits
    }

    public mutating func heard(of node: NodeID, at now: Int64) { heard[node] = max(now, heard[node] ?? now) }

    /// What to change now, in the order of `nodes`; forgets nodes that are gone.
    public mutating func judge(_ nodes: [NodeRow], at now: Int64) -> [SetLiveness.Item] {
        let known = Set(nodes.map(\.id))
        heard = heard.filter { known.contains($0.key) }
        func silence(_ node: NodeRow) -> Int64 {
            heard[node.id].map { now - $0 } ?? now - since - limits.graceMilliseconds
        }
        let vanished = nodes.count { $0.liveness != .down && silence($0) >= limits.suspectMilliseconds }
        // One of three is a third, too, and simply a lost node.
        let isMass = vanished >= 2 && vanished * 3 >= nodes.count
        let downAfter = isMass ? limits.massMilliseconds : limits.downMilliseconds
        return nodes.compactMap { node in
            let silence = silence(node)
            let next: NodeRow.Liveness
            if silence < limits.suspectMilliseconds {
                // Nothing was heard of it yet: it stays what the leader before made of it.
                next = heard[node.id] == nil ? node.liveness : .ready
            } else if node.liveness == .down || silence >= downAfter {
                next = .down
            } else {
                next = .suspect
            }
            return next == node.liveness ? nil : SetLiveness.Item(node: node.id, liveness: next)
        }
    }
}
