// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension BlackBox {
    @Suite struct FailingDeploy {
        @Test
        func `a deploy that cannot succeed ends in bounded time with its cause, and the update of an app goes back`()
            async throws
        {
            try await withNode("failing") { daemon, registry in
                let crash = try await registry.push(.crash)
                let hello = try await registry.push(.hello)
                let clean = try await daemon.footprint()
                func deploy(_ name: String, _ arguments: String...) async throws -> ShellOutput {
                    let start = ContinuousClock.now
                    let output = try await daemon.cli(["app", "deploy", name] + arguments, timeout: .seconds(100))
                    #expect(ContinuousClock.now - start < .seconds(90), "\(name) took too long")
                    #expect(output.stderr.contains("error: ") && output.stderr.contains("hint: "), "\(output)")
                    return output
                }

                let absent = try await deploy("absent", "--image", "\(registry.address)/hivemind/absent:1.0")
                #expect([8, 9].contains(absent.status), "\(absent)")
                #expect(absent.stderr.contains("hivemind/absent:1.0"))

                let command = try await deploy("command", "--image", hello, "--", "/no/such/program")
                #expect(command.status == 9, "\(command)")
                #expect(command.stderr.contains("/no/such/program"))

                let loop = try await deploy("loop", "--image", crash)
                #expect(loop.status == 9, "\(loop)")
                #expect(loop.stderr.contains("3"), "names the exit code: \(loop)")
                #expect((loop.stderr + loop.stdout).contains("fatal: database is not reachable"), "\(loop)")

                // An app that runs goes on running what it ran.
                try await daemon.cli("app", "deploy", "web", "--image", hello, "--replicas", "2").checked()
                let before = try await daemon.waitRunning("web", 2)
                let update = try await deploy("web", "--image", crash, "--replicas", "2")
                #expect(update.status == 8, "\(update)")
                #expect((update.stderr + update.stdout).contains("fatal: database is not reachable"), "\(update)")
                let after = try await daemon.waitRunning("web", 2)
                #expect(after.allSatisfy { $0.image == before[0].image })
                let app = try await daemon.json("app", "info", "web")
                #expect(app["image"].string == hello && app["rollout"]["state"].string == "rolled_back", "\(app)")

                var ids = (before + after).map(\.id)
                for name in ["command", "loop", "web"] {
                    ids += try await daemon.tasks(name, all: true).map(\.id)
                    try await daemon.delete(name)
                }
                // The image itself was fetched on the way and may stay; everything of its containers may not.
                try await daemon.expectNothingLeft(since: clean, tasks: ids)
            }
        }

        @Test func `nonsense is refused before anything is changed, with the right exit code`() async throws {
            try await withTestDaemon("refuse") { daemon in
                let cases: [([String], Int32)] = [
                    (["app", "deploy"], 2),
                    (["app", "deploy", "Bad_Name", "--image", "x"], 2),
                    (["app", "deploy", "web", "--image", "x", "--port", "99999"], 2),
                    (["app", "deploy", "web", "--image", "x", "--replicas", "-1"], 2),
                    (["app", "info", "absent"], 6),
                    (["app", "scale", "absent", "3"], 6),
                    (["volume", "info", "absent"], 6),
                    (["config", "get", "absent"], 6),
                    (["query", "delete from tasks"], 2),
                ]
                for (arguments, status) in cases {
                    let output = try await daemon.cli(arguments)
                    #expect(output.status == status, "\(output)")
                    #expect(output.stdout.isEmpty, "\(output)")
                    #expect(output.stderr.lowercased().contains("error: "), "\(output)")
                }
                #expect(try await daemon.json("app", "ls").items.isEmpty)
                let alone = try await daemon.cli("app", "ls", "--socket", "/tmp/hmt-there-is-no-daemon.sock")
                #expect(alone.status == 3, "\(alone)")
            }
        }
    }
}
