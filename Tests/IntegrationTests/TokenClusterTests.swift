// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension BlackBox {
    /// From a token to apps that run across machines and survive the loss of one.
    @Suite struct TokenCluster {
        @Test func `three nodes are joined, apps are reached across them by name and survive a node`() async throws {
            try await withDevCluster("across") { cluster in
                let (first, second, third) = (cluster.nodes[0], cluster.nodes[1], cluster.nodes[2])
                let archive = cluster.directory.file("hello.tar")
                try await TestImage.hello.archive(to: archive)
                for node in cluster.nodes { try await node.cli("image", "import", archive).checked() }
                let members = try await first.json("cluster", "status")["members"].array
                #expect(members.map { $0["role"].string } == ["voter", "voter", "voter"])

                // One on each node, through any node.
                try await second.cli(
                    "app", "deploy", "hello", "--image", "docker.io/hivemind/hello:1.0", "--replicas", "3", "--port",
                    "8080:8080"
                ).checked()
                #expect(try await cluster.places(of: "hello", seenBy: third) == ["node1", "node2", "node3"])
                for node in cluster.nodes {
                    var answers: Set<String> = []
                    for _ in 0..<12 { answers.insert(try await node.get("http://127.0.0.1:8080/")) }
                    #expect(answers.count == 3, "\(node.name) reaches every replica: \(answers)")
                }
                let vip = try await first.json("app", "info", "hello")["vip"].string ?? "no address"
                // By name and address from inside of a container, on another node than those that answer.
                for task in try await first.json("ps", "hello")["items"].array {
                    let pid = task["pid"].int ?? 0
                    let name = try await Shell.run(["nsenter", "-t", "\(pid)", "-n", "-m", "--", "nslookup", "hello"])
                    #expect(name.stdout.contains(vip), "its name from \(task["node"].string ?? ""): \(name)")
                    for _ in 0..<3 {
                        let answer = try await Shell.run(
                            [
                                "nsenter", "-t", "\(pid)", "-n", "--", "curl", "-sS", "-f", "-m", "3", "--noproxy", "*",
                                "http://\(vip):8080/",
                            ]
                        ).checked().stdout
                        #expect(answer.hasPrefix("hello 1.0"), "from \(task["node"].string ?? "")")
                    }
                }

                // A node that stops answering: no traffic, then others run what it ran.
                try await cluster.kill9(third)
                try await cluster.waitState("down", of: third, seenBy: first)
                try await eventually("its task runs elsewhere") {
                    let places = try await cluster.places(of: "hello", seenBy: first).filter { $0 != "node3" }
                    return places.count == 3
                }
                for _ in 0..<12 { #expect(try await first.get("http://127.0.0.1:8080/").hasPrefix("hello 1.0")) }
                // It comes back and finds that its task was replaced.
                try await cluster.start(third)
                try await cluster.waitState("ready", of: third, seenBy: first)
                try await eventually("as many run as are wanted, wherever one looks") {
                    for node in cluster.nodes {
                        guard try await cluster.places(of: "hello", seenBy: node).count == 3 else { return false }
                    }
                    return true
                }

                // Emptied without a failed request.
                async let load = Self.requests(first, count: 60)
                try await first.cli("node", "drain", "node2", "--timeout", "30s").checked()
                let failures = try await load
                #expect(failures.isEmpty, "\(failures)")
                #expect(try await !cluster.places(of: "hello", seenBy: first).contains("node2"))
                #expect(try await cluster.states(seenBy: third)["node2"] == "drained")
                try await first.cli("node", "uncordon", "node2").checked()
                try await first.cli("app", "delete", "hello", "--yes").checked()

                // A port of the nodes that have a task, each leading to its own.
                try await first.cli(
                    "app", "deploy", "edge", "--image", "docker.io/hivemind/hello:1.0", "--replicas", "2", "--port",
                    "target=8080,published=9090,mode=host"
                ).checked()
                let tasks = try await first.json("ps", "edge")["items"].array
                #expect(Set(tasks.compactMap { $0["node"].string }).count == 2)
                for node in cluster.nodes {
                    let task = tasks.first { $0["node"].string == node.name }?["id"].string
                    for _ in 0..<4 {
                        let output = try await Shell.run([
                            "nsenter", "--net=/run/netns/\(second.netns)", "curl", "-sS", "-f", "-m", "3",
                            "--noproxy", "*", "http://\(node.address):9090/",
                        ])
                        #expect(output.succeeded == (task != nil), "\(node.name): \(output)")
                        if let task {
                            #expect(output.stdout.contains("edge-\(task.prefix(6))"), "\(node.name): \(output)")
                        }
                    }
                }
                try await first.cli("app", "delete", "edge", "--yes").checked()
            }
        }

        private static func requests(_ node: TestDevCluster.Node, count: Int) async throws -> [String] {
            var failures: [String] = []
            for _ in 0..<count {
                do {
                    let answer = try await node.get("http://127.0.0.1:8080/")
                    if !answer.hasPrefix("hello 1.0") { failures.append(answer) }
                } catch { failures.append("\(error)") }
            }
            return failures
        }

        @Test func `bad tokens are refused by name and nothing changes`() async throws {
            try await withDevCluster("tokens", nodes: 3, runtime: "simulated") { cluster in
                let (first, third) = (cluster.nodes[0], cluster.nodes[2])
                // Alone again, and free to join.
                try await third.cli("cluster", "leave", "--yes").checked()
                func refused(_ token: String, _ status: Int32, _ says: String) async throws {
                    let output = try await third.cli("cluster", "join", token, "--advertise", third.address)
                    #expect(output.status == status && output.stderr.contains(says), "\(output)")
                    #expect(output.stderr.contains("hint: "), "\(output)")
                }
                func token(_ arguments: String...) async throws -> (id: String, text: String) {
                    let made = try await Shell.run(
                        [Repository.binary, "cluster", "token", "create", "--socket", first.socket, "-o", "json"]
                            + arguments
                    ).checked()
                    let view = try JSONValue(parsing: made.stdout)
                    return (view["id"].string ?? "", view["token"].string ?? "")
                }
                let good = try await token()
                try await refused(String(good.text.dropLast(3)), 2, "mistyped")
                let letter = good.text.suffix(20).first == "0" ? "1" : "0"
                try await refused(good.text.dropLast(20) + letter + good.text.suffix(19), 2, "mistyped")
                try await refused("hm_abc", 2, "API token")
                let short = try await token("--ttl", "1s")
                try await eventually("the token has expired") {
                    try await !first.json("cluster", "token", "ls")["items"].array.contains {
                        $0["id"].string == short.id
                    }
                }
                try await refused(short.text, 4, "expired")
                // A token's role is a role, and what it did not let in costs none of its uses.
                let watching = try await token("--role", "observer", "--uses", "1")
                let voting = try await third.cli(
                    "cluster", "join", watching.text, "--advertise", third.address, "--role", "voter")
                #expect(voting.status == 5 && voting.stderr.contains("for nodes of role observer"), "\(voting)")
                #expect(
                    try await first.json("cluster", "token", "ls")["items"].array.first {
                        $0["id"].string == watching.id
                    }?["uses_left"].int == 1)
                // Nor does joining lose what the machine has, without a word.
                try await third.cli("config", "set", "precious", "1").checked()
                try await refused(good.text, 7, "1 configs of its own, which would be lost")
                try await third.cli("config", "delete", "precious", "--yes").checked()
                let once = try await token("--uses", "1")
                try await first.cli("cluster", "token", "revoke", once.id).checked()
                try await refused(once.text, 4, "not known")
                // Exchanged by another node than made it: the old one is refused, the new one is as good.
                try await first.cli("cluster", "token", "revoke", good.id).checked()
                let given = try await token("--uses", "5")
                let exchanged = try await cluster.nodes[1].json("cluster", "token", "rotate", given.id)
                try await refused(given.text, 4, "not known")
                let new = (id: exchanged["id"].string ?? "", text: exchanged["token"].string ?? "")
                #expect(new.id != given.id && exchanged["uses_left"].int == 5)
                let unknown = try await first.cli("cluster", "token", "rotate", given.id)
                #expect(unknown.status == 6 && unknown.stderr.contains("no join token"), "\(unknown)")
                let unclear = try await first.cli("cluster", "token", "rotate")
                #expect(unclear.status == 7 && unclear.stderr.contains("join tokens"), "\(unclear)")
                let busy = try await third.cli("cluster", "join", new.text, "--advertise", "192.0.2.9")
                #expect(busy.status == 2 && busy.stderr.contains("no address of this machine"), "\(busy)")
                #expect(try await cluster.states(seenBy: first).keys.sorted() == ["node1", "node2"])

                // A good one, and again, which is harmless.
                for _ in 0..<2 {
                    try await third.cli("cluster", "join", new.text, "--advertise", third.address).checked()
                }
                try await cluster.waitState("ready", of: third, seenBy: first)
                #expect(!cluster.log(of: first).contains(new.text), "no secret in the log")
            }
        }

        @Test func `every node says where a volume is, and makes none of its own`() async throws {
            try await withDevCluster("volumes", nodes: 3, runtime: "simulated") { cluster in
                let first = cluster.nodes[0]
                try await first.cli("volume", "create", "data").checked()
                let path = try await first.json("volume", "info", "data")["path"].string ?? ""
                #expect(!path.isEmpty)
                for node in cluster.nodes {
                    let listed = try await node.json("volume", "ls")["items"].array.first
                    let info = try await node.json("volume", "info", "data")
                    for view in [listed, info] {
                        #expect(view?["node"].string == "node1", "seen by \(node.name): \(String(describing: view))")
                        #expect(view?["path"].string == path, "seen by \(node.name)")
                    }
                    #expect(info["used_bytes"].int != nil, "measured where it is")
                }
                try await cluster.kill9(first)
                let second = cluster.nodes[1]
                try await cluster.waitState("down", of: first, seenBy: second)
                let lost = try await second.json("volume", "info", "data")
                #expect(lost["node"].string == "node1" && lost["path"].string == "", "\(lost)")
                // Alone it goes on to show what it knew, and says so.
                try await cluster.kill9(cluster.nodes[2])
                try await eventually("it says how old that is") {
                    let list = try await second.cli("volume", "ls").checked()
                    return list.stdout.contains("data") && list.stderr.contains("has known no leader for")
                }
            }
        }

        @Test func `every node says why a replica has no place`() async throws {
            try await withDevCluster("unplaced", runtime: "simulated") { cluster in
                try await cluster.nodes[0].cli(
                    "app", "deploy", "web", "--image", "example/web:1", "--replicas", "4", "--max-per-node", "1",
                    "--no-wait"
                ).checked()
                try await eventually("three of four run") {
                    try await cluster.places(of: "web", seenBy: cluster.nodes[0]).count == 3
                }
                for node in cluster.nodes {
                    for words in [
                        ["ps"], ["ps", "web"], ["app", "info", "web"], ["why", "app", "web"],
                        ["app", "ls", "-o", "wide"],
                    ] {
                        try await eventually("\(node.name) says so") {
                            let shown = try await node.cli(words).checked()
                            guard shown.stdout.contains("has 1 of it already") else { throw TestFailure("\(shown)") }
                            return true
                        }
                    }
                    let missing = try await node.json("ps", "web")["unplaced"].array
                    #expect(missing.map { $0["count"].int } == [1], "\(missing)")
                    #expect(missing.first?["reason"]["code"].string == "replicas_per_node", "\(missing)")
                }
                try await cluster.nodes[0].cli("app", "scale", "web", "3").checked()
                #expect(try await cluster.nodes[1].json("ps", "web")["unplaced"].array.isEmpty)
            }
        }

        @Test func `removed while it was dead, a node is told so and may come back as a new one`() async throws {
            try await withDevCluster("removed", nodes: 4, runtime: "simulated") { cluster in
                let (first, last) = (cluster.nodes[0], cluster.nodes[3])
                let before = try await last.json("node", "info", "node4")
                try await cluster.kill9(last)
                try await first.cli("node", "remove", "node4", "--yes").checked()
                #expect(try await cluster.states(seenBy: first).count == 3)
                try await cluster.start(last)
                try await eventually("it knows") {
                    try await last.cli("status").stdout.contains("removed this node for good")
                }
                let again = try await first.json("cluster", "token", "create")["token"].string ?? ""
                let back = try await last.cli("cluster", "join", again, "--advertise", last.address)
                #expect(back.status == 7 && back.stderr.contains("hivemind cluster leave --yes"), "\(back)")
                try await last.cli("cluster", "leave", "--yes").checked()
                let token = try await first.json("cluster", "token", "create")["token"].string ?? ""
                try await last.cli("cluster", "join", token, "--advertise", last.address).checked()
                let after = try await first.json("node", "info", "node4")
                #expect(after["id"].string != before["id"].string, "ids are never used again")
                #expect(after["subnet"].string != before["subnet"].string)
            }
        }

        @Test func `whoever leaves at once is gone, and comes back under the same name`() async throws {
            try await withDevCluster("again", runtime: "simulated") { cluster in
                let (first, last) = (cluster.nodes[0], cluster.nodes[2])
                var ids: Set<String> = []
                for _ in 0..<8 {
                    // The state a node begins from may still know the one that had its name before.
                    let began = ContinuousClock.now
                    try await last.cli("cluster", "leave", "--yes").checked()
                    #expect(began.duration(to: .now) < .seconds(4), "it waits for nothing")
                    #expect(try await cluster.states(seenBy: first).count == 2)
                    let token = try await first.json("cluster", "token", "create")["token"].string ?? ""
                    try await last.cli("cluster", "join", token, "--advertise", last.address).checked()
                    ids.insert(try await first.json("node", "info", "node3")["id"].string ?? "")
                }
                #expect(ids.count == 8)
            }
        }

        @Test func `a leader that lacks the cluster's key has it from another voter`() async throws {
            try await withDevCluster("key", nodes: 4, runtime: "simulated") { cluster in
                let name = try await cluster.nodes[0].json("cluster", "status")["leader"].string
                guard let leader = cluster.nodes.first(where: { $0.name == name }),
                    let leaving = cluster.nodes.last(where: { $0.name != name })
                else { throw TestFailure("nobody leads") }
                let key = leader.dataDir + "/identity/cluster.key"
                try await leaving.cli("cluster", "leave", "--yes").checked()
                let token = try await leader.json("cluster", "token", "create")["token"].string ?? ""
                try await Shell.run(["rm", key]).checked()
                try await leaving.cli("cluster", "join", token, "--advertise", leaving.address).checked()
                try await Shell.run(["test", "-s", key]).checked()
            }
        }

        @Test func `a task is stopped once every node that answers has taken it out of service`() async throws {
            try await withDevCluster("release", nodes: 3, runtime: "simulated") { cluster in
                let first = cluster.nodes[0]
                let leader = try await first.json("cluster", "status")["leader"].string ?? ""
                // It runs beside the leader's node or on it; the third stands still.
                guard let behind = cluster.nodes.last(where: { $0.name != leader }),
                    let home = cluster.nodes.first(where: { $0.name != behind.name })
                else { throw TestFailure("nobody follows") }
                func tasks() async throws -> [String] {
                    try await home.json("ps", "web")["items"].array.compactMap { $0["state"].string }.filter {
                        ["running", "stopping"].contains($0)
                    }
                }
                try await home.cli(
                    "app", "deploy", "web", "--image", "example/web:1", "--replicas", "3", "--constraint",
                    "node.hostname == \(home.name)"
                ).checked()

                try await cluster.pause(behind, true)
                try await home.cli("app", "scale", "web", "2", "--no-wait").checked()
                try await eventually("it is out of service") { try await tasks().contains("stopping") }
                try await cluster.waitState("suspect", of: behind, seenBy: home)
                #expect(
                    try await tasks().sorted() == ["running", "running", "stopping"], "nobody knows what it serves")
                try await cluster.pause(behind, false)
                try await eventually("the others have followed") { try await tasks() == ["running", "running"] }
                try await cluster.waitState("ready", of: behind, seenBy: home)

                // One that is down serves nobody; after how long it is, is for people to say.
                let set = try await home.json("cluster", "set", "--down-after", "4s")
                #expect(set["down_after"].string == "4s")
                let refused = try await home.cli("cluster", "set", "--down-after", "1s")
                #expect(refused.status == 2 && refused.stderr.contains("between 3 seconds and an hour"), "\(refused)")
                try await cluster.pause(behind, true)
                try await home.cli("app", "scale", "web", "1", "--no-wait").checked()
                try await cluster.waitState("down", of: behind, seenBy: home)
                try await eventually("it is not waited for") { try await tasks() == ["running"] }
                try await cluster.pause(behind, false)
            }
        }

        @Test func `whoever is lost, writes go on and the vote is given to another`() async throws {
            try await withDevCluster("votes", nodes: 4, runtime: "simulated") { cluster in
                func voters(_ observer: TestDevCluster.Node) async throws -> [String] {
                    try await observer.json("node", "ls")["items"].array
                        .filter { $0["role"].string == "voter" }.map { $0["name"].string ?? "" }.sorted()
                }
                let first = cluster.nodes[0]
                try await eventually("three of four vote") { try await voters(first).count == 3 }
                let before = try await voters(first)
                // Another than the one asked.
                guard let lost = cluster.nodes.last(where: { before.contains($0.name) && $0.name != first.name }) else {
                    throw TestFailure("nobody votes: \(before)")
                }
                try await cluster.pause(lost, true)
                try await first.cli("config", "set", "a", "1").checked()
                try await eventually("another votes instead", within: .seconds(30)) {
                    let now = try await voters(first)
                    return now.count == 3 && !now.contains(lost.name)
                }
                try await cluster.pause(lost, false)
                try await cluster.waitState("ready", of: lost, seenBy: first)
                try await eventually("it has what was written meanwhile") {
                    try await lost.cli("config", "get", "a", "--consistency", "local").stdout.contains("1")
                }
                // Zones are named late: the one that is alone in its zone gets a vote, until it is not to vote at all.
                try await eventually("three of four vote") { try await voters(first).count == 3 }
                let votes = try await voters(first)
                guard let alone = cluster.nodes.first(where: { !votes.contains($0.name) }) else {
                    throw TestFailure("all vote: \(votes)")
                }
                for node in cluster.nodes {
                    let zone = node.name == alone.name ? "zone=b" : "zone=a"
                    try await first.cli("node", "label", node.name, zone).checked()
                }
                try await eventually("zone b votes, too") {
                    let now = try await voters(first)
                    return now.count == 3 && now.contains(alone.name)
                }
                try await first.cli("node", "role", alone.name, "observer").checked()
                try await eventually("it does not vote") {
                    let now = try await voters(first)
                    return now.count == 3 && !now.contains(alone.name)
                }
            }
        }
    }
}
