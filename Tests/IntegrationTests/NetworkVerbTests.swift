// SPDX-License-Identifier: Apache-2.0
import Glibc
import TestSupport
import Testing

extension BlackBox {
    /// Logs of every node through any of them, and what lies between nodes.
    @Suite struct ClusterNetwork {
        @Test func `logs of all nodes come through any, and follow while one of them dies`() async throws {
            try await withDevCluster("logs", runtime: "simulated") { cluster in
                let (first, second, third) = (cluster.nodes[0], cluster.nodes[1], cluster.nodes[2])
                try await second.cli("app", "deploy", "web", "--image", "web:1", "--replicas", "3").checked()
                #expect(try await cluster.places(of: "web", seenBy: first) == ["node1", "node2", "node3"])
                let tasks = Set(try await first.json("ps", "web")["items"].array.map { $0["id"].string ?? "" })
                for node in cluster.nodes {
                    let output = try await node.cli("app", "logs", "web").checked()
                    let lines = output.stdout.split(separator: "\n")
                    #expect(Set(lines.map { String($0.prefix { $0 != " " }) }) == tasks, "\(output)")
                    #expect(!output.stderr.contains("note:"), "\(output)")
                }
                let onThird = try await first.json("ps", "web")["items"].array.first { $0["node"].string == "node3" }
                let id = onThird?["id"].string ?? "none"
                let one = try await first.cli("app", "logs", "web", "--task", id).checked()
                #expect(one.stdout.hasPrefix("started "), "\(one)")

                let log = cluster.directory.file("follow.log")
                let follower = try ChildProcess(
                    [Repository.binary, "app", "logs", "web", "-f", "--socket", first.socket], log: log)
                func seen() throws -> String { try cluster.directory.read("follow.log") }
                try await eventually("it has the lines of all") {
                    let text = try seen()
                    return tasks.allSatisfy { text.contains($0) }
                }
                try await cluster.kill9(third)
                try await eventually("it says who is missing") { try seen().contains("note: node `node3`") }
                // Replaced elsewhere: the others' new lines still come.
                try await eventually("it has the lines of the replacement", within: .seconds(30)) {
                    let now = try await first.json("ps", "web")["items"].array
                        .filter { $0["node"].string != "node3" && $0["state"].string == "running" }
                        .map { $0["id"].string ?? "" }
                    let text = try seen()
                    return now.count == 3 && now.allSatisfy { text.contains($0) }
                }
                let output = try await second.cli("app", "logs", "web").checked()
                #expect(output.stderr.contains("note: node `node3` does not give its logs"), "\(output)")
                #expect(output.stdout.split(separator: "\n").count == 3, "\(output)")
                follower.signal(SIGTERM)
                _ = try await follower.wait(within: .seconds(5))
                let text = try seen()
                for task in tasks {
                    let count = text.split(separator: "\n").count { $0.hasPrefix(task) }
                    #expect(count == 1, "each line once: \(text)")
                }
            }
        }

