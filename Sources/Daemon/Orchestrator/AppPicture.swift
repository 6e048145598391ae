// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// All that decisions about one app are made from, read at one moment.
public struct AppPicture: Hashable, Sendable {
    public var app: AppRow
    public var services: [ServiceRow]
    /// Oldest first.
    public var tasks: [TaskRow]
    public var rollout: RolloutRow?
    /// Nodes that are down: what they run counts as lost.
    public var down: Set<NodeID>
    /// Nodes that are to be empty.
    public var drained: Set<NodeID>
    /// Per global service, the nodes that are to have a task of it, and those that may keep the one they have.
    public var globals: [String: GlobalNodes] = [:]

    public init(
        app: AppRow, services: [ServiceRow], tasks: [TaskRow], rollout: RolloutRow?, down: Set<NodeID> = [],
        drained: Set<NodeID> = []
    ) {
        self.app = app
        self.services = services
        self.tasks = tasks
        self.rollout = rollout
        self.down = down
        self.drained = drained
    }

    public init?(_ state: StateView, _ key: ObjectKey) throws {
        guard let app = try state.app(key) else { return nil }
        let nodes = try state.nodes()
        self.init(
            app: app, services: try state.services(namespace: key.namespace, app: key.name),
            tasks: try state.tasks(app: key), rollout: try state.rollout(app: key),
            down: Set(nodes.filter { $0.liveness == .down }.map(\.id)),
            drained: Set(nodes.filter { $0.availability == .drained && $0.liveness != .down }.map(\.id)))
        for index in services.indices where services[index].spec.isGlobal && !services[index].removed {
            let service = services[index]
            let fit = nodes.filter {
                $0.availability != .drained && $0.liveness != .down && Scheduler.suits(service.spec, $0)
            }
            let serving = Set(tasks.filter { $0.service == service.name && $0.goal == .run }.map(\.node))
            let places = GlobalNodes(
                take: Set(fit.filter { $0.availability == .active }.map(\.id)), keep: Set(fit.map(\.id)))
            globals[service.name] = places
            // What people see as wanted.
            services[index].replicas = places.take.union(places.keep.intersection(serving)).count
        }
    }
}

/// Where a global service belongs. `take` is part of `keep`; cordoned nodes are the difference.
public struct GlobalNodes: Hashable, Sendable {
    public var take: Set<NodeID>
    public var keep: Set<NodeID>
}

extension TaskRow {
    /// Ended by itself as it should: exit code 0 under a policy that does not start it again.
    var isCompleted: Bool { goal == .run && status.state == .stopped }
}
