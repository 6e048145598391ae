// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

/// Commands in the documents are run as they stand, in order.
struct Document {
    /// Commands that the rig has done already: it built the program and started a daemon.
    static let done = ["make build", "make demo", "make test", "make help", "sudo .build/release/hivemind daemon &"]
    /// Commands of one block: "```sh" or "```sh MACHINE". One marked "```console" or "```text" is not run.
    struct Block {
        var machine: String
        var script: String
    }

    let path: String
    let blocks: [Block]
    let skipped: [String]

    /// - Parameter heading: only what stands below this line, up to the next heading like it; nil: all.
    init(_ path: String, below heading: String? = nil) throws {
        self.path = path
        var blocks: [Block] = []
        var skipped: [String] = []
        var inside = false
        var counts = heading == nil
        for line in try Repository.text(path).split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("## "), let heading { counts = line == heading }
            guard counts else { continue }
            if line.hasPrefix("```") {
                let words = line.dropFirst(3).split(separator: " ")
                inside = words.first == "sh"
                if inside { blocks.append(Block(machine: words.dropFirst().joined(separator: " "), script: "")) }
            } else if inside {
                if Self.done.contains(String(line)) {
                    skipped.append(String(line))
                } else {
                    blocks[blocks.count - 1].script += line + "\n"
                }
            }
        }
        self.blocks = blocks
        self.skipped = skipped
    }

    var script: String { blocks.map(\.script).joined() }

    /// Runs a script as a reader would, with the programs in `PATH`.
    static func run(
        _ script: String, prefix: [String] = [], environment: [String: String], directory: String? = nil
    ) async throws -> ShellOutput {
        let programs = Repository.binary.split(separator: "/").dropLast().joined(separator: "/")
        return try await Shell.run(
            prefix + ["bash", "-euxo", "pipefail", "-c", "PATH=/\(programs):$PATH\n" + script],
            environment: environment, directory: directory, timeout: .seconds(300))
    }
}

extension BlackBox {
    @Suite struct Documents {
        @Test(arguments: ["README.md", "docs/tutorials/first-app.md", "docs/how-to/back-up-a-volume.md"])
        func `every command of the document works`(path: String) async throws {
            let document = try Document(path)
            try #require(document.script.contains("hivemind "), "\(path) has commands")
            try await withTestDaemon("docs") { daemon in
                // The reader stands in the repository; files the commands make do not belong there.
                let folder = daemon.directory.file("reader")
                try await Shell.run(["mkdir", folder]).checked()
                try await Shell.run(["ln", "-s", Repository.script(""), "\(folder)/scripts"]).checked()
                let output = try await Document.run(
                    document.script, prefix: daemon.node.prefix, environment: ["HIVEMIND_SOCKET": daemon.socket],
                    directory: folder)
                #expect(output.succeeded, "\(path):\n\(output.stderr)\n\(output.stdout)")
                // A tutorial leaves the machine as it found it.
                #expect(try await daemon.json("app", "ls").items.isEmpty, "\(path) leaves apps behind")
                #expect(try await daemon.json("volume", "ls").items.isEmpty, "\(path) leaves volumes behind")
            }
        }

        @Test func `every command about forming a cluster works`() async throws {
            let document = try Document("docs/how-to/form-a-cluster.md")
            try #require(document.blocks.contains { $0.script.contains("cluster join hmj_…") })
            try await withDevCluster("forming", nodes: 3, runtime: "simulated") { cluster in
                // Three machines that are nodes alone, as the reader has.
                for node in cluster.nodes.reversed() { try await node.cli("cluster", "leave", "--yes").checked() }
                let machines = Dictionary(uniqueKeysWithValues: zip(["alpha", "beta", "gamma"], cluster.nodes))
                var token = ""
                for block in document.blocks {
                    let node = try #require(machines[block.machine], "nobody is called \(block.machine)")
                    var script = block.script.replacing("hmj_…", with: token)
                    for (name, other) in machines { script = script.replacing(name, with: other.name) }
                    for (place, other) in cluster.nodes.enumerated() {
                        script = script.replacing("10.0.0.\(place + 1)", with: other.address)
                    }
                    if script.contains("node remove"), let gamma = machines["gamma"] {
                        try await gamma.cli("cluster", "join", token, "--advertise", gamma.address).checked()
                        try await cluster.kill9(gamma)
                    }
                    let output = try await Document.run(script, environment: ["HIVEMIND_SOCKET": node.socket])
                    #expect(output.succeeded, "\(script):\n\(output.stderr)\n\(output.stdout)")
                    if let line = output.stdout.firstRange(of: "hmj_"), token.isEmpty {
                        token = String(output.stdout[line.lowerBound...].prefix { !$0.isWhitespace })
                    }
                }
                #expect(try await cluster.states(seenBy: cluster.nodes[0]) == ["node1": "ready"])
            }
        }

