// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// What a node does with what it finds after a start of the daemon.
@Suite struct AdoptionTests {
    private let now = Timestamp(milliseconds: 1_700_000_100_000)

    /// One task of a service with this policy, recorded as `status`.
    private func row(_ restart: RestartPolicy, _ status: TaskStatus) throws -> TaskRow {
        let state = try StateMachine(path: nil)
        let key = ObjectKey(name: "x")
        let spec = ServiceSpec(name: "x", image: "x:1", restart: restart)
        let node = NodeRow(
            id: "n", name: "n", address: "10.0.0.1",
            subnet: IPv4Subnet(IPv4Address(value: 10 << 24 | 210 << 16), prefix: 24), cpuMillis: 1000,
            memoryBytes: 1 << 30, version: "1")
        let changes: [Change] = [
            .putNode(node),
            .putApp(PutApp(spec: AppSpec(key: key, services: [spec]))),
            .assignTasks(
                AssignTasks(tasks: [
                    NewTask(
                        id: "t", app: key, service: "x", generation: 1, node: "n", address: IPv4Address(value: 9))
                ])),
            .recordTasks(RecordTasks(reports: [TaskReport(task: "t", status: status)])),
        ]
        for (offset, change) in changes.enumerated() {
            _ = try state.apply([
                .init(
                    index: UInt64(offset) + 1, term: 1, command: Command(at: Timestamp(milliseconds: 1), change: change)
                )
            ])
        }
        return try #require(try state.read { try $0.task("t") })
    }

    private func actions(_ row: TaskRow, _ containers: [ObservedContainer]) -> [Action] {
        var reconciler = NodeReconciler()
        var actions = reconciler.update([row.id: row], now: now)
        _ = reconciler.next(now: now)
        actions += reconciler.observe(
            .inventory(Inventory(token: 0, containers: containers, attached: [], logged: [])), now: now)
        actions += reconciler.next(now: now).actions
        return actions
    }

    private func starts(_ actions: [Action]) -> [Int] {
        actions.compactMap { if case .start(let request) = $0 { request.attempt } else { nil } }
    }

    private let wasRunning = TaskStatus(state: .running, ready: true, container: "t.0", pid: 7)

    @Test func `a finished one-shot task whose container was removed already is not started again`() throws {
        let ended = TaskStatus(state: .stopping, container: "t.0", exitCode: 0)
        let found = actions(try row(.no, ended), [])
        #expect(starts(found).isEmpty)
        #expect(found.contains(.clean("t", ["t.0"])))
    }

    @Test(arguments: [(RestartPolicy.always, [1]), (.onFailure, [1]), (.no, [])])
    func `a container that vanished runs again only as its policy says`(policy: RestartPolicy, attempts: [Int]) throws {
        #expect(starts(actions(try row(policy, wasRunning), [])) == attempts)
    }

    @Test func `a running container goes on as it is`() throws {
        let container = ObservedContainer(id: "t.0", task: "t", attempt: 0, state: .running(pid: 7), startedAt: now)
        #expect(actions(try row(.always, wasRunning), [container]).isEmpty)
    }

    @Test func `an exit the log knows already is not counted as another restart`() throws {
        let known = TaskStatus(state: .running, container: "t.0", restarts: 1, exitCode: 1)
        let exit = ExitStatus(code: 1, outOfMemory: false, at: now)
        let container = ObservedContainer(id: "t.0", task: "t", attempt: 0, state: .exited(exit), startedAt: now)
        var reconciler = NodeReconciler()
        _ = reconciler.update(["t": try row(.always, known)], now: now)
        _ = reconciler.next(now: now)
        _ = reconciler.observe(
            .inventory(Inventory(token: 0, containers: [container], attached: [], logged: [])), now: now)
        #expect(reconciler.next(now: now).reports.allSatisfy { $0.status.restarts == 1 })
    }

    @Test func `waits grow from nothing to a minute`() {
        #expect(
            [1, 2, 3, 4, 8, 9, 50].map { Backoff.milliseconds(afterFailures: $0) }
                == [0, 500, 1000, 2000, 32_000, 60_000, 60_000])
    }
}
