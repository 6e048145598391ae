// SPDX-License-Identifier: Apache-2.0
import Model
import Store
import Testing

/// Tasks, addresses, volumes, configs: what each command does and what it leaves alone.
@Suite struct ApplyTaskTests {
    typealias F = StateFixture

    private func app(_ services: [ServiceSpec] = [F.service("x")]) throws -> F {
        let fixture = try F()
        try fixture.apply(F.put("x", services))
        return fixture
    }

    @Test func `a task is placed once and only for the generation that is wanted`() throws {
        let fixture = try app()
        #expect(try fixture.assign("x", "x", id: "t", offset: 2).outcome == .done(.changed))
        #expect(try fixture.assign("x", "x", id: "t", offset: 3).outcome == .done(.unchanged), "same id")
        #expect(try fixture.assign("x", "x", id: "u", offset: 2).outcome == .done(.unchanged), "address in use")
        let stale = Change.assignTasks(
            AssignTasks(tasks: [
                NewTask(
                    id: "s", app: ObjectKey(name: "x"), service: "x", generation: 9, node: fixture.node,
                    address: IPv4Address(value: 77))
            ]))
        #expect(try fixture.apply(stale).outcome == .done(.unchanged))
        try fixture.apply(.deleteApp(AppChange(app: ObjectKey(name: "x"))))
        #expect(try fixture.assign("x", "x", id: "v", offset: 4).outcome == .done(.unchanged), "deleting")
    }

    @Test func `a task is not placed on a node that changed since its place was found`() throws {
        let fixture = try app()
        let subnet = try #require(IPv4Subnet("10.210.0.0/24"))
        let decidedAt = try fixture.state.read { try $0.meta() }.appliedIndex
        func assign(decidedAt: UInt64) throws -> Applied.Outcome {
            let task = NewTask(
                id: "t", app: ObjectKey(name: "x"), service: "x", generation: 1, node: fixture.node, address: subnet[2])
            return try fixture.apply(.assignTasks(AssignTasks(tasks: [task], decidedAt: decidedAt))).outcome
        }
        let changed = try fixture.apply(.setNode(SetNode(node: fixture.node, addTaints: ["gpu"])))
        #expect(try assign(decidedAt: decidedAt) == .done(.unchanged))
        #expect(try assign(decidedAt: changed.index) == .done(.changed))
    }

    @Test func `an address rests for a minute after its task has ended`() throws {
        let fixture = try app()
        try fixture.assign("x", "x", id: "t", offset: 2)
        try fixture.record("t", TaskStatus(state: .stopped))
        #expect(try fixture.assign("x", "x", id: "u", offset: 2).outcome == .done(.unchanged))
        try fixture.apply(.putVolume(PutVolume(volume: ObjectKey(name: "later"), node: nil)), after: 60_000)
        #expect(try fixture.assign("x", "x", id: "u", offset: 2).outcome == .done(.changed))
    }

    @Test func `states only advance and what has ended stays as it ended`() throws {
        let fixture = try app()
        try fixture.assign("x", "x", id: "t", offset: 2)
        try fixture.record("t", TaskStatus(state: .running, ready: true, container: "t.0"))
        try fixture.record("t", TaskStatus(state: .preparing))
        #expect(try fixture.tasks("x").first?.status.state == .running)
        try fixture.record("t", TaskStatus(state: .failed, exitCode: 3))
        try fixture.record("t", TaskStatus(state: .stopped, exitCode: 0))
        #expect(try fixture.tasks("x").first?.status.state == .failed)
        #expect(try fixture.tasks("x").first?.status.exitCode == 3)
        try fixture.record("unknown", TaskStatus(state: .running))
    }

    @Test func `a task to be stopped is out of service whatever its node says`() throws {
        let fixture = try app()
        try fixture.assign("x", "x", id: "t", offset: 2)
        try fixture.record("t", TaskStatus(state: .running, ready: true, container: "t.0"))
        try fixture.apply(.stopTasks(StopTasks(tasks: ["t", "none"], reason: Reason(.replaced, "newer"))))
        try fixture.record("t", TaskStatus(state: .running, ready: true, container: "t.0", pid: 4))
        let task = try #require(try fixture.tasks("x").first)
        #expect(task.goal == .stop)
        #expect(!task.status.ready)
    }

    @Test func `only ended tasks are removed`() throws {
        let fixture = try app()
        try fixture.assign("x", "x", id: "t", offset: 2)
        try fixture.apply(.removeTasks(RemoveTasks(tasks: ["t", "none"])))
        #expect(try fixture.tasks("x").count == 1)
        try fixture.record("t", TaskStatus(state: .stopped))
        try fixture.apply(.removeTasks(RemoveTasks(tasks: ["t"])))
        #expect(try fixture.tasks("x").isEmpty)
    }

