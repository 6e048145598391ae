// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// The product's own state, brought to rest by its rollout and scheduler; what runs starts and stops at once.
struct Ground {
    let state: StateMachine
    var now = Timestamp(milliseconds: 1_000_000)
    private var index: UInt64 = 0
    private var random = SplitMix64(seed: 7)

    /// What was seen on the way to rest.
    struct Seen {
        /// The fewest and the most tasks that were ready.
        var fewest = Int.max
        var most = 0
        /// The fewest nodes with a ready task.
        var fewestNodes = Int.max
        /// Of what found no place in the end.
        var refusal: Reason?
    }

    /// - Parameter nodes: how many, `n1` and on.
    init(nodes: Int) throws {
        state = try StateMachine(path: nil)
        for number in 1...nodes { try apply(.putNode(Self.node(number))) }
    }

    static func node(_ number: Int, taints: [String] = []) -> NodeRow {
        NodeRow(
            id: NodeID("n\(number)"), name: "node-\(number)", member: UInt64(number), address: "10.0.0.\(number)",
            subnet: IPv4Subnet(IPv4Address(value: 10 << 24 | 210 << 16 | UInt32(number) << 8), prefix: 24),
            taints: taints, cpuMillis: 1000, memoryBytes: 1 << 30, version: "1")
    }

    mutating func apply(_ change: Change) throws {
        index += 1
        let (results, _) = try state.apply([
            .init(index: index, term: 1, command: Command(at: now, change: change))
        ])
        if case .refused(let problem) = results.first?.outcome { throw problem }
    }

    mutating func deploy(_ key: ObjectKey, _ services: [ServiceSpec]) throws {
        try apply(.putApp(PutApp(spec: AppSpec(key: key, services: services))))
    }

    /// Steps until nothing is left to do.
    /// - Parameter check: looks at all tasks after each step.
    mutating func settle(_ key: ObjectKey, check: ([TaskRow]) -> Void = { _ in }) throws -> Seen {
        var seen = Seen()
        for _ in 0..<200 {
            now = now + 5000
            let picture = try #require(try state.read { try AppPicture($0, key) })
            let ready = picture.tasks.filter { $0.goal == .run && $0.status.ready }
            (seen.fewest, seen.most) = (min(seen.fewest, ready.count), max(seen.most, ready.count))
            seen.fewestNodes = min(seen.fewestNodes, Set(ready.map(\.node)).count)
            seen.refusal = nil
            let step = Rollout.next(picture, now: now)
            var changes = step.changes
            for creation in step.create {
                var scheduler = try state.read { Scheduler(try ClusterPicture($0), now: now) }
                let placed = try scheduler.place(
                    creation.service, count: creation.count, only: creation.nodes, using: &random
                ) { node in try state.read { try $0.addresses(in: node.subnet) } }
                seen.refusal = placed.refusal
                if !placed.tasks.isEmpty { changes.append(.assignTasks(AssignTasks(tasks: placed.tasks))) }
            }
            if changes.isEmpty { return seen }
            for change in changes { try apply(change) }
            check(try state.read { try $0.tasks() })
            let down = Set(try state.read { try $0.nodes() }.filter { $0.liveness == .down }.map(\.id))
            let reports = try state.read { try $0.tasks(app: key) }.filter { !down.contains($0.node) }.map { task in
                TaskReport(
                    task: task.id,
                    status: task.goal == .run
                        ? TaskStatus(state: .running, ready: true, startedAt: task.status.startedAt ?? now)
                        : TaskStatus(state: .stopped, ready: false))
            }
            if !reports.isEmpty { try apply(.recordTasks(RecordTasks(reports: reports))) }
        }
        Issue.record("did not come to rest")
        return seen
    }

    /// Where wanted tasks are.
    func places(_ key: ObjectKey) throws -> [String] {
        try state.read { try $0.tasks(app: key) }.filter { $0.goal == .run }.map(\.node.raw).sorted()
    }

    func perNode(_ key: ObjectKey) throws -> [String: Int] {
        Dictionary(try places(key).map { ($0, 1) }, uniquingKeysWith: +)
    }
}
