// SPDX-License-Identifier: Apache-2.0
import Glibc
import TestSupport
import Testing

extension BlackBox {
    /// All machines are lost, most of the voters are lost, all certificates have expired.
    @Suite struct Disaster {
        private static func ended(_ cluster: TestDevCluster, _ nodes: some Sequence<TestDevCluster.Node>) async throws {
            for node in nodes { try await cluster.kill9(node) }
        }

        private static func lost(_ cluster: TestDevCluster, _ nodes: some Sequence<TestDevCluster.Node>) async throws {
            try await ended(cluster, nodes)
            for node in nodes { try await Shell.run(["rm", "-rf", node.dataDir]).checked() }
        }

        private static func inside(_ node: TestDevCluster.Node, _ arguments: String...) async throws -> ShellOutput {
            try await Shell.run(
                ["nsenter", "--net=/run/netns/\(node.netns)", "--", Repository.binary] + arguments,
                timeout: .seconds(60))
        }

        private static func ready(_ cluster: TestDevCluster, _ count: Int, seenBy node: TestDevCluster.Node)
            async throws
        {
            try await eventually("\(count) nodes are ready", within: .seconds(40)) {
                try await cluster.states(seenBy: node).values.count { $0 == "ready" } == count
            }
        }

        @Test func `a cluster of which nothing is left but a backup comes back on empty machines`() async throws {
            try await withDevCluster("restore", nodes: 3, runtime: "simulated") { cluster in
                let (first, second, third) = (cluster.nodes[0], cluster.nodes[1], cluster.nodes[2])
                try await second.cli(
                    "app", "deploy", "web", "--image", "example/web:1", "--replicas", "4", "--port", "8080:80"
                ).checked()
                try await second.cli("volume", "create", "data").checked()
                try await second.cli("config", "set", "greeting", "hello").checked()
                let token = try await first.json("auth", "token", "create", "--role", "viewer")["id"].string ?? ""
                let join = try await first.json("cluster", "token", "create")["token"].string ?? ""
                func apps(_ node: TestDevCluster.Node) async throws -> [String] {
                    try await node.json("app", "ls")["items"].array.map {
                        "\($0["name"].string ?? "") \($0["image"].string ?? "") \($0["status"].string ?? "")"
                            + " \($0["replicas"]["ready"].int ?? -1) \($0["vip"].string ?? "")"
                    }
                }
                let before = try await apps(second)
                let backup = cluster.directory.file("b.backup"), code = cluster.directory.file("code")
                try await third.cli("admin", "backup", backup).checked()
                let mode = try await Shell.run(["stat", "-c", "%a", backup]).checked().stdout
                #expect(mode.hasPrefix("600"), "\(mode)")
                let again = try await third.cli("admin", "backup", backup)
                #expect(again.status == 7 && again.stderr.contains("--force"), "\(again)")
                try await Shell.run(["cp", "\(first.dataDir)/identity/cluster.key", code]).checked()
                try await Self.lost(cluster, cluster.nodes)

                // Cut and flipped copies are refused, and leave the machine as empty as it was.
                let bad = cluster.directory.file("bad.backup")
                for damage in ["head -c 5000 \(backup)", "tr 'h' 'j' <\(backup)"] {
                    try await Shell.run(["sh", "-c", "\(damage) >\(bad)"]).checked()
                    let refused = try await Self.inside(first, "admin", "restore", bad, "--data-dir", first.dataDir)
                    #expect(refused.status == 7 && refused.stderr.contains("hint: "), "\(refused)")
                }
                let done = try await Self.inside(
                    first, "admin", "restore", backup, "--data-dir", first.dataDir, "--node", "node1",
                    "--recovery-code-file", code)
                #expect(done.succeeded, "\(done)")
                try await cluster.start(first)
                try await eventually("the apps are as they were, on one machine", within: .seconds(60)) {
                    let places = try await cluster.places(of: "web", seenBy: first)
                    return try await apps(first) == before && places.filter { $0 == "node1" }.count == 4
                }
                #expect(try await first.cli("config", "get", "greeting").checked().stdout.contains("hello"))
                #expect(try await first.json("volume", "ls")["items"].array.count == 1)
                #expect(try await first.json("auth", "token", "ls")["items"].array.first?["id"].string == token)

                // The machines come back empty. The old join token is good still: the authority is the same.
                for node in [second, third] {
                    try await first.cli("node", "remove", node.name, "--yes").checked()
                    try await cluster.start(node)
                    try await eventually("\(node.name) is there") { try await node.cli("status").succeeded }
                    try await node.cli("cluster", "join", join, "--advertise", node.address).checked()
                }
                try await Self.ready(cluster, 3, seenBy: third)
                #expect(try await apps(third) == before)
                try await eventually("all vote") {
                    try await first.json("cluster", "status")["members"].array.count { $0["role"].string == "voter" }
                        == 3
                }
                let used = try await Self.inside(first, "admin", "restore", backup, "--data-dir", first.dataDir)
                #expect(used.status == 7, "\(used)")
            }
        }

