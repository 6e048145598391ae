// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// Brings the tasks of one app to what its services ask for, one step at a time.
///
/// Pure: the same picture and time give the same step on any node. Run again after each change, it ends where nothing
/// is left to do.
public struct Rollout: Sendable {
    /// What the leader is to do next for an app.
    public struct Step: Hashable, Sendable {
        public var changes: [Change] = []
        /// Tasks to place, per service.
        public var create: [Creation] = []
        /// Nothing will happen before this time unless something changes; nil when only a change can help.
        public var wakeAt: Timestamp?

        public var isEmpty: Bool { changes.isEmpty && create.isEmpty }
    }

    public struct Creation: Hashable, Sendable {
        public var service: ServiceRow
        public var count: Int
        /// One on each of these; nil for any node.
        public var nodes: Set<NodeID>?
    }

    /// A task counts as good once its container has run this long: a command that fails at once is caught by it.
    public static let monitorMilliseconds: Int64 = 1500
    /// So many restarts of one task during a rollout are a crash loop.
    public static let restartsUntilCrashLoop = 4
    /// Ended tasks kept per service, with their logs, to explain what happened.
    public static let endedTasksKept = 5

    let picture: AppPicture
    let now: Timestamp
    /// Oldest first.
    private let tasksByService: [String: [TaskRow]]

    private init(picture: AppPicture, now: Timestamp) {
        self.picture = picture
        self.now = now
        tasksByService = Dictionary(grouping: picture.tasks, by: \.service)
    }

    public static func next(_ picture: AppPicture, now: Timestamp) -> Step {
        Rollout(picture: picture, now: now).step()
    }

    private func step() -> Step {
        if picture.app.deleting { return deletion() }
        if let failure = failure() { return Step(changes: [failure]) }
        var step = Step()
        for service in picture.services where !service.removed { converge(service, &step) }
        // What leaves serves until the rest stands, unless it came with a failed release or holds a volume the rest waits for.
        let isReplaced = picture.services.allSatisfy { $0.removed || hasConverged($0) }
        for service in picture.services where service.removed {
            if isReplaced || service.spec.hasWritableVolume || runningRollout?.rollingBack ?? true {
                converge(service, &step)
            }
        }
        // A global service waits for no node without room; that it is wanted there stays said.
        let isWaiting = step.create.allSatisfy { creation in
            creation.nodes.map { $0.isSubset(of: picture.globals[creation.service.name]?.full ?? []) } ?? false
        }
        if step.changes.isEmpty, isWaiting, let end = success() { step.changes.append(end) }
        prune(&step)
        step.wakeAt = nextWake()
        return step
    }

    // MARK: - What is there

    func tasks(of service: ServiceRow) -> [TaskRow] { tasksByService[service.name] ?? [] }

    func isStable(_ task: TaskRow) -> Bool {
        if task.isCompleted { return true }
        guard task.status.state == .running, task.status.ready, let started = task.status.startedAt else {
            return false
        }
        return now - started >= Self.monitorMilliseconds
    }

    /// As many good tasks of the current generation as wanted, and no others.
    private func hasConverged(_ service: ServiceRow) -> Bool {
        if let nodes = picture.globals[service.name] { return hasConverged(service, on: nodes) }
        let serving = tasks(of: service).filter { $0.goal == .run }
        return serving.count == (service.removed ? 0 : service.replicas)
            && serving.allSatisfy { $0.generation == service.generation && isStable($0) }
    }

    /// A service that left the app still runs on a volume this one would write.
    func isHeldBack(_ service: ServiceRow) -> Bool {
        let mine = service.spec.writableSources
        return picture.services.contains { other in
            other.removed
                && tasks(of: other).contains {
                    !$0.status.state.isTerminal && !mine.isDisjoint(with: $0.spec.writableSources)
                }
        }
    }

    // MARK: - Steps

    private func deletion() -> Step {
        let wanted = picture.tasks.filter { $0.goal == .run }.map(\.id)
        if !wanted.isEmpty {
            return Step(changes: [.stopTasks(StopTasks(tasks: wanted, reason: Reason(.stopped, "the app was deleted")))]
            )
        }
        // A node that is down finds out when it comes back: what has no row is removed there.
        guard picture.tasks.allSatisfy({ $0.status.state.isTerminal || picture.down.contains($0.node) }) else {
            return Step()
        }
        return Step(changes: [.removeApp(AppChange(app: picture.app.key))])
    }

