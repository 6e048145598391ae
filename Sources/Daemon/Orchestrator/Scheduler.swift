// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// Picks node and address for tasks to be created.
///
/// Pure: nodes, what runs on them, addresses, time and generator are given.
public struct Scheduler: Sendable {
    /// A service of an app, as far as spreading goes.
    public struct ServiceKey: Hashable, Sendable {
        public var app: ObjectKey
        public var service: String

        public init(app: ObjectKey, service: String) {
            self.app = app
            self.service = service
        }
    }

    public var nodes: [NodeRow]
    /// Per node: addresses in use and resting ones with the time they were given back.
    public var addresses: [NodeID: (used: Set<IPv4Address>, released: [IPv4Address: Timestamp])]
    /// Wanted tasks of each service, per node.
    public var running: [ServiceKey: [NodeID: Int]]
    /// Where each volume lies; a volume without a node is bound by its first task.
    public var volumes: [ObjectKey: NodeID]
    public var now: Timestamp

    public init(
        nodes: [NodeRow],
        addresses: [NodeID: (used: Set<IPv4Address>, released: [IPv4Address: Timestamp])],
        running: [ServiceKey: [NodeID: Int]] = [:], volumes: [ObjectKey: NodeID] = [:], now: Timestamp
    ) {
        self.nodes = nodes
        self.addresses = addresses
        self.running = running
        self.volumes = volumes
        self.now = now
    }

    /// Places up to `count` tasks; fewer when no node fits, with the reason, node by node.
    public mutating func place(
        _ service: ServiceRow, count: Int, using random: inout some RandomNumberGenerator
    ) -> (tasks: [NewTask], refusal: Reason?) {
        var tasks: [NewTask] = []
        let key = ServiceKey(app: service.app, service: service.name)
        for _ in 0..<count {
            var refusals: [(NodeRow, Reason)] = []
            var fitting: [NodeRow] = []
            for node in nodes {
                if let reason = refusal(of: node, for: service) {
                    refusals.append((node, reason))
                } else {
                    fitting.append(node)
                }
            }
            guard let (node, address) = choose(fitting, key) else {
                return (tasks, Self.reason(refusals + fitting.map { ($0, exhausted($0)) }))
            }
            addresses[node.id, default: ([], [:])].used.insert(address)
            addresses[node.id]?.released[address] = nil
            running[key, default: [:]][node.id, default: 0] += 1
            for volume in Self.volumes(of: service) where volumes[volume] == nil { volumes[volume] = node.id }
            tasks.append(
                NewTask(
                    id: TaskID(IdentifierMaker.make(using: &random)), app: service.app, service: service.name,
                    generation: service.generation, node: node.id, address: address))
        }
        return (tasks, nil)
    }

    // MARK: - Which nodes fit

    private static func volumes(of service: ServiceRow) -> [ObjectKey] {
        service.spec.mounts.compactMap { mount in
            guard case .volume(let name) = mount.source else { return nil }
            return ObjectKey(namespace: service.app.namespace, name: name)
        }
    }

    private func refusal(of node: NodeRow, for service: ServiceRow) -> Reason? {
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
        for volume in Self.volumes(of: service) {
            guard let place = volumes[volume], place != node.id else { continue }
            let name = nodes.first { $0.id == place }?.name ?? place.raw
            return Reason(.volumeElsewhere, "volume `\(volume.name)` is on `\(name)`")
        }
        return nil
    }

    /// Evenly over zones, then over nodes: fewest tasks of this service first, then fewest tasks at all.
    private func choose(_ fitting: [NodeRow], _ key: ServiceKey) -> (NodeRow, IPv4Address)? {
        let mine = running[key] ?? [:]
        var zones: [String: Int] = [:]
        for node in nodes { zones[node.labels["zone"] ?? "", default: 0] += mine[node.id] ?? 0 }
        func rank(_ node: NodeRow) -> (Int, Int, Int, NodeID) {
            (
                zones[node.labels["zone"] ?? ""] ?? 0, mine[node.id] ?? 0, addresses[node.id]?.used.count ?? 0, node.id
            )
        }
        for node in fitting.sorted(by: { rank($0) < rank($1) }) {
            let known = addresses[node.id] ?? ([], [:])
            if let address = AddressPool.next(
                in: node.subnet, usable: AddressPool.containerOffsets(of: node.subnet), used: known.used,
                released: known.released, now: now)
            {
                return (node, address)
            }
        }
        return nil
    }

    private func exhausted(_ node: NodeRow) -> Reason {
        Reason(
            .addressExhausted, "none of \(AddressPool.containerOffsets(of: node.subnet).count) container addresses is free",
            hint: "addresses given back rest for \(AddressPool.restMilliseconds / 1000) s; else scale something down")
    }

    /// One sentence of all nodes; its code is that of the only kind of refusal, else `no_node`.
    private static func reason(_ refusals: [(NodeRow, Reason)]) -> Reason {
        guard let first = refusals.first else { return Reason(.noNode, "there is no node") }
        let kinds = Set(refusals.map(\.1.code))
        if refusals.count == 1 {
            return Reason(first.1.code, "node `\(first.0.name)`: \(first.1.message)", hint: first.1.hint)
        }
        let shown = refusals.prefix(8).map { "`\($0.0.name)`: \($0.1.message)" }.joined(separator: "; ")
        let rest = refusals.count > 8 ? "; and \(refusals.count - 8) more" : ""
        return Reason(
            kinds.count == 1 ? first.1.code : .noNode, "none of \(refusals.count) nodes fits: \(shown)\(rest)",
            hint: refusals.lazy.compactMap(\.1.hint).first)
    }
}