        @Test func `every command about failed deploys, the log and the end of a node works`() async throws {
            let why = try Document("docs/how-to/find-out-why-a-deploy-failed.md")
            let check = try Document("docs/how-to/check-a-log.md")
            let remove = try Document("docs/how-to/remove-hivemind.md")
            try #require(!why.script.isEmpty && !check.script.isEmpty && remove.blocks.count == 2)
            try await withNode("docs") { daemon, registry in
                let folder = daemon.directory.file("reader")
                try await Shell.run(["mkdir", folder]).checked()
                try await Shell.run(["ln", "-s", Repository.script(""), "\(folder)/scripts"]).checked()
                let environment = ["HIVEMIND_SOCKET": daemon.socket, "HIVEMIND_DATA_DIR": daemon.dataDirectory]
                func read(_ script: String) async throws -> ShellOutput {
                    let output = try await Document.run(
                        script.replacing("sudo ", with: "").replacing(
                            "/var/lib/hivemind", with: daemon.dataDirectory), prefix: daemon.node.prefix,
                        environment: environment, directory: folder)
                    #expect(output.succeeded, "\(script):\n\(output.stderr)\n\(output.stdout)")
                    return output
                }
                let failed = try await daemon.cli("app", "deploy", "hello", "--image", try await registry.push(.crash))
                #expect(failed.status == 9, "\(failed)")
                #expect(try await read(why.script).stdout.contains("fatal: database is not reachable"))
                try await daemon.stop()
                #expect(try await read(check.script).stdout.contains("clean"))
                try await daemon.start()
                _ = try await read(remove.blocks[0].script)
                #expect(try await daemon.json("app", "ls").items.isEmpty)
                try await daemon.stop()
                _ = try await read(remove.blocks[1].script)
                #expect(try await Shell.run(["test", "-e", daemon.dataDirectory]).status != 0)
                let left = try await Shell.run(["pgrep", "-f", daemon.dataDirectory])
                #expect(left.stdout.isEmpty, "\(left.stdout)")
            }
        }

        @Test func `every command about using a cluster from elsewhere works`() async throws {
            let document = try Document("docs/how-to/use-a-cluster-from-elsewhere.md")
            try #require(document.script.contains("hivemind "))
            try await withDevCluster("elsewhere", nodes: 1, runtime: "simulated") { cluster in
                let node = cluster.nodes[0]
                let output = try await Document.run(
                    document.script,
                    environment: [
                        "HIVEMIND_SOCKET": node.socket, "HIVEMIND_CONFIG_DIR": cluster.directory.file("config"),
                        "no_proxy": "*",
                    ], directory: cluster.directory.path)
                #expect(output.succeeded, "\(output.stderr)\n\(output.stdout)")
                #expect(output.stdout.contains("\"items\""), "the API answers to curl: \(output.stdout)")
                #expect(try await node.json("auth", "token", "ls")["items"].array.isEmpty)
            }
        }

