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
            let scheduler = try ClusterPicture.scheduler(state, now: now)
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
        for task in living {
            let reason =
                task.goal == .run && task.spec.hasWritableVolume && !task.spec.isGlobal
                ? Reason(
                    .volumeElsewhere, "writes a volume or path of `\(node.name)` and stays with it",
                    hint: "hivemind app delete \(task.app.name), or hivemind app scale \(task.app.name) 0")
                : Reason(
                    .nodeDrained,
                    task.goal == .stop
                        ? "is stopping"
                        : task.spec.isGlobal ? "is about to stop" : "waits for its replacement to be ready")
            items.append(WhyView.Item(about: "task \(task.id) of app \(task.app.name)", reason: reason))
        }
        return WhyView(kind: "node", name: node.name, answer: answer, items: items)
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
