// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// The names and balancing rules every node derives from the applied state.
public enum Tables {
    /// A task gets traffic while it is wanted and its container is up.
    static func isEndpoint(_ task: TaskRow) -> Bool { task.goal == .run && task.status.ready }

    /// - Parameter node: whose own ports are part of it.
    public static func make(
        _ state: StateView, index: UInt64, node: NodeID? = nil
    ) throws -> (names: NameTable, balancing: BalancingTable) {
        make(
            index: index, node: node, services: try state.services(), tasks: try state.tasks(),
            ports: try state.ports(),
            silent: Dictionary(
                try state.nodes().filter { $0.liveness != .ready }.map { ($0.id, $0.liveness) },
                uniquingKeysWith: { first, _ in first }))
    }

    /// Pure. What runs on a node that does not answer gets no traffic; while it is only suspect, that holds as long as
    /// something else can serve. `services` sorted by namespace, app, name; `tasks` in any order.
    public static func make(
        index: UInt64, node: NodeID? = nil, services: [ServiceRow], tasks: [TaskRow], ports: [PortRow],
        silent: [NodeID: NodeRow.Liveness] = [:]
    ) -> (names: NameTable, balancing: BalancingTable) {
        struct ServiceKey: Hashable {
            var app: ObjectKey
            var service: String
        }
        var endpoints: [ServiceKey: [IPv4Address]] = [:]
        var doubtful: [ServiceKey: [IPv4Address]] = [:]
        for task in tasks where isEndpoint(task) {
            let key = ServiceKey(app: task.app, service: task.service)
            switch silent[task.node] {
            case nil, .ready: endpoints[key, default: []].append(task.address)
            case .suspect: doubtful[key, default: []].append(task.address)
            case .down: break
            }
        }
        endpoints.merge(doubtful) { serving, _ in serving }
        let published = Dictionary(grouping: ports) { ServiceKey(app: $0.app, service: $0.service) }
        // A service that left the app keeps its name as long as something of it serves.
        let services = services.filter {
            !$0.removed || endpoints[ServiceKey(app: $0.app, service: $0.name)] != nil
        }
        let perApp = Dictionary(grouping: services.filter { !$0.removed }, by: \.app)

        var named: [NamedService] = []
        var balanced: [BalancedService] = []
        for service in services {
            let key = ServiceKey(app: service.app, service: service.name)
            let ready = (endpoints[key] ?? []).sorted()
            let siblings = perApp[service.app] ?? []
            let isDefault = service.name == service.app.name || (siblings.count == 1 && !service.removed)
            named.append(
                NamedService(
                    app: service.app, service: service.name, isAppDefault: isDefault,
                    vip: service.spec.endpointMode == .vip ? service.vip : nil, endpoints: ready))
            if let vip = service.vip {
                balanced.append(
                    BalancedService(
                        vip: vip, endpoints: ready, ports: (published[key] ?? []).map(\.port).sorted()))
            }
        }
        let pinned = tasks.filter { $0.node == node && isEndpoint($0) }.flatMap { task in
            task.spec.hostPorts.map { PinnedPort(port: $0, endpoint: task.address) }
        }
        let clients = tasks.filter { !$0.status.state.isTerminal }
            .map { NameClient(address: $0.address, app: $0.app) }
            .sorted { $0.address < $1.address }
        return (
            NameTable(index: index, services: named, clients: clients),
            BalancingTable(
                index: index, services: balanced.sorted { $0.vip < $1.vip },
                pinned: pinned.sorted { ($0.port, $0.endpoint) < ($1.port, $1.endpoint) })
        )
    }
}
