// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension BlackBox {
    /// What the how-tos say about single nodes, run block by block where the text says.
    @Suite struct NodeDocuments {
        typealias Node = TestDevCluster.Node

        /// The ```sh blocks of a document, in order.
        private static func blocks(_ path: String) throws -> [String] {
            var found: [String] = []
            var block: [Substring]?
            for line in try Repository.text(path).split(separator: "\n", omittingEmptySubsequences: false) {
                if line == "```sh" {
                    block = []
                } else if line == "```", let lines = block {
                    found.append(lines.joined(separator: "\n"))
                    block = nil
                } else {
                    block?.append(line)
                }
            }
            return found
        }

        /// - Returns: what it printed; a failure of any command is thrown.
        @discardableResult
        private static func run(
            _ block: String, on node: Node, _ environment: [String: String] = [:]
        ) async throws -> String {
            let programs = Repository.binary.split(separator: "/").dropLast().joined(separator: "/")
            return try await Shell.run(
                ["bash", "-euxo", "pipefail", "-c", "PATH=/\(programs):$PATH\n" + block],
                environment: environment.merging(["HIVEMIND_SOCKET": node.socket]) { $1 }, timeout: .seconds(120)
            ).checked().stdout
        }

        @Test func `a dead node is replaced as the document says`() async throws {
            let blocks = try Self.blocks("docs/how-to/replace-a-dead-node.md")
            try #require(blocks.count == 6)
            try await withDevCluster("replace", nodes: 4, runtime: "simulated") { cluster in
                let (first, dead, spare) = (cluster.nodes[0], cluster.nodes[2], cluster.nodes[3])
                try await spare.cli("cluster", "leave", "--yes").checked()
                try await first.cli(
                    "app", "deploy", "web", "--image", "docker.io/hivemind/hello:1.0", "--replicas", "3"
                )
                .checked()
                try await cluster.kill9(dead)
                try await cluster.waitState("down", of: dead, seenBy: first)
                #expect(try await Self.run(blocks[0], on: first).contains("down"))
                try await Self.run(blocks[1], on: first)
                #expect(try await cluster.states(seenBy: first).keys.sorted() == ["node1", "node2"])
                let token = try await Self.run(blocks[2] + "\necho \"$TOKEN\"", on: first)
                try await Self.run(
                    blocks[3], on: spare,
                    ["TOKEN": token.filter { !$0.isWhitespace }, "ADDRESS": spare.address])
                try await cluster.waitState("ready", of: spare, seenBy: first)
                #expect(try await Self.run(blocks[4], on: first).contains("node4"))
                try await eventually("three tasks run") {
                    try await cluster.places(of: "web", seenBy: spare).count == 3
                }
                try await cluster.start(dead)
                try await eventually("the dead one knows") {
                    try await dead.cli("status").stdout.contains("removed this node for good")
                }
                try await Self.run(blocks[5], on: dead)
                try await eventually("it is alone") {
                    try await dead.json("node", "ls")["items"].array.map { $0["state"].string } == ["ready"]
                }
            }
        }

        private static func deployWithVolume(through node: Node) async throws {
            try await node.cli(
                "app", "deploy", "db", "--image", "docker.io/hivemind/hello:1.0", "--volume", "data:/data"
            ).checked()
        }

        @Test func `a volume of a dead node is waited for until it is deleted`() async throws {
            try await withDevCluster("lostvolume", nodes: 3, runtime: "simulated") { cluster in
                let first = cluster.nodes[0]
                try await Self.deployWithVolume(through: first)
                let home = try #require(try await cluster.places(of: "db", seenBy: first).first)
                let dead = try #require(cluster.nodes.first { $0.name == home })
                let other = try #require(cluster.nodes.first { $0.name != home })
                try await cluster.kill9(dead)
                try await cluster.waitState("down", of: dead, seenBy: other)
                try await other.cli("node", "remove", home, "--yes").checked()
                try await eventually("it says what is missing") {
                    try await other.cli("why", "app", "db").stdout.contains("data")
                }
                #expect(try await cluster.places(of: "db", seenBy: other) == [])
                try await other.cli("app", "delete", "db", "--yes").checked()
                try await other.cli("volume", "delete", "data", "--yes").checked()
                try await Self.deployWithVolume(through: other)
                try await eventually("it runs with an empty one") {
                    try await cluster.places(of: "db", seenBy: other).count == 1
                }
            }
        }

        @Test(.enabled(if: Host.canRunContainers, "\(Host.needsContainers)"))
        func `an upgrade goes from node to node, and containers go on`() async throws {
            let blocks = try Self.blocks("docs/how-to/upgrade.md")
            try #require(blocks.count == 4)
            try await withDevCluster("upgrade") { cluster in
                let archive = cluster.directory.file("hello.tar")
                try await TestImage.hello.archive(to: archive)
                for node in cluster.nodes { try await node.cli("image", "import", archive).checked() }
                let first = cluster.nodes[0]
                try await first.cli(
                    "app", "deploy", "hello", "--image", "docker.io/hivemind/hello:1.0", "--replicas", "3", "--port",
                    "8080:8080"
                ).checked()
                func processes(_ observer: Node) async throws -> [String] {
                    try await observer.json("ps", "hello")["items"].array
                        .map { "\($0["node"].string ?? "") \($0["pid"].int ?? 0) \($0["restarts"].int ?? 0)" }.sorted()
                }
                let before = try await processes(first)
                #expect(before.count == 3)
                try await Self.run(blocks[0], on: first)
                let leader = try await first.json("cluster", "status")["leader"].string
                for node in cluster.nodes.sorted(by: { $1.name == leader && $0.name != leader }) {
                    try await Self.run(blocks[1], on: node)
                    if node.name == leader { try await Self.run(blocks[2], on: node) }
                    // Another file in the same place, as `install` leaves it, is the same to the system.
                    try await cluster.stop(node)
                    try await cluster.start(node)
                    let another = try #require(cluster.nodes.first { $0.name != node.name })
                    try await cluster.waitState("ready", of: node, seenBy: another)
                    try await eventually("\(node.name) answers") { try await node.cli("status").succeeded }
                    try await Self.run(blocks[3], on: node)
                    #expect(try await processes(node) == before, "after \(node.name)")
                    for _ in 0..<6 { #expect(try await another.get("http://127.0.0.1:8080/").hasPrefix("hello 1.0")) }
                }
            }
        }

        @Test(.enabled(if: Host.canRunContainers, "\(Host.needsContainers)"))
        func `the network is looked at as the document says`() async throws {
            let blocks = try Self.blocks("docs/how-to/troubleshoot-the-network.md")
            try #require(blocks.count == 3)
            try await withDevCluster("trouble") { cluster in
                let (first, last) = (cluster.nodes[0], cluster.nodes[2])
                try await last.cli("cluster", "leave", "--yes").checked()
                let token = try #require(try await first.json("cluster", "token", "create")["token"].string)
                let variables = ["TOKEN": token, "ADDRESS": last.address]
                try await eventually("it is alone and ready") {
                    try await Self.run(blocks[0], on: last, variables)
                    return true
                }
                try await last.cli("cluster", "join", token, "--advertise", last.address).checked()
                try await eventually("every way is open") {
                    try await Self.run(blocks[1], on: first)
                    return true
                }
                #expect(try await Self.run(blocks[2], on: first).contains("10.210.0.0/16"))
            }
        }
    }
}
