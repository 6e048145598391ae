// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// Picks node and address for tasks to be created.
///
/// Pure: nodes, what runs on them, addresses, time and generator are given. Counters are kept up to date with each task
/// placed, so that one picture serves for any number of them.
/// - Complexity: per call one look at every node; per task one comparison with every node that fits.
public struct Scheduler: Sendable {
    /// Tasks that are spread together. Those of earlier generations are on their way out and do not count.
    public struct Generation: Hashable, Sendable {
        public var app: ObjectKey
        public var service: String
        public var number: Int

        public init(app: ObjectKey, service: String, number: Int) {
            self.app = app
            self.service = service
            self.number = number
        }
    }

    /// What the tasks of a node that have not ended take of it.
    public struct Load: Hashable, Sendable {
        public var cpuMillis: Int
        public var memoryBytes: Int64
        public var tasks: Int

        public init(cpuMillis: Int = 0, memoryBytes: Int64 = 0, tasks: Int = 0) {
            self.cpuMillis = cpuMillis
            self.memoryBytes = memoryBytes
            self.tasks = tasks
        }
    }

    /// Addresses of one node in use, and resting ones with the time they were given back.
    public typealias Addresses = (used: Set<IPv4Address>, released: [IPv4Address: Timestamp])

    /// Why one node does not take a task.
    public struct Refusal: Hashable, Sendable {
        public var node: NodeID
        public var name: String
        public var reason: Reason
    }

    public struct Placed: Sendable {
        public var tasks: [NewTask] = []
        /// Of every node, in the order of their names; empty when everything was placed.
        public var refusals: [Refusal] = []
        /// All of them in one sentence; nil when everything was placed.
        public var refusal: Reason?
    }

    /// By id.
    public let nodes: [NodeRow]
    /// In the order of `nodes`, as are all lists here.
    private var loads: [Load]
    private let places: [NodeID: Int]
    private let zones: [Int]
    private let zoneCount: Int
    /// Wanted tasks, per node.
    private var running: [Generation: [Int: Int]]
    /// Where each volume lies; a volume without a node is bound by its first task.
    private var volumes: [ObjectKey: NodeID]
    /// Read when a task comes to a node for the first time.
    private var addresses: [Int: Addresses] = [:]
    private let now: Timestamp

    public init(
        nodes: [NodeRow], loads: [NodeID: Load] = [:], running: [Generation: [NodeID: Int]] = [:],
        volumes: [ObjectKey: NodeID] = [:], now: Timestamp
    ) {
        let nodes = nodes.sorted { $0.id < $1.id }
        let places = Dictionary(zip(nodes.map(\.id), nodes.indices), uniquingKeysWith: { first, _ in first })
        var numbers: [String: Int] = [:]
        zones = nodes.map { node in
            let zone = node.labels["zone"] ?? ""
            let number = numbers[zone] ?? numbers.count
            numbers[zone] = number
            return number
        }
        zoneCount = numbers.count
        self.nodes = nodes
        self.places = places
        self.loads = nodes.map { loads[$0.id] ?? Load() }
        self.running = running.mapValues { counts in
            Dictionary(
                counts.compactMap { node, count in places[node].map { ($0, count) } }, uniquingKeysWith: { $0 + $1 })
        }
        self.volumes = volumes
        self.now = now
    }

    /// A node as far as choosing goes.
    private struct Candidate {
        var place: Int
        var zone: Int
        var mine: Int
        /// Thousandths of what it has, the scarcer of processor and memory.
        var share: Int
        var tasks: Int
    }

