// SPDX-License-Identifier: Apache-2.0

internal import Model
internal import Store

/// What must hold of a fleet, whatever happens to it. Keeps its own books, from the rows as they are committed.
struct FleetCheck {
    private(set) var nodes: [NodeID: NodeRow] = [:]
    private(set) var hasJoined: Set<NodeID> = []
    private var living: [TaskID: TaskRow] = [:]
    private var places: [TaskID: NodeID] = [:]
    private var addresses: [IPv4Address: TaskID] = [:]
    private var cpu: [NodeID: Int] = [:]
    private var memory: [NodeID: Int64] = [:]
    /// Tasks that are wanted, per node, of each service and generation.
    private var wanted: [String: [NodeID: Int]] = [:]
    private var volumes: [String: [TaskID: NodeID]] = [:]
    /// What each task ever placed writes: its containers may outlive what the state knows of it.
    private var written: [TaskID: [String]] = [:]
    private var shortSince: [ObjectKey: UInt64] = [:]
    private(set) var placed = 0

    func node(of task: TaskID) -> NodeID? { places[task] }
    mutating func forget(_ task: TaskID) { places[task] = nil }

    mutating func update(nodes rows: [NodeRow]) {
        let next = Dictionary(rows.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        nodes = next
        hasJoined.formUnion(next.keys)
    }

    // MARK: - Task by task

    private static func service(_ row: TaskRow) -> String { "\(row.app)/\(row.service)/\(row.generation)" }

    mutating func follow(_ id: TaskID, _ row: TaskRow?) -> Violation? {
        let old = living[id]
        if let old { leave(old) }
        if let row { places[id] = row.node }
        guard let row, !row.status.state.isTerminal else {
            living[id] = nil
            return nil
        }
        living[id] = row
        if let other = addresses[row.address], other != id {
            return Violation(.addressesOnce, "\(row.address) is of \(other) and of \(id)")
        }
        addresses[row.address] = id
        cpu[row.node, default: 0] += row.spec.resources.reservedCpuMillis ?? 0
        memory[row.node, default: 0] += row.spec.resources.reservedMemoryBytes ?? 0
        if row.goal == .run { wanted[Self.service(row), default: [:]][row.node, default: 0] += 1 }
        for name in row.spec.writtenVolumes {
            volumes[name, default: [:]][id] = row.node
            let homes = Set((volumes[name] ?? [:]).values)
            if homes.count > 1 {
                return Violation(.volumesOnce, "volume \(name) is written on \(homes.sorted())")
            }
        }
        guard old == nil else { return nil }
        placed += 1
        if !row.spec.writtenVolumes.isEmpty { written[id] = row.spec.writtenVolumes }
        if let fault = fault(of: row, on: nodes[row.node]) {
            return Violation(.placedWell, "task \(id) of \(row.app) on \(row.node): \(fault)")
        }
        return nil
    }

    private mutating func leave(_ row: TaskRow) {
        if addresses[row.address] == row.id { addresses[row.address] = nil }
        cpu[row.node, default: 0] -= row.spec.resources.reservedCpuMillis ?? 0
        memory[row.node, default: 0] -= row.spec.resources.reservedMemoryBytes ?? 0
        if row.goal == .run { wanted[Self.service(row)]?[row.node, default: 0] -= 1 }
        for case .volume(let name) in row.spec.mounts.map(\.source) { volumes[name]?[row.id] = nil }
    }

    /// Why a task may not be where it was put; nil when it may. Says by itself what the scheduler ought to know.
    private func fault(of row: TaskRow, on node: NodeRow?) -> String? {
        guard let node else { return "there is no such node" }
        if node.liveness != .ready { return "it is \(node.liveness.rawValue)" }
        if node.availability != .active { return "it is \(node.availability.rawValue)" }
        if cpu[node.id] ?? 0 > node.cpuMillis { return "\(cpu[node.id] ?? 0) of \(node.cpuMillis) are promised" }
        if memory[node.id] ?? 0 > node.memoryBytes { return "more memory is promised than it has" }
        if let fault = Self.fault(of: row.spec, on: node) { return fault }
        let most = row.spec.isGlobal ? 1 : row.spec.placement?.maxReplicasPerNode
        if let most, let has = wanted[Self.service(row)]?[node.id], has > most { return "it has \(has) of them" }
        return nil
    }

    /// Of what was asked for, not of what is going on.
    private static func fault(of spec: ServiceSpec, on node: NodeRow) -> String? {
        let placement = spec.placement ?? Placement()
        for taint in node.taints where !placement.tolerations.contains(taint) { return "it has the taint \(taint)" }
        for constraint in placement.constraints {
            let words = constraint.split(separator: " ").map(String.init)
            guard words.count == 3, words[0].hasPrefix("node.labels.") else { return "what is `\(constraint)`" }
            let label = node.labels[String(words[0].dropFirst("node.labels.".count))]
            if (label == words[2]) != (words[1] == "==") { return "it does not meet \(constraint)" }
        }
        return nil
    }

    // MARK: - All at once

    /// So long the leader may take to notice and to say.
    private static let saidMilliseconds: UInt64 = 5_000

    /// Whoever is short of tasks is so with a reason; no volume is written by two containers of one machine.
    mutating func look(at fleet: Fleet) throws -> Violation? {
        guard fleet.now % 1_000 == 0 else { return nil }
        let (apps, services) = try fleet.state.read { (try $0.apps(), try $0.services()) }
        var mine: [ObjectKey: [TaskRow]] = [:]
        for row in living.values { mine[row.app, default: []].append(row) }
        for key in apps.filter({ !$0.deleting }).map(\.key) {
            let tasks = mine[key] ?? []
            let short = services.filter { $0.app == key && !$0.removed && isShort($0, tasks) }
            guard !short.isEmpty, try !isExplained(key, tasks, fleet) else {
                shortSince[key] = nil
                continue
            }
            let since = shortSince[key] ?? fleet.now
            shortSince[key] = since
            if fleet.now - since > Self.saidMilliseconds {
                return Violation(
                    .reasonsGiven,
                    "app \(key) has too few tasks since \(since) ms and nobody says why: \(tasks.count) living of "
                        + "\(short.map(\.replicas)), rollout "
                        + "\(try fleet.state.read { try $0.rollout(app: key) }?.state.rawValue ?? "none")")
            }
        }
        // What runs on a machine that was removed writes data of its own: nobody reads it any more.
        for machine in fleet.machines.values.sorted(by: { $0.id < $1.id }) where !machine.isRemoved {
            var writers: [String: ContainerID] = [:]
            for container in machine.running {
                for name in written[container.task] ?? [] {
                    if let other = writers.updateValue(container.id, forKey: name) {
                        return Violation(.volumesOnce, "volume \(name) is written by \(other) and \(container.id)")
                    }
                }
            }
        }
        return nil
    }

    private func isShort(_ service: ServiceRow, _ tasks: [TaskRow]) -> Bool {
        let wanted = tasks.filter { $0.service == service.name && $0.goal == .run }
        guard service.spec.isGlobal else { return wanted.count < service.replicas }
        return !fit(for: service).subtracting(wanted.map(\.node)).isEmpty
    }

    /// Nodes that are to have a task of a global service.
    private func fit(for service: ServiceRow) -> Set<NodeID> {
        Set(
            nodes.values.filter {
                $0.availability == .active && $0.liveness == .ready && Self.fault(of: service.spec, on: $0) == nil
            }.map(\.id))
    }

    /// The leader says why, or the app does: its release failed, or waits for what it has begun.
    private func isExplained(_ key: ObjectKey, _ tasks: [TaskRow], _ fleet: Fleet) throws -> Bool {
        if fleet.refusals[key] != nil { return true }
        guard let rollout = try fleet.state.read({ try $0.rollout(app: key) }) else { return false }
        if rollout.state == .failed { return rollout.reason != nil }
        return rollout.state == .running && tasks.contains { !$0.status.ready || $0.goal == .stop }
    }

    /// Whether no node may take one more task of a service, by the books kept here.
    private func isFull(for service: ServiceRow, _ homes: [ObjectKey: NodeID]) -> Bool {
        let resources = service.spec.resources
        let most = service.spec.isGlobal ? 1 : service.spec.placement?.maxReplicasPerNode
        let has = wanted["\(service.app)/\(service.name)/\(service.generation)"] ?? [:]
        return nodes.values.allSatisfy { node in
            if node.availability != .active || node.liveness != .ready { return true }
            if Self.fault(of: service.spec, on: node) != nil { return true }
            if let most, has[node.id] ?? 0 >= most { return true }
            if (cpu[node.id] ?? 0) + (resources.reservedCpuMillis ?? 0) > node.cpuMillis { return true }
            if (memory[node.id] ?? 0) + (resources.reservedMemoryBytes ?? 0) > node.memoryBytes { return true }
            return service.spec.writtenVolumes.contains { name in
                homes[ObjectKey(namespace: service.app.namespace, name: name)].map { $0 != node.id } ?? false
            }
        }
    }

    private func isKept(_ row: TaskRow) -> Bool {
        row.spec.isGlobal && nodes[row.node]?.availability == .cordoned
    }

    /// What still keeps a healed fleet from being as it is wanted; nil when nothing does.
    ///
    /// Only this may stay undone: what writes a volume stays on a drained node, where its data is. A cordoned node, which
    /// takes nothing new, keeps its task of a global service. And what finds no node, as the leader says and these books
    /// confirm, is missing, or keeps the task that was to be replaced.
    func difference(of fleet: Fleet) throws -> String? {
        let (services, homes, deleting) = try fleet.state.read { state in
            (try state.services(), try state.volumeHomes(), try state.apps().filter(\.deleting).map(\.key))
        }
        if let key = deleting.min() { return "app \(key) is still being deleted" }
        let full = Set(
            services.filter { !$0.removed && fleet.refusals[$0.app] != nil && isFull(for: $0, homes) }.map(\.app))
        let drained = Set(nodes.values.filter { $0.availability == .drained }.map(\.id))
        for row in living.values where drained.contains(row.node) {
            if row.goal == .run, row.spec.hasWritableVolume, !row.spec.isGlobal { continue }
            if row.goal == .run, full.contains(row.app) { continue }
            let rollout = try fleet.state.read { try $0.rollout(app: row.app) }
            return "task \(row.id) of \(row.app) is still on the drained \(row.node), rollout "
                + "\(rollout?.state.rawValue ?? "none") \(rollout?.reason?.message ?? ""), \(row.goal) \(row.status.state), "
                + "refused: \(fleet.refusals[row.app]?.message ?? "no")"
        }
        for row in living.values where row.goal == .stop { return "task \(row.id) of \(row.app) is still stopping" }
        for row in living.values where !row.status.ready { return "task \(row.id) of \(row.app) is not ready" }
        var have: [ObjectKey: [String: [TaskRow]]] = [:]
        for row in living.values { have[row.app, default: [:]][row.service, default: []].append(row) }
        for service in services where !service.removed {
            let mine = have[service.app]?[service.name] ?? []
            if full.contains(service.app) { continue }
            if let old = mine.first(where: { $0.generation != service.generation && !isKept($0) }) {
                return "\(service.app) has the old task \(old.id) on \(old.node) \(nodes[old.node]?.state ?? "gone")"
            }
            if service.spec.isGlobal {
                if let first = fit(for: service).subtracting(mine.map(\.node)).min() {
                    return "\(service.app) is missing on \(first)"
                }
            } else if mine.count != service.replicas {
                return "\(service.app) has \(mine.count) of \(service.replicas): "
                    + (fleet.refusals[service.app]?.message ?? "no reason")
            }
        }
        var stray: Set<TaskID> = []
        for machine in fleet.machines.values where !machine.isRemoved {
            stray.formUnion(machine.containers.values.map(\.task).filter { living[$0]?.node != machine.id })
        }
        return stray.min().map { "a container of \($0) is left over" }
    }
}

extension ServiceSpec {
    fileprivate var writtenVolumes: [String] {
        mounts.compactMap { mount in
            guard case .volume(let name) = mount.source, !mount.readOnly else { return nil }
            return name
        }
    }
}
