// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Orchestrator
internal import Store

/// Why things are where they are, or are not.
extension NodeBackend {
    func why(kind: String, name: String, namespace: String) async throws -> WhyView {
        switch kind {
        case "app": return try await whyApp(ObjectKey(namespace: namespace, name: name))
        case "task": return try await whyTask(name)
        case "node": return try await whyNode(name)
        default:
            throw Problem(
                .badRequest, "nothing is known about the kind \(Validation.shown(kind))",
                hint: "ask for app, task or node")
        }
    }

    private func whyApp(_ key: ObjectKey) async throws -> WhyView {
        let app = try await app(key)
        let now = Clock.now()
        let items = try await state.read { state in
            guard let picture = try AppPicture(state, key) else { throw NodeBackend.unknownApp(key) }
            let scheduler = Scheduler(try ClusterPicture(state), now: now)
            var items: [WhyView.Item] = []
            for service in picture.services where !service.removed {
                let wanted = picture.tasks.filter { $0.service == service.name && $0.goal == .run }
                for task in wanted where !task.status.ready {
                    if let reason = task.status.reason {
                        items.append(WhyView.Item(about: "task \(task.id)", reason: reason))
                    }
                }
                // Only what is missing asks for a place.
                guard wanted.count < service.replicas else { continue }
                for (node, reason) in scheduler.verdicts(on: service) {
                    items.append(WhyView.Item(about: "service \(service.name) on node \(node.name)", reason: reason))
                }
            }
            return items
        }
        let counts = app.replicas
        var answer =
            "app `\(key.name)` is \(app.status.rawValue): \(counts.ready) of \(counts.desired) replicas are ready"
        if let reason = app.reason { answer += "; \(reason.message)" }
        return WhyView(kind: "app", name: key.name, answer: answer, items: items)
    }

    private func whyTask(_ idOrPrefix: String) async throws -> WhyView {
        let task = try await task(idOrPrefix)
        let node = try await nodeRow(task.node)
        var answer = "task `\(task.id)` of service `\(task.service)` is \(task.state) on node `\(node.name)`"
        if let reason = task.reason { answer += "; \(reason.message)" }
        var items = [WhyView.Item(about: "task \(task.id)", reason: task.reason)]
        items.append(WhyView.Item(about: "node \(node.name)", reason: Self.trouble(of: node)))
        return WhyView(kind: "task", name: task.id.raw, answer: answer, items: items)
    }

    private func whyNode(_ nameOrID: String) async throws -> WhyView {
        let node = try await nodeRow(nameOrID)
        let living = try await state.read { try $0.livingTasks(node: node.id) }
        let takes = node.liveness == .ready && node.availability == .active
        var answer =
            "node `\(node.name)` is \(node.state) and takes \(takes ? "" : "no ")new tasks; it has \(living.count)"
        if !node.taints.isEmpty {
            answer += "; only what tolerates \(node.taints.joined(separator: ", ")) may run there"
        }
        var items = [WhyView.Item(about: "node \(node.name)", reason: Self.trouble(of: node))]
        guard node.availability == .drained else {
            return WhyView(kind: "node", name: node.name, answer: answer, items: items)
        }
        let now = Clock.now()
        let refusals = try await state.read { state in
            let scheduler = Scheduler(try ClusterPicture(state), now: now)
            var refusals: [TaskID: Reason] = [:]
            for task in living where task.goal == .run && !task.spec.isGlobal && !task.spec.hasWritableVolume {
                let service = try state.services(of: task.app).first { $0.name == task.service && !$0.removed }
                guard let service else { continue }
                // Replacements that are on their way have their nodes.
                let isReplaced = try state.tasks(app: task.app).contains {
                    $0.service == task.service && $0.goal == .run && $0.node != node.id && !$0.status.ready
                }
                if !isReplaced { refusals[task.id] = scheduler.refusal(of: service) }
            }
            return refusals
        }
        for task in living {
            let reason =
                task.goal == .run && task.spec.hasWritableVolume && !task.spec.isGlobal
                ? Reason(
                    .volumeElsewhere, "writes a volume or path of `\(node.name)` and stays with it",
                    hint: "hivemind app delete \(task.app.name), or hivemind app scale \(task.app.name) 0")
                : refusals[task.id].map {
                    Reason($0.code, "stays: no node takes its replacement: \($0.message)", hint: $0.hint)
                }
                    ?? Reason(
                        .nodeDrained,
                        task.goal == .stop
                            ? "is stopping"
                            : task.spec.isGlobal ? "is about to stop" : "waits for its replacement to be ready")
            items.append(WhyView.Item(about: "task \(task.id) of app \(task.app.name)", reason: reason))
        }
        return WhyView(kind: "node", name: node.name, answer: answer, items: items)
    }