        @Test func `what is wrong between nodes is named, before a join and after it`() async throws {
            try await withDevCluster("doctor") { cluster in
                let (first, second, third) = (cluster.nodes[0], cluster.nodes[1], cluster.nodes[2])
                func run(_ node: TestDevCluster.Node, _ command: String...) async throws {
                    try await Shell.run(["nsenter", "--net=/run/netns/\(node.netns)"] + command).checked()
                }
                func wall(_ node: TestDevCluster.Node, _ rule: String) async throws {
                    try await run(
                        node, "nft",
                        "add table inet wall; add chain inet wall in { type filter hook input priority 0; }; "
                            + "add rule inet wall in \(rule)")
                }
                func open(_ node: TestDevCluster.Node) async throws {
                    try await run(node, "nft", "delete table inet wall")
                }

                // The way between nodes.
                func findings(_ node: TestDevCluster.Node) async throws -> (status: Int32, found: [String: String]) {
                    let output = try await node.cli("network", "doctor", "-o", "json")
                    let paths = try JSONValue(parsing: output.stdout)["paths"].array
                    return (
                        output.status,
                        Dictionary(
                            paths.map {
                                ("\($0["from"].string ?? "")>\($0["to"].string ?? "")", $0["finding"].string ?? "")
                            }, uniquingKeysWith: { first, _ in first })
                    )
                }
                let well = try await findings(third)
                #expect(well.status == 0 && well.found.count == 6 && Set(well.found.values) == ["healthy"], "\(well)")
                try await wall(second, "udp dport 4789 drop")
                let blocked = try await findings(first)
                #expect(blocked.status == 1 && blocked.found["node3>node2"] == "blocked_udp", "\(blocked)")
                #expect(blocked.found["node1>node3"] == "healthy", "\(blocked)")
                try await open(second)
                try await run(third, "ip", "link", "set", "eth0", "mtu", "1400")
                let small = try await findings(first)
                #expect(small.status == 1 && small.found["node1>node3"] == "wrong_mtu", "\(small)")
                try await run(third, "ip", "link", "set", "eth0", "mtu", "1500")
                // Put right by the next look of the daemon, which may have come already.
                let subnet = try await second.json("node", "info", "node2")["subnet"].string ?? ""
                try await run(first, "ip", "route", "del", subnet)
                let cut = try await findings(third).found["node1>node2"]
                #expect(cut == "missing_route" || cut == "healthy", "\(cut ?? "")")

                // Addresses.
                let archive = cluster.directory.file("hello.tar")
                try await TestImage.hello.archive(to: archive)
                for node in cluster.nodes { try await node.cli("image", "import", archive).checked() }
                try await first.cli(
                    "app", "deploy", "hello", "--image", "docker.io/hivemind/hello:1.0", "--replicas", "3"
                ).checked()
                let right = try await second.cli("network", "ipam", "check", "-o", "json").checked()
                #expect(try JSONValue(parsing: right.stdout)["compared"].int == 3, "\(right)")
                #expect(try await first.json("network", "info", "containers")["used"].int == 3)
                let task = try await first.json("ps", "hello")["items"].array.first { $0["node"].string == "node2" }
                let id = task?["id"].string ?? "none"
                try await run(second, "ip", "link", "del", "hm\(id)")
                let lost = try await first.cli("network", "ipam", "check")
                #expect(lost.status == 1 && lost.stdout.contains("missing") && lost.stdout.contains(id), "\(lost)")
                try await first.cli("app", "delete", "hello", "--yes").checked()

                // Before a join.
                try await third.cli("cluster", "leave", "--yes").checked()
                let token = try await first.json("cluster", "token", "create")["token"].string ?? ""
                func check() async throws -> (status: Int32, found: Set<String>) {
                    let output = try await third.cli(
                        "cluster", "join", token, "--advertise", third.address, "--check", "-o", "json")
                    let findings = try JSONValue(parsing: output.stdout)["findings"].array
                    return (output.status, Set(findings.map { $0["check"].string ?? "" }))
                }
                #expect(try await check() == (0, []))
                try await wall(first, "udp dport 4789 drop")
                try await wall(third, "tcp dport 4484 drop")
                #expect(try await check() == (1, ["udp_out", "tcp_in"]))
                try await open(first)
                try await open(third)
                try await wall(third, "udp dport 4789 drop")
                try await wall(second, "tcp dport 4483 drop")
                try await run(third, "ip", "route", "add", "10.210.7.0/24", "dev", "eth0")
                #expect(try await check() == (1, ["udp_in", "tcp_out", "ranges"]))
                let refused = try await third.cli("cluster", "join", token, "--advertise", third.address)
                #expect(refused.status == 7 && refused.stderr.contains("3 things"), "\(refused)")
                try await run(third, "ip", "route", "del", "10.210.7.0/24")
                try await open(second)
                try await open(third)
                try await run(third, "ip", "link", "set", "eth0", "mtu", "1400")
                #expect(try await check() == (1, ["mtu"]))
                try await run(third, "ip", "link", "set", "eth0", "mtu", "1500")
                let away = try await third.cli("cluster", "join", token, "--advertise", "192.0.2.1", "--check")
                #expect(away.status == 1 && away.stdout.contains("no address of this machine"), "\(away)")
                let unsafe = try await third.cli("cluster", "init", "--encrypt")
                #expect(unsafe.status == 7 && unsafe.stderr.contains("encrypt"), "\(unsafe)")
                #expect(try await cluster.states(seenBy: first).keys.sorted() == ["node1", "node2"])

                try await third.cli("cluster", "join", token, "--advertise", third.address).checked()
                try await cluster.waitState("ready", of: third, seenBy: first)
            }
        }
    }
}
