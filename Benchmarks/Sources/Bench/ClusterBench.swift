// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Clusters from a token, each node a daemon in a network namespace of its own, as `hivemind dev cluster up` makes them:
/// joining, the loss of a node, how fast a change is everywhere, and what memory a node of ten takes.
struct ClusterBench {
    let directory: String
    let binaries: String
    let report: Report
    let rounds: Int

    private static let image = "docker.io/hivemind/hello:1.0"
    private static let app = "bench"

    func runLoss() throws {
        try withCluster(nodes: 3, runtime: "containerd", number: 1) { cluster in
            for node in cluster.nodes { try cluster.cli(node, "image", "import", "\(directory)/image.tar") }
            try measureLoss(cluster)
        }
    }

    func run() throws {
        try withCluster(nodes: 3, runtime: "simulated", number: 2, measureJoin)
        try withCluster(nodes: 10, runtime: "simulated", number: 3) { cluster in
            try measureSpread(cluster)
            try measureMemory(cluster)
        }
    }

    // MARK: What is measured

    /// The command line, from its start to its end: it ends once the node is ready.
    private func measureJoin(_ cluster: Cluster) throws {
        let (first, last) = (cluster.nodes[0], cluster.nodes[2])
        var took = Samples()
        for round in 0...rounds {
            try cluster.cli(last, "cluster", "leave", "--yes")
            try cluster.waitStates(seenBy: last) { $0.count == 1 && $0.values.allSatisfy { $0 == "ready" } }
            let made = try cluster.call(first, "POST", "/v1/cluster/tokens", "{\"ttl\":\"1h\",\"uses\":1}")
            guard let token = made["token"] as? String else { throw BenchError("no token in \(made)") }
            let began = now()
            try cluster.cli(last, "cluster", "join", token, "--advertise", last.address)
            if round > 0 { took.add(now() - began) }
            try cluster.waitStates(seenBy: first) { $0.count == 3 && $0.values.allSatisfy { $0 == "ready" } }
        }
        report.row(
            "`cluster join` of a third node, pre-flight included -> ready", unit: "ms", ours: took, aim: "< 1500")
    }

    /// Its link goes down: neither daemon nor containers are heard any more.
    private func measureLoss(_ cluster: Cluster) throws {
        defer { SwarmCluster.removeNamespaces() }
        let swarm = try SwarmCluster(directory: directory)
        if swarm == nil { report.note("dockerd is not installed: nothing beside the loss of a node") }
        var theirs = (noticed: Samples(), replaced: Samples())
        let (first, lost) = (cluster.nodes[0], cluster.nodes[2])
        try cluster.cli(first, "app", "deploy", Self.app, "--image", Self.image, "--replicas", "3")
        var noticed = Samples()
        var replaced = Samples()
        for round in 0...min(rounds, 10) {
            try cluster.waitRunning(Self.app, 3, seenBy: first) { $0.contains(lost.name) }
            let began = now()
            try cluster.unplug(lost, true)
            try cluster.waitStates(seenBy: first) { $0[lost.name] == "down" }
            let down = now()
            try cluster.waitRunning(Self.app, 3, seenBy: first) { !$0.contains(lost.name) }
            if round > 0 {
                noticed.add((down - began) / 1000)
                replaced.add((now() - began) / 1000)
            }
            try cluster.unplug(lost, false)
            try cluster.waitStates(seenBy: first) { $0.values.allSatisfy { $0 == "ready" } }
            // New tasks go where there are fewest.
            try cluster.cli(first, "app", "scale", Self.app, "1")
            try cluster.cli(first, "app", "scale", Self.app, "3")
            if let swarm {
                let took = try loss(swarm)
                if round > 0 {
                    theirs.noticed.add(took.noticed)
                    theirs.replaced.add(took.replaced)
                }
            }
        }
        report.row(
            "node unplugged -> shown as down, defaults", unit: "s", ours: noticed,
            peer: swarm.map { ($0.name, theirs.noticed) })
        report.row(
            "node unplugged -> its task runs elsewhere, defaults", unit: "s", ours: replaced,
            peer: swarm.map { ($0.name, theirs.replaced) }, aim: "< 8")
    }

    private func loss(_ swarm: SwarmCluster) throws -> (noticed: Double, replaced: Double) {
        let lost = try swarm.nodeToLose()
        let began = now()
        try swarm.unplug(lost, true)
        try swarm.wait("\(lost.name) is down") { try swarm.isDown(lost) }
        let down = now()
        try swarm.wait("its task runs elsewhere") {
            let places = try swarm.places()
            return places.count == 3 && !places.contains(lost.name)
        }
        let replaced = now()
        try swarm.unplug(lost, false)
        try swarm.waitReady()
        try swarm.scale(1)
        try swarm.scale(3)
        return ((down - began) / 1000, (replaced - began) / 1000)
    }

    /// From the request to the leader until the slowest node answers with the new value from its own state.
    private func measureSpread(_ cluster: Cluster) throws {
        guard let leader = try cluster.leader() else { throw BenchError("nobody leads") }
        var took = Samples()
        for round in 0...rounds * 4 {
            let value = "v\(round)"
            let began = now()
            _ = try cluster.call(leader, "PUT", "/v1/configs/spread", "{\"data\":\"\(value)\"}")
            for node in cluster.nodes {
                _ = try eventually("\(node.name) has it", everyMicroseconds: 200) {
                    let found = try? cluster.call(node, "GET", "/v1/configs/spread?consistency=local")
                    return found?["data"] as? String == value ? true : nil
                }
            }
            if round > 0 { took.add(now() - began) }
        }
        report.row("change -> visible on each of 10 nodes", unit: "ms", ours: took, aim: "< 200")
    }

