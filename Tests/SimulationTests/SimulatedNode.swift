// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Raft
import Store

/// One real core on a virtual clock, a machine made of values and a disk that forgets what was not synced.
///
/// Everything is drawn from one seed: order of completions, delays, crashes. The core under test is the one the daemon
/// runs; only the effects are simulated.
final class SimulatedNode {
    /// What a container of an image does.
    enum Behaviour {
        case runs
        /// Ends with this code so many milliseconds after its start.
        case exits(code: Int, afterMilliseconds: Int64)
        case failsToStart(Reason)
    }

    struct Container {
        var observed: ObservedContainer
        var behaviour: Behaviour
    }

    private enum Pending {
        case event(NodeCore.Event)
        case consensus(Input)
        case containerExit(ContainerID, Int)
    }

    let node = NodeID("node1")
    private(set) var now = Timestamp(milliseconds: 1_700_000_000_000)
    private(set) var random: SplitMix64
    private(set) var core: NodeCore?
    private(set) var raft: RaftNode?
    /// Proposals from outside that have a place in the log, by index.
    private var placed: [UInt64: Accepted] = [:]
    private(set) var state: StateMachine
    private var queue: [(at: Timestamp, order: UInt64, item: Pending)] = []
    private var order: UInt64 = 0
    private var pid: Int32 = 100

    // The machine: survives a crash of the daemon.
    private(set) var containers: [ContainerID: Container] = [:]
    private(set) var attached: Set<TaskID> = []
    private(set) var logged: Set<TaskID> = []
    var behaviours: [String: Behaviour] = [:]

    // The disk.
    private var durable: [Write] = []
    private var unsynced: [Write] = []

    // What the outside has seen.
    private(set) var replies: [UInt64: Result<Applied, Problem>] = [:]
    private var nextToken: UInt64 = 1
    private(set) var balancing = BalancingTable.empty
    private(set) var names = NameTable.empty
    private(set) var programmed = BalancingTable.empty
    /// Containers that got a stop signal while a rule in force still named their task.
    private(set) var stoppedInService: [ContainerID] = []
    /// Each start, to see that no container is started twice.
    private(set) var starts: [ContainerID] = []
    private(set) var crashes = 0

    init(seed: UInt64) throws {
        random = SplitMix64(seed: seed)
        state = try StateMachine(path: nil)
        try boot()
        _ = try run(milliseconds: 1000) { self.raft?.isReady == true }
        _ = try perform(.initializeCluster(InitializeCluster(clusterID: "sim", ranges: .standard)))
        guard let subnet = IPv4Subnet("10.210.0.0/24") else { preconditionFailure("subnet") }
        _ = try perform(
            .putNode(
                NodeRow(
                    id: node, name: "node1", address: "127.0.0.1", subnet: subnet,
                    cpuMillis: 2000, memoryBytes: 1 << 30, version: "test")))
    }

    // MARK: - Running

    private func boot() throws {
        var hard = HardState()
        var entries: [Entry] = []
        for write in durable {
            if let state = write.hardState { hard = state }
            entries += write.entries
        }
        let applied = try state.read { try $0.meta() }
        let last = entries.last.map(\.position) ?? .origin
        var starts: [LogPosition] = []
        for entry in entries where entry.term != starts.last?.term { starts.append(entry.position) }
        raft = RaftNode(
            configuration: .init(id: 1), hardState: hard, log: LogExtent(base: .origin, last: last),
            termStarts: starts, appliedIndex: applied.appliedIndex,
            configurations: [ConfigurationPoint(index: 0, membership: Membership(voters: [1]))])
        core = NodeCore(node: node, state: state, seed: random.next(), meta: applied)
        placed = [:]
        try feed(Input.tick)
    }

    /// kill -9: memory and everything under way are gone; containers, attachments and synced writes stay.
    /// - Parameter losesState: also the state file, which is then rebuilt from the log.
    func crash(losesState: Bool = false) throws {
        crashes += 1
        // Writes under way may or may not have reached the disk, in order.
        let kept = unsynced.isEmpty ? 0 : Int.random(in: 0...unsynced.count, using: &random)
        durable += unsynced.prefix(kept)
        unsynced = []
        queue = queue.filter { if case .containerExit = $0.item { true } else { false } }
        if losesState { state = try StateMachine(path: nil) }
        try boot()
    }

    @discardableResult
    func propose(_ change: Change, request: String? = nil) throws -> UInt64 {
        let token = nextToken
        nextToken += 1
        let payload = try Command(request: request, at: now, change: change).encoded()
        try feed(.propose([Proposal(token: token, payload: payload)]))
        return token
    }

