// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Docker Swarm of Debian with its defaults: three managers that run tasks, each a dockerd in a network namespace of its
/// own, joined by a switch. The processes end with the benchmark, as everything does.
struct SwarmCluster {
    struct Node {
        var name: String
        var netns: String
        var socket: String
        var address: String
    }

    let name = "Docker Swarm"
    let nodes: [Node]
    private static let service = "bench"
    private static let network = "hmbs"
    private static let image = "docker.io/hivemind/sleeper:1.0"

    /// - Returns: nil where there is no dockerd.
    init?(directory: String) throws {
        guard (try? Program.run(["sh", "-c", "command -v dockerd docker"])) != nil else { return nil }
        let archive = "\(directory)/sleeper.tar"
        try Program.run([
            "scripts/demo-image", "--kind", "sleeper", "--tag", "1.0", "--format", "docker", "--output", archive,
        ])
        let network = Self.network
        // Of a run that was killed.
        Self.removeNamespaces()
        try Program.run(["ip", "netns", "add", network])
        try Program.run(["ip", "-n", network, "link", "add", "sw", "up", "type", "bridge"])
        nodes = try (1...3).map { number in
            let node = Node(
                name: "swarm\(number)", netns: "\(network)-\(number)", socket: "unix://\(directory)/s\(number).sock",
                address: "198.18.77.\(number)")
            let place = "\(directory)/s\(number)"
            try Program.run(["mkdir", "-p", place])
            try Program.run(["ip", "netns", "add", node.netns])
            try Program.run([
                "ip", "-n", network, "link", "add", "p\(number)", "up", "master", "sw", "type", "veth", "peer", "name",
                "eth0", "netns", node.netns,
            ])
            try Program.run(["ip", "-n", node.netns, "addr", "add", "\(node.address)/24", "dev", "eth0"])
            for link in ["lo", "eth0"] { try Program.run(["ip", "-n", node.netns, "link", "set", link, "up"]) }
            // Debian's has a containerd of its own for each dockerd that finds no other.
            _ = try Program(
                [
                    "nsenter", "--net=/run/netns/\(node.netns)", "unshare", "--uts", "--mount", "sh", "-c",
                    "hostname \(node.name); exec dockerd --data-root \(place)/data --exec-root \(place)/exec "
                        + "--pidfile \(place)/pid -H \(node.socket) --iptables=false --ip-forward=false --bridge=none "
                        + "--cgroup-parent /hivemind-bench/\(node.name) --userland-proxy=false",
                ], output: "\(place)/log")
            return node
        }
        for node in nodes {
            _ = try eventually("dockerd of \(node.name) answers", everyMicroseconds: 50_000) {
                try? Self.docker(node, "info")
            }
            try Self.docker(node, "load", "-i", archive)
        }
        try Self.docker(nodes[0], "swarm", "init", "--advertise-addr", nodes[0].address)
        let token = try Self.docker(nodes[0], "swarm", "join-token", "-q", "manager")
            .trimmingCharacters(in: .whitespacesAndNewlines)
        for node in nodes.dropFirst() {
            try Self.docker(
                node, "swarm", "join", "--token", token, "--advertise-addr", node.address,
                "\(nodes[0].address):2377")
        }
        try waitReady()
        try Self.docker(
            nodes[0], "service", "create", "--detach", "--no-resolve-image", "--name", Self.service, "--replicas", "3",
            "--network", "host", Self.image)
    }

    /// The names of namespaces are files that outlive the benchmark's own namespaces.
    static func removeNamespaces() {
        for name in [network] + (1...3).map({ "\(network)-\($0)" }) {
            _ = try? Program.run(["ip", "netns", "del", name])
        }
    }

    @discardableResult
    private static func docker(_ node: Node, _ arguments: String...) throws -> String {
        try Program.run(["docker", "-H", node.socket] + arguments).output
    }

    /// A node with one of three tasks; neither the first, which is asked, nor the leader. Nodes that were lost a moment ago
    /// are not given tasks at once.
    func nodeToLose() throws -> Node {
        for _ in 0..<5 {
            try wait("three tasks run") { try places().count == 3 }
            let list = try Self.docker(nodes[0], "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
            let busy = Set(try places())
            if let found = nodes.dropFirst().first(where: {
                busy.contains($0.name) && list.contains("\($0.name) Reachable")
            }) {
                return found
            }
            try scale(1)
            try scale(3)
        }
        throw BenchError("Docker Swarm: no node but the first and the leader gets a task")
    }

    /// Asks the first node.
    func isDown(_ node: Node) throws -> Bool {
        try Self.docker(nodes[0], "node", "ls", "--format", "{{.Hostname}} {{.Status}}").contains("\(node.name) Down")
    }

    /// Where tasks run.
    func places() throws -> [String] {
        try Self.docker(
            nodes[0], "service", "ps", Self.service, "--filter", "desired-state=running", "--format",
            "{{.Node}} {{.CurrentState}}"
        ).split(separator: "\n").filter { $0.contains(" Running ") }.compactMap { line in
            line.split(separator: " ").first.map { String($0) }
        }
    }

    func scale(_ count: Int) throws {
        try wait("it is scaled") {
            try Self.docker(nodes[0], "service", "scale", "--detach", "\(Self.service)=\(count)")
            return true
        }
        try wait("\(count) tasks run") { try places().count == count }
    }

    func unplug(_ node: Node, _ isUnplugged: Bool) throws {
        try Program.run(["ip", "-n", node.netns, "link", "set", "eth0", isUnplugged ? "down" : "up"])
    }

    func waitReady() throws {
        try wait("all of Swarm's nodes are ready") {
            try Self.docker(nodes[0], "node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}")
                .split(separator: "\n").count { $0 == "Ready Reachable" || $0 == "Ready Leader" } == nodes.count
        }
    }

    /// Its leader may be changing: then it refuses for a moment.
    func wait(_ what: String, _ isSo: () throws -> Bool) throws {
        _ = try eventually("Docker Swarm: \(what)", seconds: 180, everyMicroseconds: 20_000) { () -> Bool? in
            (try? isSo()) == true ? true : nil
        }
    }
}
