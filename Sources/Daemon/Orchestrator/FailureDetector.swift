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
        /// When so many vanish together that this node is rather the one with the trouble, and after a cluster took another's
        /// place, until its nodes have found it.
        public var massMilliseconds: Int64 = 30_000
        /// When nobody looked for so long, the silence was on this side: it had been stopped itself.
        public var gapMilliseconds: Int64 = 3_000

        public init() {}

        /// Traffic leaves a silent node early, whatever its tasks are given.
        public init(downMilliseconds: Int64) {
            self.downMilliseconds = downMilliseconds
            suspectMilliseconds = min(suspectMilliseconds, downMilliseconds * 2 / 5)
            massMilliseconds = max(massMilliseconds, downMilliseconds)
        }
    }

    public var limits: Limits
    /// When this member began to lead.
    private var since: Int64
    private var judgedAt: Int64?
    private var heard: [NodeID: Int64] = [:]

    public init(since: Int64, limits: Limits = Limits()) {
        self.since = since
        self.limits = limits
    }

    public mutating func heard(of node: NodeID, at now: Int64) { heard[node] = max(now, heard[node] ?? now) }

    /// Whether this leader heard of the node, and lately.
    public func hears(_ node: NodeID, at now: Int64) -> Bool {
        heard[node].map { now - $0 < limits.suspectMilliseconds } ?? false
    }

    /// What to change now, in the order of `nodes`; forgets nodes that are gone.
    /// - Parameter isYoung: the cluster took another's place a short while ago.
    public mutating func judge(_ nodes: [NodeRow], isYoung: Bool = false, at now: Int64) -> [SetLiveness.Item] {
        if let last = judgedAt, now - last >= limits.gapMilliseconds { (since, heard) = (now, [:]) }
        judgedAt = now
        let known = Set(nodes.map(\.id))
        heard = heard.filter { known.contains($0.key) }
        func silence(_ node: NodeRow) -> Int64 {
            heard[node.id].map { now - $0 } ?? now - since - limits.graceMilliseconds
        }
        let vanished = nodes.count { $0.liveness != .down && silence($0) >= limits.suspectMilliseconds }
        // One of three is a third, too, and simply a lost node.
        let isMass = vanished >= 2 && vanished * 3 >= nodes.count
        let downAfter = isMass || isYoung ? limits.massMilliseconds : limits.downMilliseconds
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
