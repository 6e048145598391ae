// SPDX-License-Identifier: Apache-2.0

internal import Model
internal import Orchestrator
internal import Store
internal import TestSupport

/// One machine of a fleet: the reconciler the daemon runs, and containers that are values.
///
/// It sees the state only while it can be reached; what it misses it catches up with afterwards, as an observer does.
final class Machine {
    let id: NodeID
    let name: String
    var reconciler = NodeReconciler()
    /// The daemon runs. Containers outlive it unless the power went with it.
    var isUp = true
    /// What others say comes here.
    var hears = true
    /// What it says comes to others.
    var isHeard = true
    var isReachable: Bool { hears && isHeard }
    /// It was told that it is no node any more.
    var isRemoved = false
    /// Counts starts of the daemon: what an earlier one asked for is answered to nobody.
    var life = 0
    private(set) var containers: [ContainerID: ObservedContainer] = [:]
    private(set) var attached: Set<TaskID> = []
    private(set) var logged: Set<TaskID> = []
    /// Rows that changed since its last turn.
    var inbox: [TaskID: TaskRow?] = [:]
    /// Every task it was ever told of and may still know.
    var known: Set<TaskID> = []
    var reported: [TaskID: TaskStatus] = [:]
    var turnAt: UInt64?
    private var pid: Int32 = 100

    init(id: NodeID, name: String) {
        self.id = id
        self.name = name
    }

    var running: [ObservedContainer] {
        containers.values.filter { if case .running = $0.state { true } else { false } }
    }

    /// The machine loses power: containers end, what it keeps on disk stays.
    func losePower() {
        containers = [:]
        attached = []
        stop()
    }

    /// The daemon ends and leaves its containers alone.
    func stop() {
        isUp = false
        life += 1
        inbox = [:]
        reported = [:]
        reconciler = NodeReconciler()
    }

    /// - Returns: what is observed of it, and after how many milliseconds.
    func perform(
        _ action: Action, at now: Timestamp, using random: inout SeededRandom
    ) -> [(after: UInt64, Observation)] {
        func after(_ range: ClosedRange<UInt64>) -> UInt64 { UInt64.random(in: range, using: &random) }
        switch action {
        case .start(let request):
            logged.insert(request.task)
            attached.insert(request.task)
            for id in request.discard { containers[id] = nil }
            if random.oneIn(400) {
                let reason = Reason(.registryUnreachable, "the registry does not answer")
                return [(after(5...50), .startFailed(request.task, attempt: request.attempt, reason))]
            }
            pid += 1
            let started = StartedContainer(pid: pid, startedAt: now + 20)
            containers[request.container] = ObservedContainer(
                id: request.container, task: request.task, attempt: request.attempt, state: .running(pid: pid),
                startedAt: started.startedAt)
            return [
                (after(1...10), .starting(request.task, attempt: request.attempt)),
                (after(20...200), .started(request.task, attempt: request.attempt, started)),
            ]
        case .stop(let task, let id, _, _):
            if var container = containers[id], case .running = container.state {
                container.state = .exited(ExitStatus(code: 143, outOfMemory: false, at: now))
                containers[id] = container
            }
            return [(after(5...60), .stopped(task, id))]
        case .discard(let ids):
            for id in ids { containers[id] = nil }
            return []
        case .clean(let task, let ids):
            for id in ids { containers[id] = nil }
            attached.remove(task)
            return [(after(5...60), .cleaned(task))]
        case .forgetLogs(let task):
            logged.remove(task)
            return []
        case .cancelStart: return []
        case .deleteVolume(let key): return [(after(1...20), .volumeDeleted(key))]
        case .takeInventory(let token):
            let inventory = Inventory(
                token: token, containers: containers.values.sorted { $0.id < $1.id }, attached: attached.sorted(),
                logged: logged.sorted())
            return [(after(1...30), .inventory(inventory))]
        }
    }

    /// A container's process ends by itself.
    func exit(_ id: ContainerID, code: Int, at now: Timestamp) -> Observation? {
        guard var container = containers[id], case .running = container.state else { return nil }
        let status = ExitStatus(code: code, outOfMemory: false, at: now)
        container.state = .exited(status)
        containers[id] = container
        return .exited(id, status)
    }
}