        @Test func `a node alone that was restored begins a cluster, and others join it`() async throws {
            try await withDevCluster("lone", nodes: 2, runtime: "simulated") { cluster in
                let (first, second) = (cluster.nodes[0], cluster.nodes[1])
                try await second.cli("cluster", "leave", "--yes").checked()
                try await eventually("it is alone") { try await second.cli("config", "set", "kept", "1").succeeded }
                let path = try await second.json("cluster", "snapshot", "save")["path"].string ?? ""
                let place = cluster.directory.file("copy")
                let name = path.split(separator: "/").last.map { String($0) } ?? ""
                try await Shell.run(["mkdir", place]).checked()
                for end in [".sqlite", ".manifest"] {
                    let file = path.replacing(".sqlite", with: end)
                    try await Shell.run(["cp", file, "\(place)/\(name.replacing(".sqlite", with: end))"]).checked()
                }
                try await Self.lost(cluster, [second])
                let done = try await Self.inside(
                    second, "cluster", "snapshot", "restore", "\(place)/\(name)", "--data-dir", second.dataDir)
                #expect(done.succeeded, "\(done)")
                try await cluster.start(second)
                try await eventually("it has what it had") {
                    try await second.cli("config", "get", "kept").stdout.contains("1")
                }
                try await second.cli("cluster", "init", "--advertise", second.address).checked()
                let join = try await second.json("cluster", "token", "create")["token"].string ?? ""
                try await first.cli("cluster", "leave", "--yes").checked()
                try await first.cli("cluster", "join", join, "--advertise", first.address).checked()
                try await Self.ready(cluster, 2, seenBy: first)
                #expect(try await first.cli("config", "get", "kept").checked().stdout.contains("1"))
            }
        }

        /// Ends everything of a machine and empties it.
        private static func emptied(_ node: TestDevCluster.Node) async throws {
            let pids = try await Shell.run(["ip", "netns", "pids", node.netns]).checked().stdout
                .split(separator: "\n").compactMap { Int32($0) }
            for pid in pids { kill(pid, SIGKILL) }
            try await eventually("all of \(node.name) is gone") { !pids.contains { Host.isAlive($0) } }
            try await Shell.run(["find", node.dataDir, "-mindepth", "1", "-delete"]).checked()
        }