    /// Proposes and runs until it is answered.
    func perform(_ change: Change) throws -> Result<Applied, Problem>? {
        let token = try propose(change)
        _ = try run(milliseconds: 5000) { self.replies[token] != nil }
        return replies[token]
    }

    /// Runs until `done` or the time is over; false when it is over.
    func run(milliseconds: Int64, until done: () throws -> Bool) throws -> Bool {
        let end = now + milliseconds
        while true {
            if try done() { return true }
            let wake = core?.wakeAt ?? end
            let next = queue.first?.at ?? end
            let at = min(next, max(wake, now))
            if at >= end {
                now = end
                return try done()
            }
            now = max(now, at)
            if next <= at, !queue.isEmpty {
                let item = queue.removeFirst().item
                switch item {
                case .event(let event): try feed(event)
                case .consensus(let input): try feed(input)
                case .containerExit(let id, let code): try exit(id, code: code)
                }
            } else {
                if wake <= now { now = now + 1 }
                try feed(NodeCore.Event.tick)
            }
        }
    }

    /// A container's process ends, whatever ended it.
    func exit(_ id: ContainerID, code: Int) throws {
        guard var container = containers[id], case .running = container.observed.state else { return }
        let status = ExitStatus(code: code, outOfMemory: false, at: now)
        container.observed.state = .exited(status)
        containers[id] = container
        schedule(.event(.observed(.exited(id, status))), after: 0...5)
    }

    private func schedule(_ item: Pending, after delay: ClosedRange<Int64>) {
        order += 1
        let at = now + Int64.random(in: delay, using: &random)
        let index = queue.firstIndex { at < $0.at } ?? queue.endIndex
        queue.insert((at, order, item), at: index)
    }

    private func feed(_ input: Input) throws {
        if case .persisted = input {
            durable += unsynced
            unsynced = []
        }
        guard let output = raft?.step(input) else { return }
        if let write = output.write {
            unsynced.append(write)
            schedule(.consensus(.persisted(write.receipt)), after: 1...4)
        }
        for accepted in output.accepted {
            if accepted.token >= NodeCore.ownTokens {
                try feed(.accepted(accepted))
            } else {
                placed[accepted.position.index] = accepted
            }
        }
        for refused in output.refused {
            if refused.token >= NodeCore.ownTokens {
                try feed(.refused(refused))
            } else {
                replies[refused.token] = .failure(Problem(.noLeader, "\(refused.reason)"))
            }
        }
        if let change = output.roleChange {
            try feed(
                .leadership(NodeCore.Leadership(isReady: change.isReady, hasLeader: change.leader != nil)))
        }
        if let committed = output.committed {
            let earlier = durable.flatMap(\.entries).filter { committed.fromLog.contains($0.index) }
            try feed(.committed(earlier + committed.entries))
        }
        if output.roleChange?.isReady == true, let index = raft?.commitIndex { try feed(.current(at: index)) }
    }

    private func feed(_ event: NodeCore.Event) throws {
        guard let effects = try core?.step(event, now: now) else { return }
        for effect in effects { try carryOut(effect) }
    }

    // MARK: - Effects

    private func carryOut(_ effect: NodeCore.Effect) throws {
        switch effect {
        case .propose(let proposals): schedule(.consensus(.propose(proposals)), after: 0...1)
        case .applied(let entries):
            for entry in entries {
                guard let accepted = placed.removeValue(forKey: entry.position.index), let result = entry.result
                else { continue }
                replies[accepted.token] = .success(result)
            }
            if let last = entries.last { try feed(Input.applied(last.position.index)) }
        case .perform(let action): perform(action)
        case .publish(let names, let balancing):
            self.names = names
            self.balancing = balancing
            programmed = balancing
            schedule(.event(.programmed(balancing.index)), after: 0...10)
        case .release(let index): schedule(.event(.released(index)), after: 0...50)
        case .inForce, .placement, .caughtUp, .checkpoint, .compare, .nodes: break
        case .halt(let message): throw Halted(message: message)
        }
    }

    struct Halted: Error { var message: String }

    private func report(_ observation: Observation, after delay: ClosedRange<Int64>) {
        schedule(.event(.observed(observation)), after: delay)
    }