    /// Places up to `count` tasks; fewer when no node fits, with the reasons, node by node.
    /// - Parameter only: the nodes to choose from and to give reasons of; nil for all.
    /// - Parameter read: addresses of a node; called once for a node that is to get a task.
    public mutating func place(
        _ service: ServiceRow, count: Int, only: Set<NodeID>? = nil, using random: inout some RandomNumberGenerator,
        addresses read: (NodeRow) throws -> Addresses
    ) rethrows -> Placed {
        let want = Want(service)
        var placed = Placed()
        var full: Set<Int> = []
        var inZone = Array(repeating: 0, count: zoneCount)
        for (place, count) in running[want.key] ?? [:] { inZone[zones[place]] += count }
        var candidates = nodes.indices.filter { place in
            only?.contains(nodes[place].id) ?? true && refusal(of: place, want) == nil
        }.map { candidate($0, want) }
        while placed.tasks.count < count {
            guard let best = Self.best(candidates, inZone) else {
                placed.refusals = nodes.indices.compactMap { place in
                    let id = nodes[place].id
                    if let only, !only.contains(id) || placed.tasks.contains(where: { $0.node == id }) { return nil }
                    let reason = refusal(of: place, want) ?? (full.contains(place) ? exhausted(nodes[place]) : nil)
                    return reason.map { Refusal(node: nodes[place].id, name: nodes[place].name, reason: $0) }
                }.sorted { $0.name < $1.name }
                placed.refusal = PlacementRefusal.summary(placed.refusals)
                return placed
            }
            let place = candidates[best].place, node = nodes[place]
            var known = try addresses[place] ?? read(node)
            guard
                let address = AddressPool.next(
                    in: node.subnet, usable: AddressPool.containerOffsets(of: node.subnet), used: known.used,
                    released: known.released, now: now)
            else {
                addresses[place] = known
                full.insert(place)
                candidates.remove(at: best)
                continue
            }
            known.used.insert(address)
            known.released[address] = nil
            addresses[place] = known
            placed.tasks.append(
                NewTask(
                    id: TaskID(IdentifierMaker.make(using: &random)), app: service.app, service: service.name,
                    generation: service.generation, node: node.id, address: address))
            let bindsVolume = take(place, want)
            inZone[zones[place]] += 1
            if bindsVolume { candidates.removeAll { $0.place != place } }
            guard let own = candidates.firstIndex(where: { $0.place == place }) else { continue }
            if refusal(of: place, want) == nil {
                candidates[own] = candidate(place, want)
            } else {
                candidates.remove(at: own)
            }
        }
        return placed
    }

    /// What each node says to one more task of `service`: nil where it fits. In the order of the nodes' names.
    public func verdicts(on service: ServiceRow) -> [(node: NodeRow, reason: Reason?)] {
        let want = Want(service)
        return nodes.indices.map { (nodes[$0], refusal(of: $0, want)) }.sorted { $0.node.name < $1.node.name }
    }

    // MARK: - Choosing

    /// Evenly over zones, then over nodes; then where most is left, then fewest tasks at all. First by id of equals.
    private static func best(_ candidates: [Candidate], _ inZone: [Int]) -> Int? {
        guard var best = candidates.indices.first else { return nil }
        for index in candidates.indices.dropFirst() {
            let one = candidates[index], other = candidates[best]
            if (inZone[one.zone], one.mine, one.share, one.tasks)
                < (inZone[other.zone], other.mine, other.share, other.tasks)
            {
                best = index
            }
        }
        return best
    }

    private func candidate(_ place: Int, _ want: Want) -> Candidate {
        let node = nodes[place], load = loads[place]
        let cpu = node.cpuMillis > 0 ? load.cpuMillis * 1000 / node.cpuMillis : 0
        let memory = node.memoryBytes > 0 ? Int(load.memoryBytes / max(1, node.memoryBytes / 1000)) : 0
        return Candidate(
            place: place, zone: zones[place], mine: running[want.key]?[place] ?? 0, share: max(cpu, memory),
            tasks: load.tasks)
    }

    /// - Returns: whether a volume was bound, so that only this node is left.
    private mutating func take(_ place: Int, _ want: Want) -> Bool {
        loads[place].cpuMillis += want.cpuMillis
        loads[place].memoryBytes += want.memoryBytes
        loads[place].tasks += 1
        running[want.key, default: [:]][place, default: 0] += 1
        var bound = false
        for volume in want.volumes where volumes[volume] == nil {
            volumes[volume] = nodes[place].id
            bound = true
        }
        return bound
    }

    // MARK: - Which nodes fit

    /// What a task of a service asks of its node, read once.
    private struct Want {
        var key: Generation
        var cpuMillis: Int
        var memoryBytes: Int64
        var volumes: [ObjectKey]
        var constraints: [PlacementConstraint]
        var tolerations: Set<String>
        var maxPerNode: Int?
        var isGlobal: Bool