    private func converge(_ service: ServiceRow, _ step: inout Step) {
        if let nodes = picture.globals[service.name] { return converge(service, on: nodes, &step) }
        // Two replicas must not write the same volume where one release hands over to the next.
        let exclusive = service.spec.hasWritableVolume
        let takesPorts = !service.spec.hostPorts.isEmpty
        let all = tasks(of: service)
        // Lost with their node, unless they write a volume there: it is where they are, and they come back with it.
        let lost = all.filter {
            $0.goal == .run && picture.down.contains($0.node) && !$0.spec.hasWritableVolume && !$0.isCompleted
        }
        if !lost.isEmpty {
            step.changes.append(
                .stopTasks(StopTasks(tasks: lost.map(\.id), reason: Reason(.nodeDown, "its node does not answer"))))
        }
        let lostIDs = Set(lost.map(\.id))
        let mine = all.filter { !lostIDs.contains($0.id) }
        let wanted = service.removed ? 0 : service.replicas
        let fresh = mine.filter { $0.goal == .run && $0.generation == service.generation && !service.removed }
        // Of a node that is to be empty: replaced like those of an earlier release, one by one.
        let moving =
            exclusive
            ? []
            : fresh.filter {
                (picture.drained.contains($0.node) || picture.moving.contains($0.id)) && !$0.isCompleted
            }
        let movingIDs = Set(moving.map(\.id))
        let current = fresh.filter { !movingIDs.contains($0.id) }
        let currentIDs = Set(current.map(\.id))
        let old = mine.filter { $0.goal == .run && !currentIDs.contains($0.id) }
        // On a node that is down they keep nothing from those of another, unless they may write there.
        let leaving = mine.filter {
            $0.goal == .stop && !$0.status.state.isTerminal && (exclusive || !picture.down.contains($0.node))
        }.count
        // What moves finds its port on another node; a release follows the other on the same ones.
        let handsOver = exclusive || takesPorts && moving.count < old.count
        let total = current.count + old.count

        func stop(_ tasks: [TaskRow], _ reason: Reason) {
            if !tasks.isEmpty { step.changes.append(.stopTasks(StopTasks(tasks: tasks.map(\.id), reason: reason))) }
        }
        func create(_ count: Int) {
            if count > 0, !isHeldBack(service) { step.create.append(Creation(service: service, count: count)) }
        }
        let scaledDown = Reason(.stopped, "the service was scaled down")
        let movedAway =
            old.contains { picture.drained.contains($0.node) }
            ? Reason(.nodeDrained, "moved to another node: its own is drained")
            : Reason(.replaced, "moved to another node, to spread the service more evenly")
        let replaced =
            moving.isEmpty ? Reason(.replaced, "replaced by release \(picture.app.release)") : movedAway

        if wanted == 0 { return stop(current + old, service.removed ? replaced : scaledDown) }
        if old.isEmpty {
            if current.count > wanted { return stop(leastUseful(current, current.count - wanted), scaledDown) }
            return create(wanted - current.count - (exclusive || takesPorts ? leaving : 0))
        }
        // A release that failed goes no further; only a new deploy or going back does. What its tasks and those before lose
        // with a node is made up for, as the app asks for it now: elsewhere first.
        if let rollout = picture.rollout, rollout.state == .failed, !rollout.rollingBack, moving.count < old.count {
            if exclusive { return }
            if total < wanted { return create(wanted - total) }
            let forced = old.filter { picture.drained.contains($0.node) || movingIDs.contains($0.id) }
            guard !forced.isEmpty, current.allSatisfy(isStable) else { return }
            if total > wanted { return stop(leastUseful(forced, total - wanted), movedAway) }
            return create(1)
        }
        // What is missing waits neither for what moves nor for what has yet to prove itself.
        if !handsOver, total < wanted { return create(wanted - total) }
        // One by one: the next step waits until what was started has proved itself.
        guard current.allSatisfy(isStable) else { return }
        if handsOver {
            guard leaving == 0 else { return }
            if total >= wanted { return stop(leastUseful(old, max(1, total - wanted)), replaced) }
            return create(wanted - total)
        }
        if current.count >= wanted { return stop(old, replaced) }
        if total > wanted { return stop(leastUseful(old, total - wanted), replaced) }
        // Tasks of a good release move a tenth at a time, a new release goes one by one.
        let surge = moving.count == old.count ? max(1, min(moving.count, wanted / 10)) : 1
        create(max(surge, wanted - total))
    }