        @Test func `every command about placing apps works, and what is drained or uneven moves`() async throws {
            let document = try Document("docs/how-to/place-apps-on-nodes.md")
            try #require(document.script.contains("hivemind app rebalance"))
            try await withDevCluster("placing", nodes: 3, runtime: "simulated") { cluster in
                let node = cluster.nodes[0]
                let programs = Repository.binary.split(separator: "/").dropLast().joined(separator: "/")
                let output = try await Shell.run(
                    ["bash", "-euxo", "pipefail", "-c", "PATH=/\(programs):$PATH\n" + document.script],
                    environment: ["HIVEMIND_SOCKET": node.socket], directory: cluster.directory.path,
                    timeout: .seconds(180))
                #expect(output.succeeded, "\(output.stderr)\n\(output.stdout)")

                // Nothing is uneven, then much is.
                let none = try await node.cli("app", "rebalance").checked()
                #expect(none.stdout.contains("nothing to move"), "\(none)")
                try await node.cli("node", "label", "node1", "zone-", "disk-").checked()
                try await node.cli("node", "label", "node2", "zone-", "disk-").checked()
                try await node.cli("node", "label", "node3", "zone-").checked()
                try await node.cli("node", "cordon", "node3").checked()
                try await node.cli("app", "deploy", "web", "--image", "nginx:1.27", "--replicas", "6").checked()
                try await node.cli("node", "uncordon", "node3").checked()
                let plan = try await node.json("app", "rebalance", "web", "--dry-run")
                #expect(plan["moves"].array.count == 2, "\(plan)")
                #expect(plan["moves"].array.allSatisfy { $0["to"].string == "node3" && $0["why"].string != nil })
                try await node.cli("app", "rebalance", "web").checked()
                let places = try await node.json("ps", "web")["items"].array.compactMap { $0["node"].string }
                #expect(places.sorted() == ["node1", "node1", "node2", "node2", "node3", "node3"])

                // Waiting ends with what is waited for.
                let nowhere = try await node.cli(
                    "app", "deploy", "nowhere", "--image", "nginx:1.27", "--constraint", "node.labels.moon == full",
                    "--timeout", "3s")
                #expect(nowhere.status == 10 && nowhere.stderr.contains("does not meet"), "\(nowhere)")
                try await node.cli("app", "delete", "nowhere", "--yes").checked()
                // A port of a node is given once: the second names the first.
                let port = "target=80,published=9000,mode=host"
                try await node.cli(
                    "app", "deploy", "first", "--image", "nginx:1.27", "--replicas", "2", "--port", port
                ).checked()
                try await node.cli(
                    "app", "deploy", "second", "--image", "nginx:1.27", "--replicas", "2", "--port", port, "--no-wait"
                ).checked()
                try await eventually("one of two finds a node, and the other says why not") {
                    let why = try await node.cli("why", "app", "second").stdout
                    return try await node.json("ps", "second")["items"].array.count == 1
                        && why.contains("port 9000/tcp is taken by service `first` of `first`")
                }
                let all = try await node.cli(
                    "app", "deploy", "third", "--image", "nginx:1.27", "--port", "9000:80")
                #expect(all.status == 7 && all.stderr.contains("port 9000/tcp is published by app"), "\(all)")
                for app in ["first", "second"] { try await node.cli("app", "delete", app, "--yes").checked() }

                // A volume stays, and drain says so at once.
                try await node.cli(
                    "app", "deploy", "db", "--image", "nginx:1.27", "--volume", "data:/data", "--constraint",
                    "node.hostname == node2"
                ).checked()
                let drain = try await node.cli("node", "drain", "node2")
                #expect(drain.status == 7 && drain.stderr.contains("of app db"), "\(drain)")
                #expect(drain.stderr.contains("writes a volume"), "\(drain)")
                try await node.cli("app", "delete", "db", "--yes").checked()
                // No other node takes it.
                try await node.cli("node", "uncordon", "node2").checked()
                try await node.cli(
                    "app", "deploy", "pinned", "--image", "nginx:1.27", "--constraint", "node.hostname == node2"
                ).checked()
                let pinned = try await node.cli("node", "drain", "node2")
                #expect(pinned.status == 7 && pinned.stderr.contains("no node takes its replacement"), "\(pinned)")
            }
        }

        @Test func `every command of the first cluster works, on this machine as it is`() async throws {
            let document = try Document("docs/tutorials/first-cluster.md")
            try await withTemporaryDirectory("docs") { directory in
                try await Shell.run(["ln", "-s", Repository.script(""), directory.file("scripts")]).checked()
                let clean = "trap 'hivemind dev cluster down >/dev/null 2>&1 || true' EXIT\n"
                let output = try await Document.run(
                    clean + document.script, environment: [:], directory: directory.path)
                #expect(output.succeeded, "\(output.stderr)\n\(output.stdout)")
                #expect(output.stdout.components(of: "hello 1.0 from") == 3, "each node answers: \(output.stdout)")
                let left = try await Shell.run(["sh", "-c", "ip netns list; ip -br link; ls -d /var/lib/hivemind-dev"])
                #expect(!left.stdout.contains("hivedev") && !left.stdout.contains("hivemind-dev"), "\(left.stdout)")
            }
        }
    }
}

extension String {
    fileprivate func components(of part: String) -> Int { ranges(of: part).count }
}