    /// What one task after the other would make of it. - Parameter begins: does it, and does not only say it.
    func rebalance(namespace: String?, app: String?, begins: Bool) async throws -> RebalanceView {
        let now = Clock.now()
        let key = app.map { ObjectKey(namespace: namespace ?? ObjectKey.defaultNamespace, name: $0) }
        let (moves, names) = try await state.read { state in
            let nodes = try state.nodes()
            let keys = try key.map { [$0] } ?? state.apps(namespace: namespace).map(\.key)
            let apps = try keys.map { key in
                guard let picture = try AppPicture(state, key, nodes: nodes) else { throw NodeBackend.unknownApp(key) }
                return picture
            }
            let moves = Rebalance.plan(apps, Scheduler(try ClusterPicture(state, nodes: nodes), now: now))
            return (moves, Dictionary(nodes.map { ($0.id, $0.name) }, uniquingKeysWith: { first, _ in first }))
        }
        if begins, !moves.isEmpty {
            let applied = try await core.propose(
                .moveTasks(MoveTasks(tasks: moves.map(\.task), moving: true)), deadline: Self.writeDeadline)
            if case .refused(let problem) = applied.outcome { throw problem }
        }
        let underWay = try await state.read { try $0.movingTasks(limit: 10_000).count }
        return RebalanceView(
            moves: moves.map { move in
                RebalanceView.Move(
                    task: move.task, app: move.app.name, namespace: move.app.namespace, service: move.service,
                    from: names[move.from] ?? move.from.raw, to: names[move.to] ?? move.to.raw, why: move.why)
            }, underWay: underWay)
    }

    private static func trouble(of node: NodeRow) -> Reason? {
        switch node.liveness {
        case .suspect: return Reason(.nodeDown, "does not answer right now")
        case .down:
            return Reason(
                .nodeDown, "is down: its tasks run elsewhere, but for those that write a volume there",
                hint: "start its daemon, or if it is gone for ever: hivemind node remove \(node.name)")
        case .ready: break
        }
        switch node.availability {
        case .active: return nil
        case .cordoned: return Reason(.nodeCordoned, "is cordoned", hint: "hivemind node uncordon \(node.name)")
        case .drained: return Reason(.nodeDrained, "is drained", hint: "hivemind node uncordon \(node.name)")
        }
    }
}

/// Why replicas that apps lack have no node, for one answer. Who leads tells what it found; others look for themselves.
struct PlacementReasons: Sendable {
    /// Nil on a node that does not lead.
    private let found: [ObjectKey: Reason]?
    private var scheduler: Scheduler?

    init(_ core: CoreOwner) { found = core.status.isLeader ? core.placements : nil }

    /// Services with fewer tasks than they are to have, and how many are missing.
    static func missing(_ picture: AppPicture) -> [(service: ServiceRow, count: Int)] {
        guard !picture.app.deleting else { return [] }
        return picture.services.filter { !$0.removed }.compactMap { service in
            let count = service.replicas - picture.tasks.count { $0.service == service.name && $0.goal == .run }
            return count > 0 ? (service, count) : nil
        }
    }

    /// Whether the app is worth reading for it: a leader knows without.
    func mayLack(_ key: ObjectKey) -> Bool { found.map { $0[key] != nil } ?? true }

    /// - Returns: nil when nothing is missing, or will have its node in a moment.
    mutating func reason(for picture: AppPicture, _ state: StateView) throws -> Reason? {
        if let found { return found[picture.app.key] }
        let missing = Self.missing(picture)
        guard !missing.isEmpty else { return nil }
        let scheduler = try self.scheduler ?? Scheduler(try ClusterPicture(state), now: Clock.now())
        self.scheduler = scheduler
        return missing.lazy.compactMap { scheduler.refusal(of: $0.service) }.first
    }
}