        @Test(.enabled(if: Host.canRunContainers))
        func `living nodes find a cluster that was restored, and go on with what they run`() async throws {
            try await withDevCluster("found", nodes: 4) { cluster in
                let (first, third, fourth) = (cluster.nodes[0], cluster.nodes[2], cluster.nodes[3])
                let archive = cluster.directory.file("hello.tar")
                try await TestImage.hello.archive(to: archive)
                for node in cluster.nodes { try await node.cli("image", "import", archive).checked() }
                try await first.cli(
                    "app", "deploy", "hello", "--image", "docker.io/hivemind/hello:1.0", "--replicas", "2",
                    "--constraint", "node.hostname != node1", "--constraint", "node.hostname != node2"
                ).checked()
                func running(_ seenBy: TestDevCluster.Node) async throws -> [String: Int] {
                    Dictionary(
                        try await seenBy.json("ps", "hello")["items"].array.filter { $0["state"].string == "running" }
                            .map { ($0["id"].string ?? "", $0["pid"].int ?? 0) },
                        uniquingKeysWith: { first, _ in first })
                }
                let before = try await running(first)
                #expect(before.count == 2)
                let backup = cluster.directory.file("b.backup"), code = cluster.directory.file("code")
                try await first.cli("admin", "backup", backup).checked()
                try await Shell.run(["cp", "\(first.dataDir)/identity/cluster.key", code]).checked()
                let old = try await fourth.json("cluster", "status")["id"].string
                try await first.cli("config", "set", "later", "1").checked()

                // Two of three voters are lost, one is off for a while, the fourth node goes on and votes for nobody.
                #expect(
                    try await first.json("cluster", "status")["members"].array.filter { $0["role"].string == "voter" }
                        .compactMap { $0["name"].string }.sorted() == ["node1", "node2", "node3"])
                for node in cluster.nodes.prefix(2) { try await Self.emptied(node) }
                try await cluster.kill9(third)
                let done = try await Self.inside(
                    first, "admin", "restore", backup, "--data-dir", first.dataDir, "--node", "node1",
                    "--recovery-code-file", code)
                #expect(done.succeeded, "\(done)")
                try await cluster.start(first)
                try await cluster.start(third)
                try await eventually("two nodes have found it", within: .seconds(40)) {
                    guard try await first.cli("status").succeeded else {
                        throw TestFailure(
                            cluster.log(of: first).split(separator: "\n").suffix(5).joined(separator: "\n"))
                    }
                    let states = try await cluster.states(seenBy: first)
                    return ["node1", "node3", "node4"].allSatisfy { states[$0] == "ready" }
                }
                for (task, pid) in before {
                    #expect(Host.isAlive(Int32(pid)), "the container of \(task) was not touched")
                }
                for node in [first, third, fourth] {
                    try await eventually("\(node.name) knows the same tasks, with the same processes") {
                        try await running(node) == before
                    }
                    let id = try await node.json("cluster", "status")["id"].string
                    #expect(id != nil && id != old, "\(node.name) is in the new cluster")
                    #expect(try await node.cli("config", "get", "later").status == 6, "it was not in the backup")
                }
                try await eventually("all vote again") {
                    try await third.json("cluster", "status")["members"].array.count { $0["role"].string == "voter" }
                        == 3
                }
                try await third.cli("config", "set", "after", "1").checked()
                try await fourth.cli("app", "scale", "hello", "1").checked()
                try await fourth.cli("app", "delete", "hello", "--yes").checked()
            }
        }

