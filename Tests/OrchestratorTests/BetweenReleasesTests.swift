// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// What becomes of an app between two releases when its nodes come and go: while the new one is under way, and after it
/// failed with none before it that worked, so that it stays where it got to.
@Suite struct BetweenReleasesTests {
    private let key = ObjectKey(name: "web")

    private func spec(_ image: String, _ mounts: [MountSpec] = []) -> ServiceSpec {
        ServiceSpec(name: "web", image: image, replicas: 3, mounts: mounts)
    }

    /// Tasks that run since this moment, one on each of these nodes.
    private func run(_ generation: Int, on nodes: ClosedRange<Int>, _ ground: inout Ground) throws {
        let tasks = nodes.map { number in
            NewTask(
                id: TaskID("t\(number)"), app: key, service: "web", generation: generation, node: NodeID("n\(number)"),
                address: IPv4Address(value: 10 << 24 | 210 << 16 | UInt32(number) << 8 | 10))
        }
        try ground.apply(.assignTasks(AssignTasks(tasks: tasks)))
        let status = TaskStatus(state: .running, ready: true, startedAt: ground.now)
        try ground.apply(.recordTasks(RecordTasks(reports: tasks.map { TaskReport(task: $0.id, status: status) })))
    }

    /// Three tasks of a release that was replaced before it was done by one that has not begun.
    private func begun(_ mounts: [MountSpec] = []) throws -> Ground {
        var ground = try Ground(nodes: 4)
        try ground.deploy(key, [spec("web:1", mounts)])
        try run(1, on: 1...3, &ground)
        try ground.deploy(key, [spec("web:2", mounts)])
        return ground
    }

    private func halted(_ mounts: [MountSpec] = []) throws -> Ground {
        var ground = try begun(mounts)
        let rollout = try #require(try ground.state.read { try $0.rollout(app: key) })
        try ground.apply(
            .endRollout(
                EndRollout(id: rollout.id, outcome: .failed(Reason(.deadlineExceeded, "no progress"), task: nil))))
        return ground
    }

    private func images(_ ground: Ground) throws -> [String: Int] {
        Dictionary(
            try ground.state.read { try $0.tasks(app: key) }.filter { $0.goal == .run }.map { ($0.spec.image, 1) },
            uniquingKeysWith: +)
    }

    @Test func `a failed release replaces nothing by itself`() throws {
        var ground = try halted()
        _ = try ground.settle(key)
        #expect(try images(ground) == ["web:1": 3])
    }

    @Test func `a drained node is emptied, elsewhere first, and the others keep what they have`() throws {
        var ground = try halted()
        let node = "n1"
        try ground.apply(.setNode(SetNode(node: NodeID(node), availability: .drained)))
        let seen = try ground.settle(key)
        #expect(seen.fewest == 3 && seen.most == 4)
        #expect(try !ground.places(key).contains(node))
        #expect(try images(ground) == ["web:1": 2, "web:2": 1])
    }

    @Test func `what is lost with a node is made up for`() throws {
        var ground = try halted()
        let node = "n1"
        try ground.apply(.setLiveness(SetLiveness(items: [.init(node: NodeID(node), liveness: .down)])))
        _ = try ground.settle(key)
        #expect(try !ground.places(key).contains(node))
        #expect(try images(ground) == ["web:1": 2, "web:2": 1])
    }

    @Test func `what writes a volume stays, so that no two releases write it`() throws {
        var ground = try halted([MountSpec(source: .volume("data"), target: "/data")])
        let node = "n1"
        try ground.apply(.setNode(SetNode(node: NodeID(node), availability: .drained)))
        _ = try ground.settle(key)
        #expect(try images(ground) == ["web:1": 3])
    }

    @Test func `what is lost in the middle of a release does not wait for it`() throws {
        var ground = try begun()
        try run(2, on: 4...4, &ground)
        func next() throws -> Rollout.Step {
            Rollout.next(try #require(try ground.state.read { try AppPicture($0, key) }), now: ground.now)
        }
        #expect(try next().isEmpty, "the new task has yet to prove itself")
        let items = ["n1", "n2"].map { SetLiveness.Item(node: $0, liveness: .down) }
        try ground.apply(.setLiveness(SetLiveness(items: items)))
        #expect(try next().create.map(\.count) == [1])
    }

    @Test func `a release without progress says what its tasks wait for`() throws {
        var ground = try Ground(nodes: 1)
        try ground.deploy(key, [spec("web:1")])
        var picture = try #require(try ground.state.read { try AppPicture($0, key) })
        picture.refusal = Reason(.nodeCordoned, "no node takes it: node-1 is cordoned", hint: "uncordon")
        let late = picture.app.createdAt + 1_000_000
        guard case .endRollout(let end) = Rollout.next(picture, now: late).changes.first,
            case .failed(let reason, nil) = end.outcome
        else {
            Issue.record("it did not fail")
            return
        }
        #expect(reason.code == .deadlineExceeded && reason.hint == "uncordon")
        #expect(reason.message.hasSuffix(": no node takes it: node-1 is cordoned"))
    }
}
