// SPDX-License-Identifier: Apache-2.0
import Foundation
import TestSupport
import Testing

extension Clusters {
    /// What operators do when members will never come back.
    @Suite struct Recover {
        @Test func `a survivor of a lost quorum goes on alone with all it has, and a snapshot becomes another cluster`()
            async throws
        {
            try await withTestCluster("recover") { cluster in
                for number in 0..<20 {
                    let put = try await cluster.members[number % 3].api(
                        "PUT", "/v1/configs/c\(number)", body: "{\"data\": \"\(number)\"}")
                    try #require(put.status / 100 == 2, "\(put)")
                }
                let survivor = cluster.members[2], name = TestCluster.name(2)
                // Everything acknowledged is on this member before the others are lost.
                #expect(try await survivor.api("GET", "/v1/configs/c19").status == 200)
                let deploy = ["app", "deploy", "web", "--image", "example/web:1", "--replicas", "2"]
                try await survivor.cli(deploy).checked()
                let snapshot = try await survivor.json("cluster", "snapshot", "save")
                let away = try cluster.directory.subdirectory("away")
                let file = try #require(snapshot["path"].string)
                for ending in ["sqlite", "manifest"] {
                    let source = file.dropLast("sqlite".count) + ending
                    try await Shell.run(["cp", String(source), away.path]).checked()
                }
                let status = try await survivor.json("cluster", "status")
                #expect(status["members"].array.count == 3, "\(status)")
                let running = try await survivor.cli([
                    "cluster", "recover", "--data-dir", survivor.dataDirectory, "--yes",
                ])
                #expect(running.status == 7 && running.stderr.contains("a daemon uses"), "\(running)")

                try await cluster.kill9(cluster.indices)
                let look = try await survivor.json(
                    "cluster", "recover", "--dry-run", "--data-dir", survivor.dataDirectory)
                #expect(
                    look["voters"].array.count == 3 && look["cluster_id"].string == TestCluster.clusterID, "\(look)")
                let last = try #require(look["last_index"].int)
                let unasked = try await survivor.cli(["cluster", "recover", "--data-dir", survivor.dataDirectory])
                #expect(unasked.status == 2 && unasked.stderr.contains("--yes"), "\(unasked)")
                let done = try await survivor.json("cluster", "recover", "--yes", "--data-dir", survivor.dataDirectory)
                #expect(done["result"]["index"].int == last + 1, "\(done)")
                #expect(done["result"]["removed"].array.count == 2, "\(done)")

                // The old list names another cluster now.
                try survivor.launch()
                #expect(try await survivor.waitEnd() != 0)
                try await withDaemon(survivor, ["--data-dir", survivor.dataDirectory], log: survivor.logFile) {
                    for number in 0..<20 {
                        let got = try await survivor.api("GET", "/v1/configs/c\(number)")
                        #expect(got.status == 200, "c\(number): \(got)")
                        #expect(try got.json()["data"].string == "\(number)")
                    }
                    let alone = try await survivor.json("cluster", "status")
                    #expect(alone["leader"].string == name && alone["members"].array.count == 1, "\(alone)")
                    #expect(alone["id"].string == done["result"]["cluster_id"].string)
                    #expect(
                        try await survivor.api("PUT", "/v1/configs/new", body: "{\"data\": \"x\"}").status / 100 == 2)
                    #expect(try await survivor.json("app", "info", "web")["name"].string == "web")
                }

                let other = cluster.directory.file("restored")
                let copy = "\(away.path)/\(file.split(separator: "/").last ?? "")"
                let made = try await survivor.json(
                    "cluster", "snapshot", "restore", copy, "--node", name, "--data-dir", other)
                #expect(made["index"].int == (snapshot["index"].int ?? 0) + 1_000_000, "\(made)")
                try await withDaemon(survivor, ["--data-dir", other], log: survivor.logFile) {
                    #expect(try await survivor.api("GET", "/v1/configs/c19").status == 200)
                    #expect(try await survivor.api("GET", "/v1/configs/new").status == 404)
                    let old = try await survivor.api("GET", "/v1/events?after=\(last)", timeoutSeconds: 5)
                    #expect(old.status == 410, "\(old)")
                }
            }
        }

        /// A daemon in the survivor's place, at its socket, while `body` runs.
        private func withDaemon(
            _ survivor: TestDaemon, _ arguments: [String], log: String, _ body: () async throws -> Void
        ) async throws {
            let command = [Repository.binary, "daemon", "--runtime", "simulated", "--socket", survivor.socket]
            let process = try ChildProcess(survivor.node.prefix + command + arguments, log: log)
            do {
                try await eventually("the daemon is ready") { try await survivor.api("GET", "/ready").status == 200 }
                try await body()
            } catch {
                try await process.kill9()
                throw error
            }
            process.signal(SIGTERM)
            #expect(try await process.wait(within: .seconds(20)) == 0)
        }

        @Test func `leadership is handed on by command, and events are followed over the change without loss`()
            async throws
        {
            try await withTestCluster("hand-on") { cluster in
                let leader = try await cluster.waitLeader()
                let follower = (leader + 1) % 3, third = (leader + 2) % 3
                let start = try await cluster.members[third].api("GET", "/v1/status").json()["applied_index"].int ?? 0
                let watching = cluster.directory.file("events.json")
                let command = [
                    Repository.binary, "events", "--kind", "config", "--after", "\(start)", "-o", "json", "--socket",
                    cluster.members[third].socket,
                ]
                let watch = try ChildProcess(cluster.members[third].node.prefix + command, log: watching)
                for round in 0..<10 {
                    let put = try await cluster.members[follower].api(
                        "PUT", "/v1/configs/n\(round)", body: "{\"data\": \"\(round)\"}")
                    #expect(put.status / 100 == 2, "\(put)")
                    if round == 3 {
                        let to = TestCluster.name(follower)
                        let moved = try await cluster.members[third].json("cluster", "transfer-leader", to)
                        #expect(moved["leader"].string == to, "\(moved)")
                        #expect(await cluster.leader() == follower)
                    }
                    // Its daemon goes and comes: the command takes the stream up again.
                    if round == 6 {
                        try await cluster.kill9(third)
                        try await cluster.start([third])
                    }
                }
                func names() throws -> [String] {
                    try cluster.directory.read("events.json").split(separator: "\n").filter { $0.hasPrefix("{") }
                        .map { try JSONValue(parsing: String($0))["name"].string ?? "" }.filter { $0.hasPrefix("n") }
                }
                try await eventually("all ten are seen") { try names().count >= 10 }
                #expect(try names() == (0..<10).map { "n\($0)" })
                watch.signal(SIGINT)
                #expect(try await watch.wait(within: .seconds(5)) == 0)

                let nobody = try await cluster.members[third].cli("cluster", "transfer-leader", "nobody")
                #expect(nobody.status == 6 && nobody.stderr.contains("hint: "), "\(nobody)")
            }
        }
    }
}
