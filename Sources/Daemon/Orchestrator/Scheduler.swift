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

    public typealias Ports = [HostPort: Generation]

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
    private(set) var loads: [Load]
    let places: [NodeID: Int]
    /// Groups of nodes, per list of labels; made when first asked for.
    private var levels: [[String]: [Level]] = [:]
    /// Wanted tasks, per node.
    private(set) var running: [Generation: [Int: Int]]
    /// Where each volume lies; a volume without a node is bound by its first task.
    private var volumes: [ObjectKey: NodeID]
    /// Ports of nodes that tasks have for themselves, and of which service those are.
    private(set) var ports: [Ports]
    /// Read when a task comes to a node for the first time.
    private var addresses: [Int: Addresses] = [:]
    private let now: Timestamp

    public init(
        nodes: [NodeRow], loads: [NodeID: Load] = [:], running: [Generation: [NodeID: Int]] = [:],
        volumes: [ObjectKey: NodeID] = [:], ports: [NodeID: Ports] = [:], now: Timestamp
    ) {
        let nodes = nodes.sorted { $0.id < $1.id }
        let places = Dictionary(zip(nodes.map(\.id), nodes.indices), uniquingKeysWith: { first, _ in first })
        self.nodes = nodes
        self.places = places
        self.loads = nodes.map { loads[$0.id] ?? Load() }
        self.running = running.mapValues { counts in
            Dictionary(
                counts.compactMap { node, count in places[node].map { ($0, count) } }, uniquingKeysWith: { $0 + $1 })
        }
        self.volumes = volumes
        self.ports = nodes.map { ports[$0.id] ?? [:] }
        self.now = now
    }

    public init(_ picture: ClusterPicture, now: Timestamp) {
        nodes = picture.nodes
        places = picture.places
        loads = picture.loads
        running = picture.running
        volumes = picture.volumes
        ports = picture.ports
        self.now = now
    }

    /// Nodes with the same values of some labels, among which tasks are spread.
    struct Level: Sendable {
        /// The group of each node, counted from 0.
        var groups: [Int]
        var count: Int
    }

    /// One level for the first label, one for the first two, and so on: a group lies within one of the level before.
    mutating func groups(of labels: [String]) -> [Level] {
        if let known = levels[labels] { return known }
        var made: [Level] = []
        var before = Array(repeating: 0, count: nodes.count)
        for label in labels {
            struct Member: Hashable {
                var group: Int
                /// Nodes without the label are alike.
                var value: String?
            }
            var numbers: [Member: Int] = [:]
            let groups = nodes.indices.map { place in
                let member = Member(group: before[place], value: nodes[place].labels[label])
                let number = numbers[member] ?? numbers.count
                numbers[member] = number
                return number
            }
            made.append(Level(groups: groups, count: numbers.count))
            before = groups
        }
        levels[labels] = made
        return made
    }

    /// A node as far as choosing goes.
    private struct Candidate {
        var place: Int
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
        let levels = groups(of: want.spread)
        var crowd = Crowd(levels, running[want.key] ?? [:])
        var candidates = nodes.indices.filter { place in
            only?.contains(nodes[place].id) ?? true && obstacle(of: place, want) == nil
        }.map { candidate($0, want) }
        while placed.tasks.count < count {
            guard let best = Self.best(candidates, crowd) else {
                let taken = Set(placed.tasks.map(\.node))
                placed.refusals = nodes.indices.compactMap { place in
                    let id = nodes[place].id
                    if let only, !only.contains(id) || taken.contains(id) { return nil }
                    let reason = refusal(of: place, want) ?? (full.contains(place) ? exhausted(nodes[place]) : nil)
                    return reason.map { Refusal(node: id, name: nodes[place].name, reason: $0) }
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
            // Taken out meanwhile, so that the set is changed where it is and not copied.
            addresses[place] = nil
            known.used.insert(address)
            known.released[address] = nil
            addresses[place] = known
            placed.tasks.append(
                NewTask(
                    id: TaskID(IdentifierMaker.make(using: &random)), app: service.app, service: service.name,
                    generation: service.generation, node: node.id, address: address))
            crowd.add(place)
            let next = take(place, want) ? nil : best
            if next == nil { candidates.removeAll { $0.place != place } }
            guard let own = next ?? candidates.indices.first else { continue }
            if obstacle(of: place, want) == nil {
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

    /// Why no node takes one more task of `service`, all nodes in one sentence; nil when one does.
    public func refusal(of service: ServiceRow) -> Reason? {
        var refusals: [Refusal] = []
        for (node, reason) in verdicts(on: service) {
            guard let reason else { return nil }
            refusals.append(Refusal(node: node.id, name: node.name, reason: reason))
        }
        return PlacementRefusal.summary(refusals)
    }

    /// Those of `nodes` that would take a task of `service` but for the processor or memory they lack.
    func full(for service: ServiceRow, among wanted: Set<NodeID>) -> Set<NodeID> {
        let want = Want(service)
        return wanted.filter { id in
            guard let place = places[id] else { return false }
            let obstacle = obstacle(of: place, want)
            return obstacle == .cpu || obstacle == .memory
        }
    }

    // MARK: - Choosing

    /// How many tasks of a service each group of nodes has.
    struct Crowd {
        let levels: [Level]
        private(set) var counts: [[Int]]

        init(_ levels: [Level], _ running: [Int: Int]) {
            self.levels = levels
            counts = levels.map { Array(repeating: 0, count: $0.count) }
            for (place, count) in running { add(place, count) }
        }

        mutating func add(_ place: Int, _ count: Int = 1) {
            for level in levels.indices { counts[level][levels[level].groups[place]] += count }
        }

        /// Less than 0 where `one` is in a group with fewer, at the first level that tells them apart.
        func difference(_ one: Int, _ other: Int) -> Int {
            for level in levels.indices {
                let groups = levels[level].groups
                let difference = counts[level][groups[one]] - counts[level][groups[other]]
                if difference != 0 { return difference }
            }
            return 0
        }
    }

    /// Evenly over groups of nodes, then over nodes; then where most is left, then fewest tasks at all. First by id of equals.
    private static func best(_ candidates: [Candidate], _ crowd: Crowd) -> Int? {
        guard var best = candidates.indices.first else { return nil }
        for index in candidates.indices.dropFirst() {
            let one = candidates[index], other = candidates[best]
            let difference = crowd.difference(one.place, other.place)
            if difference < 0
                || difference == 0 && (one.mine, one.share, one.tasks) < (other.mine, other.share, other.tasks)
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
            place: place, mine: running[want.key]?[place] ?? 0, share: max(cpu, memory),
            tasks: load.tasks)
    }

    /// One task of this kind leaves a node for another.
    mutating func move(_ want: Want, _ from: Int, _ to: Int) {
        for (place, count) in [(from, -1), (to, 1)] {
            loads[place].cpuMillis += count * want.cpuMillis
            loads[place].memoryBytes += Int64(count) * want.memoryBytes
            loads[place].tasks += count
            running[want.key, default: [:]][place, default: 0] += count
        }
        for port in want.ports {
            ports[from][port] = nil
            ports[to][port] = want.key
        }
    }

    /// - Returns: whether a volume was bound, so that only this node is left.
    private mutating func take(_ place: Int, _ want: Want) -> Bool {
        loads[place].cpuMillis += want.cpuMillis
        loads[place].memoryBytes += want.memoryBytes
        loads[place].tasks += 1
        running[want.key, default: [:]][place, default: 0] += 1
        for port in want.ports { ports[place][port] = want.key }
        var bound = false
        for volume in want.volumes where volumes[volume] == nil {
            volumes[volume] = nodes[place].id
            bound = true
        }
        return bound
    }

    // MARK: - Which nodes fit

    /// What a task of a service asks of its node, read once.
    struct Want {
        var key: Generation
        /// Labels over whose values its tasks are spread, the most important one first.
        var spread: [String]
        var cpuMillis: Int
        var memoryBytes: Int64
        var volumes: [ObjectKey]
        var constraints: [PlacementConstraint]
        var tolerations: Set<String>
        var maxPerNode: Int?
        var ports: [HostPort]
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
            let wanted = service.spec.placement?.spread ?? []
            spread = wanted.contains(Placement.zoneLabel) ? wanted : wanted + [Placement.zoneLabel]
            isGlobal = service.spec.isGlobal
            ports = service.spec.hostPorts.map(HostPort.init)
            maxPerNode = isGlobal ? 1 : service.spec.placement?.maxReplicasPerNode
        }
    }

    /// What keeps a task away from a node. Words are made of it only where somebody reads them.
    enum Obstacle: Hashable {
        case suspect, down, cordoned, drained
        case constraint(PlacementConstraint)
        case taint(String)
        case volume(ObjectKey, home: NodeID)
        case has(Int)
        case port(HostPort, Generation)
        /// The daemon listens there.
        case ownPort(HostPort)
        case cpu, memory
    }

    /// The first thing that keeps a task away, in a fixed order: what people can change least comes first.
    func obstacle(of place: Int, _ want: Want) -> Obstacle? {
        let node = nodes[place]
        switch node.liveness {
        case .ready: break
        case .suspect: return .suspect
        case .down: return .down
        }
        switch node.availability {
        case .active: break
        case .cordoned: return .cordoned
        case .drained: return .drained
        }
        if !want.constraints.isEmpty, let constraint = want.constraints.first(where: { !Self.holds($0, node) }) {
            return .constraint(constraint)
        }
        if !node.taints.isEmpty, let taint = node.taints.first(where: { !want.tolerations.contains($0) }) {
            return .taint(taint)
        }
        for volume in want.volumes {
            if let home = volumes[volume], home != node.id { return .volume(volume, home: home) }
        }
        if let most = want.maxPerNode, running[want.key]?[place] ?? 0 >= most { return .has(most) }
        for port in want.ports {
            if let owner = ports[place][port] { return .port(port, owner) }
            if Self.isOwn(port, of: node) { return .ownPort(port) }
        }
        if want.cpuMillis > 0, want.cpuMillis > node.cpuMillis - loads[place].cpuMillis { return .cpu }
        if want.memoryBytes > 0, want.memoryBytes > node.memoryBytes - loads[place].memoryBytes { return .memory }
        return nil
    }

    /// Nodes reach one another there: traffic between them must never go to a container instead.
    private static func isOwn(_ port: HostPort, of node: NodeRow) -> Bool {
        switch port.protocol {
        case .tcp: [node.peerAddress, node.apiAddress].contains { $0.hasSuffix(":\(port.number)") }
        case .udp: !node.peerAddress.isEmpty && port.number == OverlayEnd.standardPort
        }
    }

    private func refusal(of place: Int, _ want: Want) -> Reason? {
        guard let obstacle = obstacle(of: place, want) else { return nil }
        let node = nodes[place], load = loads[place]
        switch obstacle {
        case .suspect:
            return Reason(.nodeDown, "does not answer right now", hint: "hivemind why node \(node.name)")
        case .down:
            return Reason(
                .nodeDown, "is down",
                hint: "start its daemon, or if it is gone for ever: hivemind node remove \(node.name)")
        case .cordoned: return Reason(.nodeCordoned, "is cordoned", hint: "hivemind node uncordon \(node.name)")
        case .drained: return Reason(.nodeCordoned, "is drained", hint: "hivemind node uncordon \(node.name)")
        case .constraint(let constraint):
            let hint: String? =
                if case .label(let label) = constraint.field, constraint.isEqual {
                    "hivemind node label \(node.name) \(label)=\(constraint.value)"
                } else if case .label(let label) = constraint.field {
                    "hivemind node label \(node.name) \(label)-"
                } else {
                    "deploy it with another --constraint"
                }
            return Reason(.constraintUnmet, "does not meet `\(constraint)`", hint: hint)
        case .taint(let taint):
            return Reason(
                .nodeTainted, "has the taint `\(taint)`",
                hint:
                    "let the service tolerate it (--toleration \(taint)), or: hivemind node taint \(node.name) \(taint)-"
            )
        case .volume(let volume, let home):
            let name = places[home].map { nodes[$0].name } ?? home.raw
            return Reason(
                .volumeElsewhere, "volume `\(volume.name)` is on `\(name)`",
                hint: places[home] == nil
                    ? "its node is gone, and its data with it: hivemind volume delete \(volume.name)"
                    : "hivemind why node \(name)")
        case .has(let most):
            if want.isGlobal { return Reason(.replicasPerNode, "has its task already") }
            return Reason(
                .replicasPerNode, "has \(most) of it already, the most it may have",
                hint: "raise --max-per-node, or add a node")
        case .port(let port, let owner):
            let isOwn = (owner.app, owner.service) == (want.key.app, want.key.service)
            return Reason(
                .portInUse,
                "port \(port) is taken by "
                    + (isOwn ? "another task of it" : "service `\(owner.service)` of `\(owner.app)`"),
                hint: isOwn
                    ? "one node has one task of it: add a node, or publish the port in mode ingress"
                    : "choose another port, or: hivemind app info \(owner.app.name)")
        case .ownPort(let port):
            return Reason(.portInUse, "port \(port) is the daemon's own", hint: "choose another port")
        case .cpu:
            return PlacementRefusal.cpu(want: want.cpuMillis, free: node.cpuMillis - load.cpuMillis, of: node.cpuMillis)
        case .memory:
            return PlacementRefusal.memory(
                want: want.memoryBytes, free: node.memoryBytes - load.memoryBytes, of: node.memoryBytes)
        }
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