    private func perform(_ action: Action) {
        switch action {
        case .start(let request):
            starts.append(request.container)
            logged.insert(request.task)
            let behaviour = behaviours[request.service.image] ?? .runs
            for id in request.discard { containers[id] = nil }
            if case .failsToStart(let reason) = behaviour {
                attached.insert(request.task)
                return report(.startFailed(request.task, attempt: request.attempt, reason), after: 5...50)
            }
            attached.insert(request.task)
            pid += 1
            let started = StartedContainer(pid: pid, startedAt: now + 20)
            containers[request.container] = Container(
                observed: ObservedContainer(
                    id: request.container, task: request.task, attempt: request.attempt, state: .running(pid: pid),
                    startedAt: started.startedAt), behaviour: behaviour)
            report(.starting(request.task, attempt: request.attempt), after: 1...10)
            report(.started(request.task, attempt: request.attempt, started), after: 20...120)
            if case .exits(let code, let after) = behaviour {
                schedule(.containerExit(request.container, code), after: (20 + after)...(20 + after))
            }
        case .cancelStart: break
        case .stop(let task, let id, _, _):
            if let row = try? state.read({ try $0.task(task) }),
                programmed.services.contains(where: { $0.endpoints.contains(row.address) })
            {
                stoppedInService.append(id)
            }
            if var container = containers[id], case .running = container.observed.state {
                let status = ExitStatus(code: 143, outOfMemory: false, at: now)
                container.observed.state = .exited(status)
                containers[id] = container
                report(.exited(id, status), after: 0...20)
            }
            report(.stopped(task, id), after: 5...60)
        case .discard(let ids): for id in ids { containers[id] = nil }
        case .clean(let task, let ids):
            for id in ids { containers[id] = nil }
            attached.remove(task)
            report(.cleaned(task), after: 5...60)
        case .forgetLogs(let task): logged.remove(task)
        case .deleteVolume(let key): report(.volumeDeleted(key), after: 1...20)
        case .takeInventory(let token):
            report(
                .inventory(
                    Inventory(
                        token: token, containers: containers.values.map(\.observed).sorted { $0.id < $1.id },
                        attached: attached.sorted(), logged: logged.sorted())), after: 1...30)
        }
    }

    // MARK: - Questions

    func picture(_ name: String) throws -> AppPicture? {
        try state.read { try AppPicture($0, ObjectKey(name: name)) }
    }

    /// Tasks that run and are wanted.
    func serving(_ name: String) throws -> [TaskRow] {
        try picture(name)?.tasks.filter { $0.goal == .run && $0.status.ready } ?? []
    }

    /// What must hold after every step, whatever happened.
    func violations() throws -> [String] {
        var found: [String] = []
        let tasks = try state.read { try $0.tasks() }
        let living = tasks.filter { !$0.status.state.isTerminal }
        let addresses = living.map(\.address)
        if Set(addresses).count != addresses.count { found.append("an address is used twice") }
        let vips = try state.read { try $0.services() }.compactMap(\.vip)
        if Set(vips).count != vips.count { found.append("a virtual address is used twice") }
        if !stoppedInService.isEmpty { found.append("stopped while in service: \(stoppedInService)") }
        let running = Dictionary(
            grouping: containers.values.filter {
                if case .running = $0.observed.state { true } else { false }
            }, by: \.observed.task)
        for (task, list) in running where list.count > 1 { found.append("task \(task) runs \(list.count) containers") }
        return found
    }

    /// Desired and observed agree and nothing is left over; nil, or what differs.
    func difference() throws -> String? {
        let tasks = try state.read { try $0.tasks() }
        let living = Set(tasks.filter { !$0.status.state.isTerminal }.map(\.id))
        let stray = Set(containers.values.map(\.observed.task)).union(attached).subtracting(living)
        if !stray.isEmpty { return "left over: \(stray.sorted())" }
        let lost = logged.subtracting(tasks.map(\.id))
        if !lost.isEmpty { return "logs left over: \(lost.sorted())" }
        for app in try state.read({ try $0.apps() }) {
            guard let picture = try state.read({ try AppPicture($0, app.key) }) else { continue }
            if app.deleting { return "app \(app.key) is still being deleted" }
            if picture.rollout?.state == .running { return "rollout of \(app.key) goes on" }
            for service in picture.services where !service.removed {
                let mine = picture.tasks.filter { $0.service == service.name && $0.goal == .run }
                let good = mine.filter { $0.generation == service.generation && ($0.status.ready || $0.isDone) }
                if good.count != service.replicas || mine.count != service.replicas {
                    return "\(app.key)/\(service.name): \(good.count) of \(mine.count) good, \(service.replicas) wanted"
                }
            }
        }
        for task in tasks where task.status.ready {
            guard let id = task.status.container, case .running(let pid) = containers[id]?.observed.state,
                pid == task.status.pid
            else { return "task \(task.id) is recorded as running and is not" }
        }
        return nil
    }
}

extension TaskRow {
    var isDone: Bool { goal == .run && status.state == .stopped }
}
