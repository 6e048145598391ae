// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

/// One node's whole core on simulated disk, machine and time.
@Suite struct NodeSimulationTests {
    private func spec(
        _ name: String, image: String = "web:1", replicas: Int = 3, restart: RestartPolicy = .always,
        mounts: [MountSpec] = []
    ) -> Change {
        .putApp(
            PutApp(
                spec: AppSpec(
                    key: ObjectKey(name: name),
                    services: [
                        ServiceSpec(
                            name: name, image: image, imageDigest: "sha256:\(image)", replicas: replicas,
                            mounts: mounts, restart: restart)
                    ])))
    }

    private func settle(_ node: SimulatedNode, _ milliseconds: Int64 = 120_000) throws -> String? {
        var difference: String?
        _ = try node.run(milliseconds: milliseconds) {
            difference = try node.difference()
            return difference == nil
        }
        return difference
    }

    @Test func `a deploy ends with every replica running and in the tables`() throws {
        let node = try SimulatedNode(seed: 1)
        _ = try node.perform(spec("web"))
        #expect(try settle(node) == nil)
        let tasks = try node.serving("web")
        #expect(tasks.count == 3)
        #expect(node.balancing.services.first?.endpoints == tasks.map(\.address).sorted())
        #expect(node.names.clients.count == 3)
        #expect(try node.picture("web")?.rollout?.state == .succeeded)
    }

    @Test func `an update replaces tasks one by one and never serves fewer than wanted`() throws {
        let node = try SimulatedNode(seed: 2)
        _ = try node.perform(spec("web"))
        #expect(try settle(node) == nil)
        let before = Set(try node.serving("web").map(\.id))
        _ = try node.perform(spec("web", image: "web:2"))
        var fewest = 3
        var most = 3
        _ = try node.run(milliseconds: 120_000) {
            let endpoints = node.balancing.services.first?.endpoints.count ?? 0
            fewest = min(fewest, endpoints)
            most = max(most, endpoints)
            return try node.difference() == nil
        }
        #expect(try node.difference() == nil)
        #expect(fewest == 3)
        #expect(most == 4)
        #expect(before.isDisjoint(with: try node.serving("web").map(\.id)))
        #expect(try node.violations().isEmpty)
    }

    @Test func `with a writable volume the old task ends before the new one starts`() throws {
        let node = try SimulatedNode(seed: 3)
        let mount = MountSpec(source: .volume("data"), target: "/data")
        _ = try node.perform(spec("db", replicas: 1, mounts: [mount]))
        #expect(try settle(node) == nil)
        _ = try node.perform(spec("db", image: "web:2", replicas: 1, mounts: [mount]))
        var most = 0
        _ = try node.run(milliseconds: 60_000) {
            most = max(
                most,
                node.containers.values.filter { if case .running = $0.observed.state { true } else { false } }.count)
            return try node.difference() == nil
        }
        #expect(most == 1)
        #expect(try node.serving("db").first?.image == "web:2")
    }

    @Test func `an image whose command is missing fails the first deploy with its reason`() throws {
        let node = try SimulatedNode(seed: 4)
        node.behaviours["bad:1"] = .failsToStart(Reason(.commandNotFound, "no such file: /nope"))
        _ = try node.perform(spec("bad", image: "bad:1"))
        _ = try node.run(milliseconds: 30_000) { try node.picture("bad")?.rollout?.state != .running }
        let rollout = try node.picture("bad")?.rollout
        #expect(rollout?.state == .failed)
        #expect(rollout?.reason?.code == .commandNotFound)
        #expect(rollout?.failedTask != nil)
    }

    @Test func `a crash loop fails the deploy in bounded time`() throws {
        let node = try SimulatedNode(seed: 5)
        node.behaviours["crash:1"] = .exits(code: 3, afterMilliseconds: 100)
        _ = try node.perform(spec("crash", image: "crash:1", replicas: 1))
        let began = node.now
        _ = try node.run(milliseconds: 60_000) { try node.picture("crash")?.rollout?.state != .running }
        #expect(try node.picture("crash")?.rollout?.state == .failed)
        #expect(try node.picture("crash")?.rollout?.reason?.code == .crashLoop)
        #expect(node.now - began < 15_000)
    }

    @Test func `an update that crashes goes back to the release before`() throws {
        let node = try SimulatedNode(seed: 6)
        _ = try node.perform(spec("web"))
        #expect(try settle(node) == nil)
        let before = Set(try node.serving("web").map(\.id))
        node.behaviours["crash:1"] = .exits(code: 3, afterMilliseconds: 50)
        _ = try node.perform(spec("web", image: "crash:1"))
        _ = try node.run(milliseconds: 60_000) { try node.picture("web")?.rollout?.state != .running }
        #expect(try node.picture("web")?.rollout?.state == .rolledBack)
        #expect(try node.picture("web")?.rollout?.reason?.code == .crashLoop)
        #expect(try settle(node) == nil)
        let after = try node.serving("web")
        #expect(after.allSatisfy { $0.image == "web:1" })
        #expect(before == Set(after.map(\.id)), "start-first: the old tasks never left")
    }