    private func measureMemory(_ cluster: Cluster) throws {
        let first = cluster.nodes[0]
        try cluster.cli(first, "app", "deploy", Self.app, "--image", Self.image, "--replicas", "200")
        try cluster.waitRunning(Self.app, 200, seenBy: first) { _ in true }
        // At rest: what only the start and the deployment needed is given back at the next quiet moments.
        usleep(15_000_000)
        var memory: [String: Samples] = [:]
        for node in try cluster.items(first, "/v1/nodes") {
            guard let name = node["name"] as? String, let role = node["role"] as? String,
                let pid = cluster.daemon(name)
            else { throw BenchError("no daemon of \(node)") }
            memory[role, default: Samples()].add(Memory(pid).resident)
        }
        for (role, samples) in memory.sorted(by: { $0.key < $1.key }) {
            report.row(
                "\(role) of 10 nodes with 200 tasks, simulated containers, RSS", unit: "MB", ours: samples,
                aim: role == "voter" ? "< 65" : "< 50")
        }
    }

    // MARK: The cluster

    private func withCluster(
        nodes: Int, runtime: String, number: Int, _ body: (Cluster) throws -> Void
    ) throws {
        let place = "\(directory)/c\(number)"
        let program = "\(binaries)/hivemind"
        try Program.run([
            program, "dev", "cluster", "up", "--nodes", "\(nodes)", "--runtime", runtime, "--dir", place, "--prefix",
            "hmb\(number)", "--network", "198.18.\(number)", "-o", "json",
        ])
        defer { _ = try? Program.run([program, "dev", "cluster", "down", "--dir", place]) }
        try body(
            Cluster(
                program: program, place: place,
                nodes: (1...nodes).map {
                    Cluster.Node(
                        name: "node\($0)", netns: "hmb\(number)-\($0)", socket: "\(place)/\($0).sock",
                        address: "198.18.\(number).\($0)", dataDir: "\(place)/\($0)")
                }))
    }
}

/// The nodes of a dev cluster, and what is asked of them.
struct Cluster {
    struct Node {
        var name: String
        var netns: String
        var socket: String
        var address: String
        var dataDir: String
    }

    let program: String
    let place: String
    let nodes: [Node]

    @discardableResult
    func cli(_ node: Node, _ arguments: String...) throws -> String {
        try Program.run([program] + arguments + ["--socket", node.socket]).output
    }

    func call(_ node: Node, _ method: String, _ path: String, _ body: String? = nil) throws -> [String: Any] {
        guard let connection = Connection(node.socket) else { throw BenchError("no daemon at \(node.socket)") }
        let reply = try connection.exchange(method, path, body)
        guard (200..<300).contains(reply.status) else {
            throw BenchError("\(method) \(path): \(reply.status) \(String(decoding: reply.body, as: UTF8.self))")
        }
        return try JSONSerialization.jsonObject(with: reply.body) as? [String: Any] ?? [:]
    }

    func items(_ node: Node, _ path: String) throws -> [[String: Any]] {
        try call(node, "GET", path)["items"] as? [[String: Any]] ?? []
    }

    func leader() throws -> Node? {
        let name = try call(nodes[0], "GET", "/v1/cluster")["leader"] as? String
        return nodes.first { $0.name == name }
    }

    func waitStates(seenBy node: Node, _ isWanted: ([String: String]) -> Bool) throws {
        _ = try eventually("the nodes are as wanted", everyMicroseconds: 2000) { () -> Bool? in
            // Not there while it begins again.
            guard let list = try? items(node, "/v1/nodes") else { return nil }
            let states = Dictionary(
                list.map { ($0["name"] as? String ?? "", $0["state"] as? String ?? "") }, uniquingKeysWith: { $1 })
            return isWanted(states) ? true : nil
        }
    }

    /// - Parameter isWanted: of the names of the nodes that run them.
    func waitRunning(_ app: String, _ count: Int, seenBy node: Node, _ isWanted: ([String]) -> Bool) throws {
        _ = try eventually("\(count) tasks of \(app) run", seconds: 120, everyMicroseconds: 2000) { () -> Bool? in
            let places = try items(node, "/v1/tasks?app=\(app)").filter { $0["state"] as? String == "running" }
                .map { $0["node"] as? String ?? "" }
            // What runs on a node that is cut off is shown until somebody knows better.
            let down = try items(node, "/v1/nodes").filter { $0["state"] as? String == "down" }
                .compactMap { $0["name"] as? String }
            let live = places.filter { !down.contains($0) }
            return live.count == count && isWanted(live) ? true : nil
        }
    }

    func unplug(_ node: Node, _ isUnplugged: Bool) throws {
        try Program.run(["ip", "-n", node.netns, "link", "set", "eth0", isUnplugged ? "down" : "up"])
    }

    /// The pid of a node's daemon.
    func daemon(_ name: String) -> pid_t? {
        guard let node = nodes.first(where: { $0.name == name }),
            let text = try? Program.run(["pgrep", "-f", "daemon --data-dir \(node.dataDir) "]).output
        else { return nil }
        return text.split(separator: "\n").first.flatMap { pid_t($0) }
    }
}
