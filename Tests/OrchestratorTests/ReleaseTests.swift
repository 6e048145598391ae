// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// A task is stopped after the last rule that sends anything to it is gone, on any node.
@Suite struct ReleaseTests {
    private let now = Timestamp(milliseconds: 1_700_000_100_000)

    /// A reconciler whose one task runs, and the task's row once it is to stop.
    private func running() throws -> (NodeReconciler, stopped: TaskRow) {
        let state = try StateMachine(path: nil)
        let key = ObjectKey(name: "x")
        let status = TaskStatus(state: .running, ready: true, container: "t.0", pid: 7)
        var index: UInt64 = 0
        func apply(_ change: Change) throws -> TaskRow? {
            index += 1
            _ = try state.apply([.init(index: index, term: 1, command: Command(at: now, change: change))])
            return try state.read { try $0.task("t") }
        }
        let node = NodeRow(
            id: "n", name: "n", address: "10.0.0.1",
            subnet: IPv4Subnet(IPv4Address(value: 10 << 24 | 210 << 16), prefix: 24), cpuMillis: 1000,
            memoryBytes: 1 << 30, version: "1")
        _ = try apply(.putNode(node))
        _ = try apply(.putApp(PutApp(spec: AppSpec(key: key, services: [ServiceSpec(name: "x", image: "x:1")]))))
        _ = try apply(
            .assignTasks(
                AssignTasks(tasks: [
                    NewTask(
                        id: "t", app: key, service: "x", generation: 1, node: "n", address: IPv4Address(value: 9))
                ])))
        let row = try #require(
            try apply(.recordTasks(RecordTasks(reports: [TaskReport(task: "t", status: status)]))))
        let stopped = try #require(
            try apply(.stopTasks(StopTasks(tasks: ["t"], reason: Reason(.replaced, "fewer are wanted")))))
        #expect(stopped.goal == .stop && stopped.version == 5)

        var reconciler = NodeReconciler()
        _ = reconciler.update(["t": row], now: now)
        _ = reconciler.next(now: now)
        _ = reconciler.observe(
            .inventory(
                Inventory(
                    token: 0,
                    containers: [
                        ObservedContainer(
                            id: "t.0", task: "t", attempt: 0, state: .running(pid: 7), startedAt: now)
                    ], attached: ["t"], logged: ["t"])), now: now)
        #expect(stops(reconciler.next(now: now)) == false)
        return (reconciler, stopped)
    }

    private func stops(_ output: NodeReconciler.Output) -> Bool {
        output.actions.contains { if case .stop = $0 { true } else { false } }
    }

    @Test func `it waits for the rules of this node and then for those of all others`() throws {
        var (reconciler, row) = try running()
        _ = reconciler.update(["t": row], now: now)
        var output = reconciler.next(now: now)
        #expect(!stops(output) && output.awaited == nil, "the own rules first")
        reconciler.programmed(5)
        output = reconciler.next(now: now)
        #expect(!stops(output) && output.awaited == 5)
        reconciler.released(4)
        #expect(!stops(reconciler.next(now: now)))
        // That it is stopping is recorded meanwhile: a newer row, and no other question.
        row.version = 9
        _ = reconciler.update(["t": row], now: now)
        output = reconciler.next(now: now)
        #expect(!stops(output) && output.awaited == 5)
        reconciler.released(5)
        output = reconciler.next(now: now)
        #expect(stops(output) && output.awaited == nil)
        #expect(!stops(reconciler.next(now: now)), "once")
    }

    @Test func `what the others say before the own rules are right stops nothing`() throws {
        var (reconciler, row) = try running()
        _ = reconciler.update(["t": row], now: now)
        reconciler.released(5)
        #expect(!stops(reconciler.next(now: now)))
        reconciler.programmed(5)
        #expect(stops(reconciler.next(now: now)))
    }

    @Test func `whatever the others say, it ends`() throws {
        var (reconciler, row) = try running()
        _ = reconciler.update(["t": row], now: now)
        reconciler.programmed(5)
        let output = reconciler.next(now: now)
        let end = now + NodeReconciler.drainMillisecondsMax
        #expect(!stops(output) && output.wakeAt.map { $0 <= end } == true)
        #expect(!stops(reconciler.next(now: now + (NodeReconciler.drainMillisecondsMax - 1))))
        #expect(stops(reconciler.next(now: end)))
    }
}