    @Test func `an app is removed only after its last task has ended, and then wholly`() async throws {
        let fixture = try app([F.service("x", ports: [F.port(8080)], volumes: ["v"])])
        try fixture.assign("x", "x", id: "t", offset: 2)
        let key = ObjectKey(name: "x")
        #expect(try fixture.apply(.removeApp(AppChange(app: key))).outcome == .done(.unchanged), "not deleted")
        try fixture.apply(.deleteApp(AppChange(app: key)))
        #expect(try fixture.apply(.deleteApp(AppChange(app: key))).outcome == .done(.unchanged))
        #expect(try fixture.apply(.removeApp(AppChange(app: key))).outcome == .done(.unchanged), "a task lives")
        #expect(try fixture.refusal(F.put("x", [F.service("x")]))?.code == .conflict)
        #expect(
            try fixture.refusal(.scaleService(ScaleService(app: key, service: "x", replicas: 2)))?.code == .notFound)
        try fixture.record("t", TaskStatus(state: .stopped))
        try fixture.apply(.removeApp(AppChange(app: key)))
        let left = try await fixture.dump().filter { $0.contains("\"x\"") && !$0.hasPrefix("events") }
        #expect(left.isEmpty)
        #expect(try fixture.refusal(.deleteVolume(VolumeChange(volume: ObjectKey(name: "v")))) == nil)
    }

    @Test func `a volume is deleted only when no app uses it, and the refusal names the apps`() throws {
        let fixture = try app([F.service("x", volumes: ["v"])])
        try fixture.apply(F.put("y", [F.service("y", volumes: ["v"])]))
        let delete = Change.deleteVolume(VolumeChange(volume: ObjectKey(name: "v")))
        let problem = try fixture.refusal(delete)
        #expect(problem?.code == .volumeInUse)
        #expect(problem?.detail == "volume `v` is used by app `x`, app `y`")
        #expect(try fixture.refusal(.deleteVolume(VolumeChange(volume: ObjectKey(name: "w"))))?.code == .notFound)
    }

    @Test func `a volume stays used while a task of an older release still runs on it`() throws {
        let fixture = try app([F.service("x", volumes: ["v"])])
        try fixture.assign("x", "x", id: "t", offset: 2)
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("x")]))
        try fixture.endRollout("x", .succeeded)
        let delete = Change.deleteVolume(VolumeChange(volume: ObjectKey(name: "v")))
        #expect(try fixture.refusal(delete)?.code == .volumeInUse)
        try fixture.record("t", TaskStatus(state: .stopped))
        #expect(try fixture.refusal(delete) == nil)
        #expect(try fixture.refusal(.putVolume(PutVolume(volume: ObjectKey(name: "v"), node: nil)))?.code == .conflict)
        #expect(try fixture.refusal(F.put("z", [F.service("z", volumes: ["v"])]))?.code == .conflict)
        try fixture.apply(.removeVolume(VolumeChange(volume: ObjectKey(name: "v"))))
        #expect(try fixture.refusal(delete)?.code == .notFound)
    }

    @Test func `preconditions decide whether a write happens`() throws {
        let fixture = try F()
        let key = ObjectKey(name: "c")
        func put(_ condition: Precondition) throws -> Applied {
            try fixture.apply(.putConfig(PutConfig(config: key, data: "d", condition: condition)))
        }
        func isRefused(_ applied: Applied) -> Bool {
            if case .refused(let problem) = applied.outcome { return problem.code == .preconditionFailed }
            return false
        }
        #expect(isRefused(try put(.version(1))))
        let created = try put(.absent)
        #expect(created.outcome == .done(.created))
        #expect(isRefused(try put(.absent)))
        let changed = try put(.version(created.index))
        #expect(changed.outcome == .done(.changed))
        #expect(isRefused(try put(.version(created.index))))
        #expect(try fixture.state.read { try $0.config(key) }?.version == changed.index)
        let delete = Change.deleteConfig(DeleteConfig(config: key, condition: .version(created.index)))
        #expect(isRefused(try fixture.apply(delete)))
        try fixture.apply(.deleteConfig(DeleteConfig(config: key, condition: .version(changed.index))))
        #expect(try fixture.refusal(.deleteConfig(DeleteConfig(config: key, condition: .none)))?.code == .notFound)
        #expect(isRefused(try fixture.apply(F.put("x", [F.service("x")], .version(3)))))
        #expect(!isRefused(try fixture.apply(F.put("x", [F.service("x")], .absent))))
        #expect(isRefused(try fixture.apply(F.put("x", [F.service("x")], .absent))))
    }

    @Test func `a pool gives the lowest unused address first, then the one that has rested longest`() throws {
        let subnet = try #require(IPv4Subnet("10.0.0.0/29"))
        let now = Timestamp(milliseconds: 1_000_000)
        func next(used: [Int], released: [Int: Int64]) -> IPv4Address? {
            AddressPool.next(
                in: subnet, usable: AddressPool.containerOffsets(of: subnet), used: Set(used.map { subnet[$0] }),
                released: Dictionary(uniqueKeysWithValues: released.map { (subnet[$0.key], now + -$0.value) }), now: now
            )
        }
        #expect(next(used: [2], released: [:]) == subnet[3])
        #expect(next(used: [2, 3, 4], released: [5: 61_000, 6: 90_000]) == subnet[6])
        #expect(next(used: [2, 3, 4], released: [5: 59_999, 6: 10]) == nil)
        #expect(next(used: [2, 3, 4, 5, 6], released: [:]) == nil)
    }
}