    /// Those that serve least go first: ended ones, then such as are not ready, then the youngest.
    func leastUseful(_ tasks: [TaskRow], _ count: Int) -> [TaskRow] {
        func rank(_ task: TaskRow) -> Int { task.status.state.isTerminal ? 0 : task.status.ready ? 2 : 1 }
        return Array(
            tasks.sorted { (rank($0), $1.sequence, $0.id) < (rank($1), $0.sequence, $1.id) }.prefix(count))
    }

    private func prune(_ step: inout Step) {
        var gone: [TaskID] = []
        for (name, tasks) in tasksByService.sorted(by: { $0.key < $1.key }) {
            let isRemoved = picture.services.first { $0.name == name }?.removed ?? true
            let ended = tasks.filter {
                $0.goal == .stop && $0.status.state.isTerminal && $0.id != picture.rollout?.failedTask
            }
            gone += ended.dropLast(isRemoved ? 0 : Self.endedTasksKept).map(\.id)
        }
        if !gone.isEmpty { step.changes.append(.removeTasks(RemoveTasks(tasks: gone))) }
    }

    // MARK: - How a rollout ends

    private var runningRollout: RolloutRow? {
        picture.rollout.flatMap { $0.state == .running ? $0 : nil }
    }

    private func success() -> Change? {
        guard let rollout = runningRollout else { return nil }
        guard picture.services.allSatisfy(hasConverged) else { return nil }
        return .endRollout(EndRollout(id: rollout.id, outcome: rollout.rollingBack ? .rolledBack : .succeeded))
    }

    private func failure() -> Change? {
        guard let rollout = runningRollout else { return nil }
        func fail(_ reason: Reason, _ task: TaskID?) -> Change {
            .endRollout(EndRollout(id: rollout.id, outcome: .failed(reason, task: task)))
        }
        let fresh = picture.services.flatMap { service in
            tasks(of: service).filter {
                $0.generation == service.generation && $0.goal == .run && $0.createdAt >= rollout.startedAt
            }
        }
        if !rollout.rollingBack {
            for task in fresh {
                if task.status.state == .failed {
                    return fail(task.status.reason ?? Reason(.startFailed, "task \(task.id) failed"), task.id)
                }
                if task.status.restarts >= Self.restartsUntilCrashLoop, !isStable(task) {
                    let cause = task.status.reason?.message ?? "ended again and again"
                    return fail(
                        Reason(
                            .crashLoop, "task \(task.id) of service `\(task.service)` keeps ending: \(cause)",
                            hint: "its log says more: hivemind app logs \(picture.app.key.name) --task \(task.id)"),
                        task.id)
                }
            }
        }
        if now - rollout.progressAt > rollout.progressDeadlineMilliseconds {
            let stuck = fresh.first { !isStable($0) }
            let seconds = rollout.progressDeadlineMilliseconds / 1000
            let cause = stuck?.status.reason ?? picture.refusal
            let detail = cause.map { ": \($0.message)" } ?? ""
            return fail(
                Reason(.deadlineExceeded, "no progress for \(seconds) s\(detail)", hint: cause?.hint), stuck?.id)
        }
        return nil
    }

    private func nextWake() -> Timestamp? {
        let isMoving = picture.services.contains { service in
            tasks(of: service).contains { task in
                task.goal == .run
                    && (picture.drained.contains(task.node) || picture.moving.contains(task.id)
                        || service.spec.isGlobal && service.generation != task.generation)
            }
        }
        guard runningRollout != nil || isMoving else { return nil }
        var wakes: [Timestamp] = []
        if let rollout = runningRollout {
            wakes.append(rollout.progressAt + (rollout.progressDeadlineMilliseconds + 1))
        }
        for task in picture.tasks where task.goal == .run && task.status.ready && !isStable(task) {
            if let started = task.status.startedAt { wakes.append(started + Self.monitorMilliseconds) }
        }
        return wakes.min()
    }
}

extension ServiceSpec {
    fileprivate var writableSources: Set<MountSpec.Source> {
        Set(
            mounts.filter { mount in
                if case .tmpfs = mount.source { return false }
                return !mount.readOnly
            }.map(\.source))
    }
}
