// SPDX-License-Identifier: Apache-2.0
import Synchronization
import TestSupport
import Testing

extension Clusters {
    /// Clusters from tokens on real containers: whatever befalls a node, the apps are as wanted afterwards and nothing else
    /// is left.
    ///
    /// `SEED=n` repeats the choices of a run, `ROUNDS=n` changes how many there are.
    @Suite(.enabled(if: Host.canRunContainers, "\(Host.needsContainers)")) struct TokenFaults {
        typealias Node = TestDevCluster.Node

        static let image = "docker.io/hivemind/hello:1.0"

        /// A cluster whose nodes have the image, with what each of them has before the first app.
        private static func withApps(
            _ name: String, nodes: Int, runtime: String = "containerd", diskOf limited: Int? = nil,
            _ body: (TestDevCluster, [String: Footprint]) async throws -> Void
        ) async throws {
            try await withDevCluster(name, nodes: nodes, runtime: runtime, diskOf: limited) { cluster in
                if runtime == "containerd" {
                    try await TestImage.hello.archive(to: cluster.directory.file("hello.tar"))
                }
                for node in cluster.nodes { try await bringImage(to: node, cluster) }
                var clean: [String: Footprint] = [:]
                for node in cluster.nodes { clean[node.name] = try await node.footprint() }
                try await body(cluster, clean)
            }
        }

        /// The nodes reach no registry. Who leaves a cluster keeps nothing, images neither.
        private static func bringImage(to node: Node, _ cluster: TestDevCluster) async throws {
            guard cluster.runtime == "containerd" else { return }
            try await node.cli("image", "import", cluster.directory.file("hello.tar")).checked()
        }

        private static func deploy(_ replicas: Int, through node: Node) async throws {
            try await node.cli(
                "app", "deploy", "hello", "--image", image, "--replicas", "\(replicas)", "--port", "8080:8080",
                "--stop-timeout", "2s"
            ).checked()
        }

        /// Every node is ready, every node says the same, and each runs exactly what it should.
        private static func expectSettled(
            _ cluster: TestDevCluster, replicas: Int, clean: [String: Footprint], after what: String
        ) async throws {
            do {
                try await eventually("desired is observed", within: .seconds(60), every: .milliseconds(200)) {
                    var views: Set<[String]> = []
                    for node in cluster.nodes {
                        let states = try await cluster.states(seenBy: node)
                        guard states.count == cluster.nodes.count, states.values.allSatisfy({ $0 == "ready" }) else {
                            throw TestFailure("\(node.name) sees \(states)")
                        }
                        views.insert(try await cluster.places(of: "hello", seenBy: node))
                    }
                    guard views.count == 1, let places = views.first, places.count == replicas else {
                        throw TestFailure("\(replicas) wanted, they see \(views)")
                    }
                    for node in cluster.nodes where cluster.runtime == "containerd" {
                        let count = places.filter { $0 == node.name }.count
                        let added = try await node.footprint().added(since: clean[node.name] ?? Footprint())
                        let shims = added.filter { $0.hasPrefix("process ") && $0.contains("shim") }
                        guard shims.count == count else { throw TestFailure("\(node.name): \(count) tasks, \(shims)") }
                        for kind in ["link ", "container ", "task ", "snapshot "] {
                            let found = added.filter { $0.hasPrefix(kind) }
                            guard found.count == count else {
                                throw TestFailure("\(node.name): \(count) tasks but \(found)")
                            }
                        }
                    }
                    return true
                }
                guard cluster.runtime == "containerd" else { return }
                // Up to a hundred requests in turn, which take their time on a busy machine.
                try await eventually("every node reaches every replica", within: .seconds(30)) {
                    for node in cluster.nodes {
                        var answers: Set<String> = []
                        for _ in 0..<(replicas * 3) { answers.insert(try await node.get("http://127.0.0.1:8080/")) }
                        guard answers.count == replicas else { throw TestFailure("\(node.name) reaches \(answers)") }
                    }
                    return true
                }
            } catch {
                let why = try await cluster.nodes[0].cli("why", "app", "hello")
                let tasks = try await cluster.nodes[0].cli("ps", "hello", "-o", "wide")
                throw TestFailure("\(what): \(error)\n\(why)\n\(tasks)")
            }
        }

        private static func expectNothingLeft(_ cluster: TestDevCluster, clean: [String: Footprint]) async throws {
            try await cluster.nodes[0].cli("app", "delete", "hello", "--yes").checked()
            try await eventually("nothing is left", within: .seconds(30), every: .milliseconds(200)) {
                for node in cluster.nodes {
                    let left = try await node.footprint().added(since: clean[node.name] ?? Footprint())
                        .filter { !$0.hasPrefix("route ") }
                    guard left.isEmpty else { throw TestFailure("\(node.name): \(left)") }
                }
                return true
            }
        }

        // MARK: - One fault after the other

        @Test(.enabled(if: TestDisk.isAvailable, "\(TestDisk.needs)"))
        func `unplugged, deaf, paused, without disk or with a wrong clock, a node costs the apps nothing`() async throws
        {
            try await Self.withApps("faults", nodes: 5, diskOf: 3) { cluster, clean in
                let nodes = cluster.nodes
                try await Self.deploy(5, through: nodes[1])
                try await Self.expectSettled(cluster, replicas: 5, clean: clean, after: "the start")

                // Cut off under load: from the moment it is noticed no request fails.
                for (what, set) in [
                    ("unplugged", { try await cluster.unplug(nodes[4], $0) }),
                    ("deaf", { try await cluster.deafen(nodes[4], $0) }),
                    ("paused", { try await cluster.pause(nodes[4], $0) }),
                ] as [(String, (Bool) async throws -> Void)] {
                    try await set(true)
                    try await cluster.waitState("down", of: nodes[4], seenBy: nodes[0])
                    for _ in 0..<20 { _ = try await nodes[0].get("http://127.0.0.1:8080/") }
                    try await eventually("its task runs elsewhere") {
                        try await cluster.places(of: "hello", seenBy: nodes[0]).filter { $0 != "node5" }.count == 5
                    }
                    // It goes on without the others: what it knows it answers, and a change is refused in time.
                    if what != "paused" {
                        let local = try await nodes[4].cli("app", "info", "hello", "--consistency", "local")
                        #expect(local.succeeded, "\(what): \(local)")
                        let refused = try await nodes[4].cli("config", "set", "x", "1", timeout: .seconds(15))
                        #expect(refused.status != 0 && refused.status != 124, "\(what): \(refused)")
                        #expect(refused.stderr.contains("hint: "), "\(what): \(refused)")
                    }
                    try await set(false)
                    try await Self.expectSettled(cluster, replicas: 5, clean: clean, after: what)
                }

                // A disk that is full ends no container, and what is wanted meanwhile comes to be elsewhere.
                let disk = try #require(cluster.disk)
                try await disk.fill(leaving: 0)
                try await nodes[0].cli("app", "scale", "hello", "3", timeout: .seconds(90)).checked()
                for _ in 0..<10 { _ = try await nodes[3].get("http://127.0.0.1:8080/") }
                try await disk.free()
                try await nodes[0].cli("app", "scale", "hello", "5", timeout: .seconds(90)).checked()
                try await Self.expectSettled(cluster, replicas: 5, clean: clean, after: "a full disk")

                // Ten minutes off, whoever it is: the one that leads, too.
                for offset in [600, -600] {
                    let clock = try await ShiftedClock(seconds: offset, in: cluster.directory)
                    let leader = try await Self.leader(cluster)
                    for node in [leader, nodes.first { $0.name != leader.name } ?? leader] {
                        try await cluster.kill9(node)
                        try await cluster.start(node, clock: clock)
                        let another = nodes.first { $0.name != node.name } ?? node
                        try await cluster.waitState("ready", of: node, seenBy: another)
                        let started = ContinuousClock.now
                        try await another.cli("app", "scale", "hello", "6", timeout: .seconds(60)).checked()
                        try await another.cli("app", "scale", "hello", "5", timeout: .seconds(60)).checked()
                        #expect(started.duration(to: .now) < .seconds(60))
                        try await Self.expectSettled(
                            cluster, replicas: 5, clean: clean, after: "\(node.name)'s clock \(offset) s")
                        try await cluster.kill9(node)
                        try await cluster.start(node)
                        try await cluster.waitState("ready", of: node, seenBy: another)
                    }
                }
                try await Self.expectSettled(cluster, replicas: 5, clean: clean, after: "clocks that are right again")
                try await Self.expectNothingLeft(cluster, clean: clean)
            }
        }

        private static func leader(_ cluster: TestDevCluster) async throws -> Node {
            try await eventually("somebody leads") {
                let status = try await cluster.nodes[0].json("cluster", "status")
                let name = status["leader"].string
                return cluster.nodes.first { $0.name == name }
            }
        }

        // MARK: - Under load

        private struct Request: Sendable {
            var began: ContinuousClock.Instant
            var failure: String?
        }

        @Test(arguments: [3, 5])
        func `once the loss of a node is noticed, no request through another fails`(nodes: Int) async throws {
            try await Self.withApps("load", nodes: nodes) { cluster, clean in
                let (client, lost) = (cluster.nodes[0], cluster.nodes[nodes - 1])
                try await Self.deploy(nodes, through: client)
                try await Self.expectSettled(cluster, replicas: nodes, clean: clean, after: "the start")
                // One request after the other, each for at most two seconds, until the tasks run elsewhere and some more.
                let isDone = Mutex(false)
                async let requests: [Request] = {
                    var made: [Request] = []
                    var rest = 50
                    while rest > 0 {
                        if isDone.withLock({ $0 }) { rest -= 1 }
                        var request = Request(began: .now)
                        do { _ = try await client.get("http://127.0.0.1:8080/") } catch { request.failure = "\(error)" }
                        made.append(request)
                    }
                    return made
                }()
                let cut = ContinuousClock.now
                try await cluster.unplug(lost, true)
                try await cluster.waitState("down", of: lost, seenBy: client)
                let noticed = ContinuousClock.now
                try await eventually("its task runs elsewhere") {
                    try await cluster.places(of: "hello", seenBy: client).filter { $0 != lost.name }.count == nodes
                }
                let replaced = ContinuousClock.now
                isDone.withLock { $0 = true }
                let all = await requests
                let before = all.filter { $0.began < noticed }
                let failed = before.count { $0.failure != nil }
                let (notice, replacement) = (cut.duration(to: noticed), cut.duration(to: replaced))
                print(
                    "loss of a node of \(nodes): noticed after \(notice), replaced after \(replacement); \(failed) of "
                        + "\(before.count) requests failed before, \(all.count - before.count) began afterwards")
                let late = all.filter { $0.began >= noticed }.compactMap(\.failure)
                #expect(late.isEmpty, "\(late)")
                try await cluster.unplug(lost, false)
                try await Self.expectSettled(cluster, replicas: nodes, clean: clean, after: "its return")
                try await Self.expectNothingLeft(cluster, clean: clean)
            }
        }

        // MARK: - At random

        private enum Fault: CaseIterable {
            case kill, pause, unplug, leave, remove, handOver
        }

        /// A round takes about as long on either; what is left on a machine only real containers tell.
        @Test(arguments: [("containerd", 4), ("simulated", 20)])
        func `joined, left, killed and cut off at random while apps are scaled, a cluster is as wanted`(
            runtime: String, rounds: Int
        ) async throws {
            var random = TestRandom.fromEnvironment()
            let rounds = Host.environment("ROUNDS").flatMap { Int($0) } ?? rounds
            let place = "SEED=\(random.seed)"
            print("token faults on \(runtime): \(place) ROUNDS=\(rounds)")
            try await Self.withApps("random", nodes: 4, runtime: runtime) { cluster, clean in
                try await Self.deploy(3, through: cluster.nodes[0])
                for round in 1...rounds {
                    let index = Int.random(in: cluster.nodes.indices, using: &random)
                    let node = cluster.nodes[index]
                    let another = cluster.nodes[(index + 1) % cluster.nodes.count]
                    let fault = Fault.allCases.randomElement(using: &random) ?? .kill
                    let pause = Duration.milliseconds(Int.random(in: 0...5_000, using: &random))
                    let replicas = Int.random(in: 1...6, using: &random)
                    let what = "\(place) round \(round): \(fault) of \(node.name) for \(pause), \(replicas) wanted"
                    print(what)
                    do {
                        async let scaled: Void = Self.scale(replicas, through: another)
                        try await Self.befall(fault, node, seenBy: another, for: pause, cluster)
                        try await scaled
                    } catch {
                        throw TestFailure("\(what): \(error)")
                    }
                    try await Self.expectSettled(cluster, replicas: replicas, clean: clean, after: what)
                }
                try await Self.expectNothingLeft(cluster, clean: clean)
            }
        }

        /// Until it is taken: a cluster may be without a leader meanwhile.
        private static func scale(_ replicas: Int, through node: Node) async throws {
            try await eventually("the app is scaled", within: .seconds(60), every: .milliseconds(500)) {
                try await node.cli("app", "scale", "hello", "\(replicas)", "--no-wait", timeout: .seconds(20)).checked()
                return true
            }
        }

        private static func befall(
            _ fault: Fault, _ node: Node, seenBy another: Node, for pause: Duration, _ cluster: TestDevCluster
        ) async throws {
            switch fault {
            case .kill:
                try await cluster.kill9(node)
                try await Task.sleep(for: pause)
                try await cluster.start(node)
            case .pause:
                try await cluster.pause(node, true)
                try await Task.sleep(for: pause)
                try await cluster.pause(node, false)
            case .unplug:
                try await cluster.unplug(node, true)
                try await Task.sleep(for: pause)
                try await cluster.unplug(node, false)
            case .leave:
                // Others may be about to elect somebody: then it is refused, and nothing has changed.
                try await eventually("it leaves", within: .seconds(30), every: .milliseconds(500)) {
                    try await node.cli("cluster", "leave", "--yes", timeout: .seconds(60)).checked()
                    return true
                }
                try await join(node, through: another, cluster)
            case .remove:
                try await cluster.kill9(node)
                try await eventually("it is removed", within: .seconds(30)) {
                    try await another.cli("node", "remove", node.name, "--yes").checked()
                    return true
                }
                try await cluster.start(node)
                try await eventually("it knows") {
                    try await node.cli("status").stdout.contains("removed this node for good")
                }
                try await node.cli("cluster", "leave", "--yes", timeout: .seconds(60)).checked()
                try await join(node, through: another, cluster)
            case .handOver:
                _ = try await another.cli("cluster", "transfer-leader")
            }
        }

        private static func join(_ node: Node, through another: Node, _ cluster: TestDevCluster) async throws {
            let token: String = try await eventually("a token is made", within: .seconds(30)) {
                try await another.json("cluster", "token", "create")["token"].string
            }
            try await node.cli("cluster", "join", token, "--advertise", node.address, timeout: .seconds(60)).checked()
            try await bringImage(to: node, cluster)
        }
    }
}
