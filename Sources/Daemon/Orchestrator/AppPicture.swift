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
    /// Tasks whose turn it is to move to a better node.
    public var moving: Set<TaskID> = []
    /// Nodes that are to be empty.
    public var drained: Set<NodeID>
    /// Per global service, the nodes that are to have a task of it, and those that may keep the one they have.
    public var globals: [String: GlobalNodes] = [:]
    /// Why tasks it lacks found no node when the leader last looked for one.
    public var refusal: Reason?

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

    /// - Parameter nodes: those of `state`, where they are at hand already.
    public init?(_ state: StateView, _ key: ObjectKey, nodes: [NodeRow]? = nil) throws {
        var cluster: ClusterPicture?
        try self.init(state, key, nodes: nodes, cluster: &cluster)
    }

    /// - Parameter cluster: the one that is kept; few apps ask for it.
    init?(_ state: StateView, _ key: ObjectKey, nodes known: [NodeRow]?, cluster: inout ClusterPicture?) throws {
        guard let app = try state.app(key) else { return nil }
        let nodes = try known ?? state.nodes()
        self.init(
            app: app, services: try state.services(of: key),
            tasks: try state.tasks(app: key), rollout: try state.rollout(app: key),
            down: Set(nodes.filter { $0.liveness == .down }.map(\.id)),
            drained: Set(nodes.filter { $0.availability == .drained && $0.liveness != .down }.map(\.id)))
        if tasks.contains(where: \.isMoving) {
            moving = Set(try state.movingTasks(limit: Rebalance.movingMax).filter { $0.app == key }.map(\.id))
        }
        for index in services.indices where services[index].spec.isGlobal && !services[index].removed {
            let service = services[index]
            let fit = nodes.filter {
                $0.availability != .drained && $0.liveness != .down && Scheduler.suits(service.spec, $0)
            }
            let serving = Set(tasks.filter { $0.service == service.name && $0.goal == .run }.map(\.node))
            var places = GlobalNodes(
                take: Set(fit.filter { $0.availability == .active }.map(\.id)), keep: Set(fit.map(\.id)))
            if service.spec.resources.isReserving {
                let has = Set(
                    tasks.filter {
                        $0.service == service.name && $0.goal == .run && $0.generation == service.generation
                    }.map(\.node))
                let missing = places.take.subtracting(has)
                if !missing.isEmpty {
                    // Of no consequence here: only what is free now is compared.
                    let current = try ClusterPicture.current(&cluster, state, nodes: nodes)
                    places.full = Scheduler(current, now: app.updatedAt).full(for: service, among: missing)
                }
            }
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
    /// Those of `take` that lack processor or memory for the task they are to get. They get it when there is room; nothing
    /// waits for that.
    public var full: Set<NodeID> = []

    public init(take: Set<NodeID>, keep: Set<NodeID>, full: Set<NodeID> = []) {
        self.take = take
        self.keep = keep
        self.full = full
    }
}

extension TaskRow {
    /// Ended by itself as it should: exit code 0 under a policy that does not start it again.
    var isCompleted: Bool { goal == .run && status.state == .stopped }
}
