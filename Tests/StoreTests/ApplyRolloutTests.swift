// SPDX-License-Identifier: Apache-2.0
import Model
import Store
import Testing

/// Releases, rollouts and the way back.
@Suite struct ApplyRolloutTests {
    typealias F = StateFixture

    private func running(_ id: String = "t") -> TaskStatus {
        TaskStatus(state: .running, ready: true, container: ContainerID("\(id).0"), pid: 7)
    }

    @Test func `a service that left is forgotten when the rollout ends`() async throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("a"), F.service("b", replicas: 0)]))
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("a")]))
        #expect(try fixture.services("x").map(\.name) == ["a", "b"])
        try fixture.endRollout("x", .succeeded)
        #expect(try fixture.services("x").map(\.name) == ["a"])
        #expect(try await fixture.dump().contains { $0.hasPrefix("specs") && $0.contains("\"b\"") } == false)
        let resting = try await fixture.state.query(
            "SELECT count(*) FROM addresses WHERE kind = 'vip' AND owner IS NULL")
        #expect(resting.rows == [[.integer(1)]])
    }

    @Test func `a service whose last task row goes during the rollout is forgotten at its end`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("a"), F.service("b")]))
        try fixture.assign("x", "b", id: "b1", offset: 2)
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("a")]))
        try fixture.apply(.stopTasks(StopTasks(tasks: ["b1"], reason: Reason(.replaced, "gone"))))
        try fixture.record("b1", TaskStatus(state: .stopped))
        try fixture.apply(.removeTasks(RemoveTasks(tasks: ["b1"])))
        #expect(try fixture.services("x").count == 2, "going back may still need it")
        try fixture.endRollout("x", .succeeded)
        #expect(try fixture.services("x").map(\.name) == ["a"])
    }

    @Test func `going back brings removed services back and removes added ones`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("a"), F.service("b", replicas: 2)]))
        try fixture.endRollout("x", .succeeded)
        let before = try fixture.services("x")
        try fixture.apply(F.put("x", [F.service("a", image: "web:2"), F.service("c")]))
        try fixture.fail("x")
        let after = try fixture.services("x")
        #expect(after.filter { !$0.removed }.map(\.name) == ["a", "b"])
        #expect(after.filter { !$0.removed }.map(\.generation) == before.map(\.generation))
        #expect(after.filter { !$0.removed }.map(\.replicas) == [1, 2])
        #expect(after.first { $0.name == "b" }?.vip == before.first { $0.name == "b" }?.vip)
        #expect(try fixture.rollout("x")?.rollingBack == true)
        try fixture.endRollout("x", .rolledBack)
        #expect(try fixture.services("x").map(\.name) == ["a", "b"])
    }

    @Test func `a scale during a rollout survives going back`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("x", replicas: 2)]))
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("x", image: "web:2", replicas: 2)]))
        try fixture.apply(.scaleService(ScaleService(app: ObjectKey(name: "x"), service: "x", replicas: 5)))
        try fixture.fail("x")
        #expect(try fixture.services("x").first?.replicas == 5)
        #expect(try fixture.services("x").first?.spec.image == "web:1")
    }

    @Test func `after going back a scale is kept by the next failure too`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("x", replicas: 2)]))
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("x", image: "web:2", replicas: 2)]))
        try fixture.fail("x")
        try fixture.endRollout("x", .rolledBack)
        try fixture.apply(.scaleService(ScaleService(app: ObjectKey(name: "x"), service: "x", replicas: 4)))
        try fixture.apply(F.put("x", [F.service("x", image: "web:3", replicas: 4)]))
        try fixture.fail("x")
        #expect(try fixture.services("x").first?.replicas == 4)
        #expect(try fixture.services("x").first?.spec.image == "web:1")
    }

    @Test func `a first deploy that fails stays as it is`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("x")]))
        try fixture.fail("x")
        #expect(try fixture.rollout("x")?.state == .failed)
        #expect(try fixture.services("x").first?.removed == false)
    }

    @Test func `a deploy takes over from the one before`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("x")]))
        let first = try fixture.rollout("x")?.id ?? ""
        try fixture.apply(F.put("x", [F.service("x", image: "web:2")]))
        #expect(try fixture.state.read { try $0.rollout(id: first) }?.state == .superseded)
        let late = try fixture.apply(.endRollout(EndRollout(id: first, outcome: .succeeded)))
        #expect(late.outcome == .done(.unchanged))
        #expect(try fixture.rollout("x")?.state == .running)
    }

    @Test func `the same spec again changes nothing, unless a task of it has failed`() throws {
        let fixture = try F()
        let change = F.put("x", [F.service("x")])
        try fixture.apply(change)
        try fixture.assign("x", "x", id: "t", offset: 2)
        try fixture.record("t", running())
        try fixture.endRollout("x", .succeeded)
        #expect(try fixture.apply(change).outcome == .done(.unchanged))
        try fixture.record("t", TaskStatus(state: .failed, exitCode: 1, reason: Reason(.exited, "exited with code 1")))
        let generation = try fixture.services("x").first?.generation ?? 0
        guard case .done(.rollout) = try fixture.apply(change).outcome else {
            Issue.record("not tried again")
            return
        }
        #expect(try fixture.services("x").first?.generation == generation + 1)
    }

    @Test func `only the number of replicas and ports change without a new generation`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("x")]))
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("x", replicas: 3, ports: [F.port(8080)])]))
        #expect(try fixture.services("x").map(\.generation) == [1])
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("x", image: "web:2", replicas: 3)]))
        #expect(try fixture.services("x").map(\.generation) == [2])
    }

    @Test func `a restart gives every service a new generation`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("a"), F.service("b")]))
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(.restartApp(AppChange(app: ObjectKey(name: "x"))))
        #expect(try fixture.services("x").map(\.generation) == [2, 2])
        #expect(try fixture.rollout("x")?.previousRelease == 1)
    }

    @Test func `releases, rollouts and specs are bounded`() async throws {
        let fixture = try F()
        for number in 1...40 {
            try fixture.apply(F.put("x", [F.service("x", image: "web:\(number)")]))
            try fixture.assign("x", "x", id: "t\(number)", offset: 1 + number)
            try fixture.endRollout("x", .succeeded)
            try fixture.apply(.stopTasks(StopTasks(tasks: [TaskID("t\(number)")], reason: Reason(.replaced, "r"))))
            try fixture.record("t\(number)", TaskStatus(state: .stopped))
            try fixture.apply(.removeTasks(RemoveTasks(tasks: [TaskID("t\(number)")])))
        }
        let counts = try await fixture.state.query(
            "SELECT (SELECT count(*) FROM releases), (SELECT count(*) FROM rollouts), (SELECT count(*) FROM specs)")
        #expect(counts.rows == [[.integer(10), .integer(10), .integer(11)]])
    }

    @Test func `services renamed with every deploy leave no specs behind`() async throws {
        let fixture = try F()
        for number in 1...30 {
            try fixture.apply(F.put("x", [F.service("s\(number)")]))
            try fixture.endRollout("x", .succeeded)
        }
        let counts = try await fixture.state.query(
            "SELECT (SELECT count(*) FROM services), (SELECT count(*) FROM specs)")
        #expect(counts.rows == [[.integer(1), .integer(1)]])
    }

    @Test func `a volume of the release before cannot be deleted while going back may need it`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("x", volumes: ["data"])]))
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("x")]))
        let delete = Change.deleteVolume(VolumeChange(volume: ObjectKey(name: "data")))
        #expect(try fixture.refusal(delete)?.code == .volumeInUse)
        try fixture.endRollout("x", .succeeded)
        #expect(try fixture.refusal(delete) == nil)
    }
}