        init(_ service: ServiceRow) {
            key = Generation(app: service.app, service: service.name, number: service.generation)
            cpuMillis = service.spec.resources.reservedCpuMillis ?? 0
            memoryBytes = service.spec.resources.reservedMemoryBytes ?? 0
            volumes = service.spec.mounts.compactMap { mount in
                guard case .volume(let name) = mount.source else { return nil }
                return ObjectKey(namespace: service.app.namespace, name: name)
            }
            constraints = (service.spec.placement?.constraints ?? []).compactMap { PlacementConstraint($0) }
            tolerations = Set(service.spec.placement?.tolerations ?? [])
            isGlobal = service.spec.isGlobal
            maxPerNode = isGlobal ? 1 : service.spec.placement?.maxReplicasPerNode
        }
    }

    /// The first thing that keeps a task away, in a fixed order: what people can change least comes first.
    private func refusal(of place: Int, _ want: Want) -> Reason? {
        let node = nodes[place], load = loads[place]
        switch node.liveness {
        case .ready: break
        case .suspect: return Reason(.nodeDown, "does not answer right now")
        case .down: return Reason(.nodeDown, "is down")
        }
        switch node.availability {
        case .active: break
        case .cordoned: return Reason(.nodeCordoned, "is cordoned", hint: "hivemind node uncordon \(node.name)")
        case .drained: return Reason(.nodeCordoned, "is drained", hint: "hivemind node uncordon \(node.name)")
        }
        for constraint in want.constraints where !Self.holds(constraint, node) {
            let hint: String? =
                if case .label(let label) = constraint.field, constraint.isEqual {
                    "hivemind node label \(node.name) \(label)=\(constraint.value)"
                } else {
                    nil
                }
            return Reason(.constraintUnmet, "does not meet `\(constraint)`", hint: hint)
        }
        if let taint = node.taints.first(where: { !want.tolerations.contains($0) }) {
            return Reason(
                .nodeTainted, "has the taint `\(taint)`",
                hint:
                    "let the service tolerate it (--toleration \(taint)), or: hivemind node taint \(node.name) \(taint)-"
            )
        }
        for volume in want.volumes {
            guard let home = volumes[volume], home != node.id else { continue }
            let name = places[home].map { nodes[$0].name } ?? home.raw
            return Reason(.volumeElsewhere, "volume `\(volume.name)` is on `\(name)`")
        }
        if let most = want.maxPerNode, running[want.key]?[place] ?? 0 >= most {
            if want.isGlobal { return Reason(.replicasPerNode, "has its task already") }
            return Reason(
                .replicasPerNode, "has \(most) of it already, the most it may have",
                hint: "raise --max-per-node, or add a node")
        }
        if want.cpuMillis > 0, want.cpuMillis > node.cpuMillis - load.cpuMillis {
            return PlacementRefusal.cpu(want: want.cpuMillis, free: node.cpuMillis - load.cpuMillis, of: node.cpuMillis)
        }
        if want.memoryBytes > 0, want.memoryBytes > node.memoryBytes - load.memoryBytes {
            return PlacementRefusal.memory(
                want: want.memoryBytes, free: node.memoryBytes - load.memoryBytes, of: node.memoryBytes)
        }
        return nil
    }

    /// Whether constraints and taints let tasks of `service` be on `node`, whatever its state and load.
    public static func suits(_ service: ServiceSpec, _ node: NodeRow) -> Bool {
        let tolerations = service.placement?.tolerations ?? []
        return (service.placement?.constraints ?? []).compactMap { PlacementConstraint($0) }
            .allSatisfy { holds($0, node) } && node.taints.allSatisfy { tolerations.contains($0) }
    }

    private static func holds(_ constraint: PlacementConstraint, _ node: NodeRow) -> Bool {
        let value = constraint.value
        let equal =
            switch constraint.field {
            case .id: node.id.raw == value
            case .hostname: node.name == value
            case .role:
                // Compose files know two kinds of nodes.
                node.role.rawValue == value || value == (node.role == .voter ? "manager" : "worker")
            case .label(let label): node.labels[label] == value
            }
        return equal == constraint.isEqual
    }

    private func exhausted(_ node: NodeRow) -> Reason {
        Reason(
            .addressExhausted,
            "none of \(AddressPool.containerOffsets(of: node.subnet).count) container addresses is free",
            hint: "addresses given back rest for \(AddressPool.restMilliseconds / 1000) s; else scale something down")
    }
}
