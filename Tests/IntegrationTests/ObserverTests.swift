// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension BlackBox {
    /// Nodes outside of the log: they have what is agreed, whoever of the members is lost.
    @Suite struct Observers {
        private func roles(_ observer: TestDevCluster.Node) async throws -> [String: String] {
            let list = try await observer.json("node", "ls")["items"].array
            return Dictionary(
                list.map { ($0["name"].string ?? "", $0["role"].string ?? "") },
                uniquingKeysWith: { first, _ in first })
        }

        private func count(_ role: String, seenBy node: TestDevCluster.Node) async throws -> Int {
            try await roles(node).values.count { $0 == role }
        }

        private func value(_ key: String, at node: TestDevCluster.Node) async throws -> String {
            try await node.cli("config", "get", key, "--consistency", "local").stdout
        }

        @Test func `nodes beyond five voters and two standbys observe, and follow whoever is left`() async throws {
            try await withDevCluster("observers", nodes: 9, runtime: "simulated") { cluster in
                let first = cluster.nodes[0]
                try await eventually("five vote, two stand by, two observe", within: .seconds(30)) {
                    let counts = (
                        try await count("voter", seenBy: first), try await count("standby", seenBy: first),
                        try await count("observer", seenBy: first)
                    )
                    return counts == (5, 2, 2)
                }
                let names = try await roles(first).filter { $0.value == "observer" }.keys.sorted()
                let observers = cluster.nodes.filter { names.contains($0.name) }
                let own = try await observers[0].json("status")
                #expect(own["role"].string == "observer")
                let members = try await observers[1].json("cluster", "status")["members"].array
                #expect(members.count == 9 && members.count { $0["role"].string == "observer" } == 2)

                // Writes through an observer, read as current through the other one.
                for round in 0..<5 {
                    try await observers[0].cli("config", "set", "a", "\(round)").checked()
                    #expect(
                        try await observers[1].cli("config", "get", "a").checked().stdout.contains("\(round)"))
                }
                // Tasks run there as anywhere.
                try await observers[0].cli(
                    "app", "deploy", "web", "--image", "example.com/web:1", "--replicas", "9"
                ).checked()
                let places = Set(try await cluster.places(of: "web", seenBy: observers[1]))
                #expect(places.isSuperset(of: names), "\(places)")

                // Whoever leads is lost, and whoever is followed: each observer follows one member, and two are lost.
                let leader = try await first.json("cluster", "status")["leader"].string ?? ""
                let lost = [
                    cluster.nodes.first { $0.name == leader },
                    cluster.nodes.last { !names.contains($0.name) && $0.name != leader },
                ].compactMap { $0 }
                for node in lost { try await cluster.kill9(node) }
                try await observers[0].cli("config", "set", "a", "after", timeout: .seconds(30)).checked()
                for observer in observers {
                    try await eventually("\(observer.name) follows") {
                        try await value("a", at: observer).contains("after")
                    }
                }
                let witness = observers[0]
                try await eventually("others vote in their place", within: .seconds(30)) {
                    let now = try await roles(witness)
                    return now.values.count { $0 == "voter" } == 5 && lost.allSatisfy { now[$0.name] != "voter" }
                }

                // An observer that was away goes on where it was.
                guard
                    let away = cluster.nodes.first(where: {
                        names.contains($0.name) && $0.name != witness.name
                    })
                else { throw TestFailure("no second observer") }
                try await cluster.kill9(away)
                for round in 0..<20 { try await witness.cli("config", "set", "b", "\(round)").checked() }
                try await cluster.start(away)
                try await eventually("it has what was written meanwhile") {
                    try await value("b", at: away).contains("19")
                }
                for node in lost { try await cluster.start(node) }
                for node in lost { try await cluster.waitState("ready", of: node, seenBy: witness) }
                for node in lost {
                    try await eventually("\(node.name) has it, too") {
                        try await value("b", at: node).contains("19")
                    }
                }
            }
        }

        @Test func `pinned, a node observes in a small cluster, and is removed like any other`() async throws {
            try await withDevCluster("pinned", nodes: 3, runtime: "simulated") { cluster in
                let (first, last) = (cluster.nodes[0], cluster.nodes[2])
                try await last.cli("cluster", "leave", "--yes").checked()
                let token = try await first.json("cluster", "token", "create", "--role", "observer")["token"].string
                try await last.cli("cluster", "join", token ?? "", "--advertise", last.address).checked()
                try await cluster.waitState("ready", of: last, seenBy: first)
                #expect(try await roles(first)["node3"] == "observer")
                #expect(try await last.json("status")["role"].string == "observer")
                try await last.cli("config", "set", "a", "1").checked()
                try await last.cli("cluster", "snapshot", "save").checked()

                // Without a majority it says so in time and goes on to read.
                let members = cluster.nodes.dropLast()
                for node in members { try await cluster.pause(node, true) }
                let refused = try await last.cli("config", "set", "a", "2", timeout: .seconds(30))
                #expect(refused.status != 0 && refused.stderr.contains("hint: "), "\(refused)")
                #expect(try await value("a", at: last).contains("1"))
                for node in members { try await cluster.pause(node, false) }
                try await eventually("changes are taken again", within: .seconds(30)) {
                    try await last.cli("config", "set", "a", "3").succeeded
                }

                // Given a vote it becomes a member, in the life it is in.
                try await Shell.run([
                    "curl", "-sS", "-f", "-m", "10", "--unix-socket", first.socket, "-X", "PATCH", "-H",
                    "Content-Type: application/merge-patch+json", "-d", #"{"role": "voter"}"#,
                    "http://localhost/v1/nodes/node3",
                ]).checked()
                try await eventually("it votes", within: .seconds(30)) {
                    try await roles(first)["node3"] == "voter"
                }
                try await last.cli("config", "set", "a", "4").checked()
                try await first.cli("node", "remove", "node3", "--yes").checked()
                #expect(try await cluster.states(seenBy: first).count == 2)
                try await eventually("it knows that it was removed") {
                    try await last.cli("status").stdout.contains("removed this node for good")
                }
            }
        }

        /// What a node's certificate says, as openssl reads it.
        private func certificate(of node: TestDevCluster.Node) async throws -> String {
            try await Shell.run(
                ["openssl", "x509", "-noout", "-text", "-in", "\(node.dataDir)/identity/node.pem"]
            ).checked().stdout
        }

        /// Task id to when it was started, of what runs on a node, as that node sees it.
        private func running(on node: TestDevCluster.Node) async throws -> [String: String] {
            let tasks = try await node.json("ps", "web")["items"].array
                .filter { $0["node"].string == node.name && $0["state"].string == "running" }
            return Dictionary(
                tasks.map { ($0["id"].string ?? "", $0["started_at"].string ?? "never") },
                uniquingKeysWith: { first, _ in first })
        }

        @Test func `when the quorum is lost for good, all others come to the survivor with everything they run`()
            async throws
        {
            try await withDevCluster("succession", nodes: 8, runtime: "simulated") { cluster in
                let first = cluster.nodes[0]
                try await eventually("five vote, one observes", within: .seconds(30)) {
                    let counts = (
                        try await count("voter", seenBy: first), try await count("observer", seenBy: first)
                    )
                    return counts == (5, 1)
                }
                try await first.cli(
                    "app", "deploy", "web", "--image", "example.com/web:1", "--replicas", "8"
                ).checked()
                try await first.cli("config", "set", "kept", "yes").checked()
                let roles = try await roles(first)
                let voters = cluster.nodes.filter { roles[$0.name] == "voter" }
                let (survivor, lost) = (voters[4], Array(voters.prefix(3)))
                let others = cluster.nodes.filter { node in
                    node.name != survivor.name && !lost.contains { $0.name == node.name }
                }
                #expect(Set(others.map { roles[$0.name] }) == ["voter", "standby", "observer"])
                var before: [String: [String: String]] = [:]
                for node in others { before[node.name] = try await running(on: node) }
                #expect(before.values.allSatisfy { !$0.isEmpty }, "\(before)")
                let old = try await first.json("cluster", "status")["id"].string

                for node in lost { try await cluster.kill9(node) }
                try await cluster.kill9(survivor)
                let recovered = try await Shell.run([
                    Repository.binary, "cluster", "recover", "--yes", "--data-dir", survivor.dataDir, "-o", "json",
                ]).checked()
                let done = try JSONValue(parsing: recovered.stdout)
                let new = done["result"]["cluster_id"].string
                #expect(new != nil && new != old)
                try await cluster.start(survivor)
                for node in others {
                    try await eventually("\(node.name) is of the new cluster", within: .seconds(60)) {
                        let status = try await node.json("cluster", "status")
                        return status["id"].string == new && status["leader"].string != nil
                    }
                    try await cluster.waitState("ready", of: node, seenBy: survivor, within: .seconds(30))
                }
                try await eventually("they vote, and it holds without the survivor", within: .seconds(60)) {
                    try await count("voter", seenBy: survivor) == 5
                }
                try await others[0].cli("config", "set", "new", "1").checked()
                for node in others {
                    #expect(try await node.cli("config", "get", "kept").checked().stdout.contains("yes"))
                    #expect(
                        try await running(on: node) == before[node.name],
                        "nothing was restarted on \(node.name)")
                }
                try await eventually("certificates are of the new cluster", within: .seconds(30)) {
                    for node in others {
                        guard try await certificate(of: node).contains(new ?? "-") else { return false }
                    }
                    return true
                }
                try await cluster.pause(survivor, true)
                try await others[1].cli("config", "set", "new", "2", timeout: .seconds(30)).checked()
                try await cluster.pause(survivor, false)
            }
        }
    }
}
