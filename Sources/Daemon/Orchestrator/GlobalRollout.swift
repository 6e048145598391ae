// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Store

/// Global services: one task on every node that may run it, each node seen by itself.
///
/// Tasks of nodes that are down are left alone: no other node would take their place, and they come back with theirs.
extension Rollout {
    /// A stable task of this generation on each node that is to have one, none where none may be.
    func hasConverged(_ service: ServiceRow, on nodes: GlobalNodes) -> Bool {
        let serving = tasks(of: service).filter { $0.goal == .run && !picture.down.contains($0.node) }
        // A cordoned node keeps what it has, of an earlier release too: it takes nothing new.
        guard serving.allSatisfy({ nodes.keep.contains($0.node) }) else { return false }
        let byNode = Dictionary(grouping: serving, by: \.node)
        return nodes.take.subtracting(nodes.full).allSatisfy { node in
            let mine = byNode[node] ?? []
            return mine.count == 1 && mine.allSatisfy { $0.generation == service.generation && isStable($0) }
        }
    }

    func converge(_ service: ServiceRow, on nodes: GlobalNodes, _ step: inout Step) {
        let all = tasks(of: service).filter { !picture.down.contains($0.node) }
        let running = all.filter { $0.goal == .run }
        let astray = running.filter { !nodes.keep.contains($0.node) }
        stop(astray, Reason(.stopped, "its node may not run it any more"), &step)
        let exclusive = service.spec.hasWritableVolume || !service.spec.hostPorts.isEmpty
        let isSettled = running.allSatisfy { $0.generation != service.generation || isStable($0) }
        let isHalted = picture.rollout.map { $0.state == .failed && !$0.rollingBack } ?? false
        var missing: Set<NodeID> = []
        // One node at a time goes to a new release.
        let leaving = Set(all.filter { $0.goal == .stop && !$0.status.state.isTerminal }.map(\.node))
        let byNode = Dictionary(grouping: running, by: \.node)
        let isChanging = nodes.take.contains { leaving.contains($0) && byNode[$0] == nil }
        var mayReplace = isSettled && !isHalted && !isChanging
        for node in nodes.keep.sorted() {
            let mine = byNode[node] ?? []
            let current = mine.filter { $0.generation == service.generation }
            let old = mine.filter { $0.generation != service.generation }
            if current.count > 1 {
                stop(leastUseful(current, current.count - 1), Reason(.stopped, "its node has another"), &step)
            }
            let replaced = Reason(.replaced, "replaced by release \(picture.app.release)")
            if !current.isEmpty {
                if current.allSatisfy(isStable) { stop(old, replaced, &step) }
                continue
            }
            guard nodes.take.contains(node) else { continue }
            if old.isEmpty {
                // Two must not write the same path of a node, nor have the same port.
                if !(exclusive && leaving.contains(node)) { missing.insert(node) }
            } else if mayReplace {
                mayReplace = false
                // Where both have no room beside each other, one makes it for the next.
                if exclusive || nodes.full.contains(node) { stop(old, replaced, &step) } else { missing.insert(node) }
            }
        }
        if !missing.isEmpty, !isHeldBack(service) {
            step.create.append(Creation(service: service, count: missing.count, nodes: missing))
        }
    }

    private func stop(_ tasks: [TaskRow], _ reason: Reason, _ step: inout Step) {
        if !tasks.isEmpty { step.changes.append(.stopTasks(StopTasks(tasks: tasks.map(\.id), reason: reason))) }
    }
}