    @Test func `a one-shot task that finishes is completed and not started again`() throws {
        let node = try SimulatedNode(seed: 7)
        node.behaviours["job:1"] = .exits(code: 0, afterMilliseconds: 200)
        _ = try node.perform(spec("job", image: "job:1", replicas: 1, restart: .no))
        #expect(try settle(node) == nil)
        #expect(try node.picture("job")?.rollout?.state == .succeeded)
        #expect(node.starts.count == 1)
    }

    @Test func `a killed container runs again at once as the next attempt of its task`() throws {
        let node = try SimulatedNode(seed: 8)
        _ = try node.perform(spec("web", replicas: 1))
        #expect(try settle(node) == nil)
        _ = try node.run(milliseconds: 15_000) { false }
        guard let task = try node.serving("web").first, let container = task.status.container else {
            Issue.record("no task")
            return
        }
        let killed = node.now
        try node.exit(container, code: 137)
        _ = try node.run(milliseconds: 5_000) {
            try node.serving("web").first?.status.container == ContainerID(task: task.id, attempt: 1)
        }
        #expect(node.now - killed < 200)
        #expect(try node.serving("web").first?.status.restarts == 1)
        #expect(try settle(node) == nil)
    }

    @Test func `a crash of the daemon leaves containers as they are`() throws {
        let node = try SimulatedNode(seed: 9)
        _ = try node.perform(spec("web"))
        #expect(try settle(node) == nil)
        let before = try node.serving("web").map { $0.status }
        for losesState in [false, true] {
            try node.crash(losesState: losesState)
            #expect(try settle(node) == nil)
            _ = try node.run(milliseconds: 3000) { false }
            #expect(try node.serving("web").map { $0.status } == before)
        }
        #expect(node.starts.count == 3)
    }

    @Test func `scaling and deleting leave nothing behind`() throws {
        let node = try SimulatedNode(seed: 10)
        _ = try node.perform(spec("web"))
        #expect(try settle(node) == nil)
        for replicas in [7, 1, 0, 4] {
            _ = try node.perform(
                .scaleService(ScaleService(app: ObjectKey(name: "web"), service: "web", replicas: replicas)))
            #expect(try settle(node) == nil)
            #expect(try node.serving("web").count == replicas)
        }
        _ = try node.perform(.deleteApp(AppChange(app: ObjectKey(name: "web"))))
        _ = try node.run(milliseconds: 60_000) { try node.picture("web") == nil }
        #expect(try settle(node) == nil)
        #expect(node.containers.isEmpty)
        #expect(node.attached.isEmpty)
        #expect(node.logged.isEmpty)
        #expect(node.balancing.services.isEmpty)
    }

    /// Random work and crashes; acknowledged changes must survive and the end must be what was asked last.
    @Test(arguments: SimulationBudget.seeds)
    func `nothing acknowledged is lost and nothing is left over`(seed: UInt64) throws {
        let node = try SimulatedNode(seed: seed)
        var random = SplitMix64(seed: seed &* 7919)
        node.behaviours["crash:1"] = .exits(code: 1, afterMilliseconds: 80)
        var acknowledged: [String: Bool] = [:]
        var pending: [(token: UInt64, name: String, exists: Bool)] = []
        for _ in 0..<30 {
            let name = ["a", "b", "c"].randomElement(using: &random) ?? "a"
            let roll = Int.random(in: 0..<100, using: &random)
            if roll < 35 {
                let image = ["web:1", "web:2", "web:3", "crash:1"].randomElement(using: &random) ?? "web:1"
                let token = try node.propose(spec(name, image: image, replicas: Int.random(in: 1...4, using: &random)))
                pending.append((token, name, true))
            } else if roll < 50 {
                try node.propose(
                    .scaleService(
                        ScaleService(
                            app: ObjectKey(name: name), service: name, replicas: Int.random(in: 0...5, using: &random)))
                )
            } else if roll < 60 {
                let token = try node.propose(.deleteApp(AppChange(app: ObjectKey(name: name))))
                pending.append((token, name, false))
            } else if roll < 75 {
                try node.crash(losesState: roll < 63)
            } else if roll < 85, let victim = node.containers.keys.sorted().randomElement(using: &random) {
                try node.exit(victim, code: 137)
            }
            _ = try node.run(milliseconds: Int64.random(in: 1...3000, using: &random)) { false }
            for (token, name, exists) in pending {
                if case .success(let applied)? = node.replies[token], case .done = applied.outcome {
                    acknowledged[name] = exists
                }
            }
            pending = pending.filter { node.replies[$0.token] == nil }
            #expect(try node.violations().isEmpty, "SEED=\(seed)")
        }
        // What is still unanswered may or may not have happened.
        for (_, name, _) in pending { acknowledged[name] = nil }
        for name in ["a", "b", "c"] {
            if let picture = try node.picture(name), picture.services.contains(where: { $0.spec.image == "crash:1" }) {
                _ = try node.perform(spec(name))
                acknowledged[name] = nil
            }
        }
        let difference = try settle(node, 300_000)
        #expect(difference == nil, "SEED=\(seed): make simulate SEED=\(seed)")
        for (name, exists) in acknowledged.sorted(by: { $0.key < $1.key }) {
            #expect((try node.picture(name) != nil) == exists, "SEED=\(seed) app \(name)")
        }
        #expect(try node.violations().isEmpty, "SEED=\(seed)")
    }
}
