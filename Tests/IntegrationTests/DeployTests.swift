// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension BlackBox {
    @Suite struct Deploy {
        @Test func `an app with three replicas, a volume and a port answers by address, name and published port`()
            async throws
        {
            try await withNode("deploy") { daemon, registry in
                let image = try await registry.push(.hello)
                let deploy = try await daemon.cli(["app", "deploy", "hello", "--image", image] + helloFlags).checked()
                #expect(deploy.stderr.contains("8080") || deploy.stdout.contains("8080"), "says where it answers")

                let tasks = try await daemon.waitRunning("hello", 3)
                #expect(Set(tasks.map(\.address)).count == 3)
                let app = try await daemon.json("app", "info", "hello")
                #expect(app["status"].string == "running")
                #expect(app["replicas"]["desired"].int == 3 && app["replicas"]["running"].int == 3, "\(app)")
                let vip = try #require(app["vip"].string)

                // Round robin over three replicas: nine connections reach every one of them.
                let url = "http://\(vip):8080/"
                #expect(Set(try await daemon.answers(url, from: daemon.node, count: 9)).count == 3)
                let local = try await daemon.answers("http://127.0.0.1:8080/", from: daemon.node, count: 9)
                #expect(Set(local).count == 3)
                let outside = "http://\(TestDaemon.nodeAddress):8080/"
                #expect(Set(try await daemon.answers(outside, from: daemon.outside, count: 9)).count == 3)
                let fromTask = try await daemon.onNetwork(
                    of: tasks[0], ["curl", "--noproxy", "*", "-sS", "-m5", outside])
                #expect(fromTask.stdout.hasPrefix("hello 1.0 from "), "\(fromTask)")

                // By name: on the node with its fully qualified name, in a container by its short one too.
                #expect(try await daemon.node.dig("hello.default.hive.internal") == [vip])
                let endpoints = try await daemon.node.dig("tasks.hello.default.hive.internal")
                #expect(endpoints == tasks.map(\.address).sorted())
                #expect(try await daemon.node.dig("hello.default.hive.internal", "AAAA").isEmpty)
                for name in ["hello", "hello.default.hive.internal"] {
                    let page = try await daemon.inContainer(tasks[1], "wget", "-q", "-O-", "http://\(name):8080/")
                    #expect(page.stdout.hasPrefix("hello 1.0 from "), "\(page)")
                }

                // All replicas write to one volume.
                let last = try await daemon.node.get(url)
                let visits = last.split(separator: "\n").last?.split(separator: " ").last.flatMap { Int($0) }
                #expect(try #require(visits) >= 28, "\(last)")
            }
        }

        @Test func `changing the image replaces tasks one by one and no request fails`() async throws {
            try await withNode("update") { daemon, registry in
                let flags = helloFlags
                let (old, new) = (
                    try await registry.push(.hello, tag: "1.0"), try await registry.push(.hello, tag: "1.1")
                )
                try await daemon.cli(["app", "deploy", "hello", "--image", old] + flags).checked()
                let before = try await daemon.waitRunning("hello", 3)

                let inside = try Client(daemon.node, "http://127.0.0.1:8080/", log: daemon.directory.file("inside"))
                let outside = try Client(
                    daemon.outside, "http://\(TestDaemon.nodeAddress):8080/", log: daemon.directory.file("outside"))
                async let update = daemon.cli(["app", "deploy", "hello", "--image", new] + flags)
                var fewest = 3
                while try await daemon.json("app", "info", "hello")["image"].string == old {}
                try await eventually("the update is done", within: .seconds(90)) {
                    let app = try await daemon.json("app", "info", "hello")
                    fewest = min(fewest, app["replicas"]["running"].int ?? 0)
                    return app["status"].string == "running"
                }
                try await update.checked()
                #expect(fewest >= 2, "never more than one replica out of service, saw \(fewest)")
                let after = try await daemon.waitRunning("hello", 3)
                #expect(Set(after.map(\.id)).isDisjoint(with: before.map(\.id)))

                for client in [inside, outside] {
                    let answers = try await client.stop()
                    #expect(answers.count > 20, "the client was busy all the time")
                    #expect(answers.filter { !$0.hasPrefix("200 ") } == [])
                }
                #expect(try await daemon.node.get("http://127.0.0.1:8080/").hasPrefix("hello 1.1 from "))
            }
        }

        @Test func `scale and restart do what they say and delete leaves nothing`() async throws {
            try await withNode("life") { daemon, registry in
                let image = try await registry.push(.hello)
                // Bring the image here first: it may stay, what an app makes of it may not.
                try await daemon.cli("image", "pull", image).checked()
                let clean = try await daemon.footprint()

                try await daemon.cli(["app", "deploy", "hello", "--image", image] + helloFlags).checked()
                let three = try await daemon.waitRunning("hello", 3)
                try await daemon.cli("app", "scale", "hello", "5").checked()
                let five = try await daemon.waitRunning("hello", 5)
                #expect(Set(three.map(\.pid)).isSubset(of: five.map(\.pid)), "scaling up restarts nothing")
                try await daemon.cli("app", "scale", "hello=1").checked()
                let one = try await daemon.waitRunning("hello", 1)
                #expect(five.map(\.pid).contains(one[0].pid), "scaling down restarts nothing")
                #expect(try await daemon.node.dig("tasks.hello.default.hive.internal") == [one[0].address])

                try await daemon.cli("app", "restart", "hello").checked()
                let again = try await daemon.waitRunning("hello", 1)
                #expect(again[0].pid != one[0].pid)
                #expect(try await daemon.node.get("http://127.0.0.1:8080/").hasPrefix("hello 1.0"))

                try await daemon.delete("hello")
                try await daemon.cli("volume", "delete", "hello-data", "--yes").checked()
                let ids = Set((five + again).map(\.id)).sorted()
                try await daemon.expectNothingLeft(since: clean, tasks: ids)
                #expect(try await daemon.node.run("curl", "-m2", "http://127.0.0.1:8080/").status == 7, "refused")
            }
        }

        @Test func `two apps find each other, and the same port is refused to the second`() async throws {
            try await withNode("two") { daemon, registry in
                let image = try await registry.push(.hello)
                let sleeper = try await registry.push(.sleeper)
                try await daemon.cli("app", "deploy", "web", "--image", image, "--port", "8080:8080").checked()
                try await daemon.cli("app", "deploy", "client", "--image", sleeper).checked()
                let client = try await daemon.waitRunning("client", 1)[0]
                let page = try await daemon.inContainer(client, "wget", "-q", "-O-", "http://web:8080/")
                #expect(page.stdout.hasPrefix("hello 1.0 from "), "\(page)")

                let refused = try await daemon.cli("app", "deploy", "late", "--image", image, "--port", "8080:8080")
                #expect(refused.status == 7, "\(refused)")
                #expect(
                    refused.stderr.contains("8080") && refused.stderr.contains("web"), "names the port and its owner")
                #expect(try await daemon.api("GET", "/v1/apps/late").status == 404)
            }
        }
    }

    /// A client that asks without a pause and writes down each answer, one connection each.
    private struct Client {
        let process: ChildProcess
        let log: String

        init(_ side: TestNamespace, _ url: String, log: String) throws {
            let loop = """
                while :; do
                    curl --noproxy '*' -s -o /dev/null -m 5 -w '%{http_code} %{time_total}\\n' \(url) || echo "failed $?"
                done
                """
            process = try ChildProcess(side.prefix + ["bash", "-c", loop], log: log)
            self.log = log
        }

        /// One line a request, `200 <seconds>` for a good one.
        func stop() async throws -> [String] {
            try await process.kill9()
            return try await Shell.run(["cat", log]).checked().lines
        }
    }
}