        @Test(.enabled(if: Host.canRunContainers))
        func `a survivor is made a cluster, the others follow it by themselves and every container runs on`()
            async throws
        {
            try await withDevCluster("recover", nodes: 4) { cluster in
                let (survivor, other) = (cluster.nodes[2], cluster.nodes[3])
                let archive = cluster.directory.file("hello.tar")
                try await TestImage.hello.archive(to: archive)
                for node in cluster.nodes { try await node.cli("image", "import", archive).checked() }
                try await survivor.cli(
                    "app", "deploy", "hello", "--image", "docker.io/hivemind/hello:1.0", "--replicas", "4"
                ).checked()
                #expect(try await cluster.places(of: "hello", seenBy: other) == ["node1", "node2", "node3", "node4"])
                func pids(_ seenBy: TestDevCluster.Node) async throws -> [String: Int] {
                    let tasks = try await seenBy.json("ps", "hello")["items"].array.filter {
                        ["node3", "node4"].contains($0["node"].string) && $0["state"].string == "running"
                    }
                    return Dictionary(
                        tasks.map { ($0["id"].string ?? "", $0["pid"].int ?? 0) },
                        uniquingKeysWith: { first, _ in first })
                }
                let before = try await pids(survivor)
                #expect(before.count == 2 && before.values.allSatisfy { Host.isAlive(Int32($0)) })

                // Two of three voters, for ever; the fourth node only follows.
                try await Self.ended(cluster, cluster.nodes.prefix(2))
                try await cluster.kill9(survivor)
                let done = try await Self.inside(
                    survivor, "cluster", "recover", "--yes", "--data-dir", survivor.dataDir)
                #expect(done.succeeded, "\(done)")
                try await cluster.start(survivor)
                try await eventually("the other node follows", within: .seconds(40)) {
                    guard try await cluster.states(seenBy: survivor)["node4"] == "ready" else { return false }
                    return try await other.json("status")["leader"].string == "node3"
                }
                for (task, pid) in before {
                    #expect(Host.isAlive(Int32(pid)), "the container of \(task) was not touched")
                }
                try await eventually("both know the same tasks, with the same processes") {
                    let (here, there) = (try await pids(survivor), try await pids(other))
                    return before.allSatisfy { here[$0.key] == $0.value && there[$0.key] == $0.value }
                }
                try await other.cli("config", "set", "after", "1").checked()
                let ids = try await [survivor, other].asyncMap { try await $0.json("cluster", "status")["id"].string }
                #expect(ids[0] != nil && ids[0] == ids[1], "their states are of one cluster: \(ids)")
                // What was lost is given up, and the machines may come anew.
                for node in cluster.nodes.prefix(2) {
                    try await survivor.cli("node", "remove", node.name, "--yes").checked()
                }
                try await eventually("what they ran runs elsewhere", within: .seconds(30)) {
                    try await cluster.places(of: "hello", seenBy: survivor).count == 4
                }
                for pid in before.values { #expect(Host.isAlive(Int32(pid)), "still") }
                try await survivor.cli("app", "delete", "hello", "--yes").checked()
            }
        }

        @Test(.enabled(if: Host.program("clang") != nil, "needs clang, which Swift brings"))
        func `a cluster that was off until all certificates expired comes back, a removed node does not`() async throws
        {
            try await withDevCluster("expired", nodes: 4, runtime: "simulated") { cluster in
                let (first, third, last) = (cluster.nodes[0], cluster.nodes[2], cluster.nodes[3])
                try await first.cli("config", "set", "kept", "1").checked()
                try await Self.ended(cluster, [last])
                try await first.cli("node", "remove", "node3", "--yes").checked()
                try await Self.ended(cluster, cluster.nodes.prefix(3))
                // Whoever votes for less than a moment may lack the key: one that holds it must do for all.
                for node in cluster.nodes.dropFirst() {
                    try await Shell.run(["rm", "-f", "\(node.dataDir)/identity/cluster.key"]).checked()
                }
                let clock = try await ShiftedClock(seconds: 100 * 86_400, in: cluster.directory)
                for node in cluster.nodes { try await cluster.start(node, clock: clock) }
                let good = [cluster.nodes[0], cluster.nodes[1], last]
                try await Self.ready(cluster, 3, seenBy: first)
                try await eventually("each shows another certificate") {
                    let items = try await last.json("security", "certs", "status")["items"].array
                    return items.count == 3 && items.allSatisfy { ($0["days_left"].int ?? -1) > -11 }
                        && Set(items.compactMap { $0["serial"].string }).count == 3
                }
                for node in good { #expect(cluster.log(of: node).contains("has expired"), "\(node.name)") }
                #expect(try await last.cli("config", "get", "kept").checked().stdout.contains("1"))
                try await last.cli("config", "set", "more", "2").checked()
                try await eventually("the removed one is told so") {
                    if ["was removed", "were removed"].contains(where: { cluster.log(of: third).contains($0) }) {
                        return true
                    }
                    return try await third.cli("status").stdout.contains("removed this node")
                }
            }
        }

        @Test func `snapshots are taken by schedule, and those by hand stay`() async throws {
            try await withTestDaemon("scheduled", ["--runtime", "simulated", "--snapshot-interval", "1s"]) { daemon in
                func kinds() async throws -> [String: Int] {
                    try await daemon.json("cluster", "snapshot", "ls")["items"].array
                        .reduce(into: [:]) { $0[$1["kind"].string ?? "", default: 0] += 1 }
                }
                let manual = try await daemon.json("cluster", "snapshot", "save")["name"].string
                var writes = 0
                var newest = 0, seen: Set<String> = []
                try await eventually("more than are kept were taken", within: .seconds(40)) {
                    writes += 1
                    try await daemon.cli("config", "set", "n", "\(writes)").checked()
                    let list = try await daemon.json("cluster", "snapshot", "ls")["items"].array
                    seen.formUnion(list.filter { $0["kind"].string == "scheduled" }.compactMap { $0["name"].string })
                    newest = list.first?["index"].int ?? 0
                    return seen.count >= 9
                }
                #expect(newest > 0)
                let now = try await kinds()
                #expect(now["scheduled"] == 7 && now["manual"] == 1, "\(now)")
                #expect(
                    try await daemon.json("cluster", "snapshot", "ls")["items"].array.contains {
                        $0["name"].string == manual && $0["kind"].string == "manual"
                    })
            }
        }

        @Test func `every command about backing up and restoring works`() async throws {
            let path = "docs/how-to/back-up-and-restore.md"
            let (make, restore) = (try Document(path, below: "## Back up"), try Document(path, below: "## Restore"))
            try #require(make.script.contains("hivemind admin backup") && restore.script.contains("admin restore"))
            try await withDevCluster("vault", nodes: 2, runtime: "simulated") { cluster in
                let node = cluster.nodes[0]
                try await node.cli("app", "deploy", "web", "--image", "example/web:1").checked()
                try await Shell.run(
                    ["cp", "\(node.dataDir)/identity/cluster.key", cluster.directory.file("recovery-code")]
                ).checked()
                let programs = Repository.binary.split(separator: "/").dropLast().joined(separator: "/")
                // What the reader has: root, a service that starts the daemon.
                let reader = """
                    PATH=/\(programs):$PATH
                    sudo() { "$@"; }
                    systemctl() {
                        setsid \(Repository.binary) daemon --data-dir \(node.dataDir) --socket \(node.socket) \
                    --node-name \(node.name) --runtime simulated >>\(cluster.directory.file("dev"))/\(node.name).log 2>&1 </dev/null &
                        timeout 20 sh -c 'until curl -sf --unix-socket \(node.socket) http://localhost/ready; do :; done'
                    }

                    """
                func run(_ document: Document) async throws -> ShellOutput {
                    try await Shell.run(
                        ["nsenter", "--net=/run/netns/\(node.netns)", "--", "bash", "-euo", "pipefail", "-c"]
                            + [reader + document.script],
                        environment: ["HIVEMIND_SOCKET": node.socket, "HIVEMIND_DATA_DIR": node.dataDir],
                        directory: cluster.directory.path, timeout: .seconds(120))
                }
                let made = try await run(make)
                #expect(made.succeeded, "\(made)")
                try await Self.lost(cluster, cluster.nodes)
                let done = try await run(restore)
                #expect(done.succeeded && done.stdout.contains("hivemind cluster join hmj_"), "\(done)")
                try await eventually("the app runs") { try await cluster.places(of: "web", seenBy: node) == ["node1"] }
            }
        }
    }
}

extension Array {
    fileprivate func asyncMap<Value>(_ body: (Element) async throws -> Value) async throws -> [Value] {
        var values: [Value] = []
        for element in self { values.append(try await body(element)) }
        return values
    }
}
