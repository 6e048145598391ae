// SPDX-License-Identifier: Apache-2.0
import Foundation
import TestSupport
import Testing

/// `--runtime simulated`: everything but containers, for whoever has no root.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct SimulatedRuntime {
    @Test func `a daemon without root takes apps, keeps them over a crash and ends cleanly`() async throws {
        try await withTemporaryDirectory("sim") { directory in
            // As root, become nobody: the program may lie where nobody cannot read it.
            var prefix: [String] = []
            var binary = Repository.binary
            if Host.isRoot {
                binary = directory.file("hivemind")
                try await Shell.run(["cp", Repository.binary, binary]).checked()
                try await Shell.run(["chown", "-R", "65534:65534", directory.path]).checked()
                try await Shell.run(["chmod", "755", directory.path, binary]).checked()
                prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
            }
            let socket = directory.file("s")
            let start = prefix + [binary, "daemon", "--runtime", "simulated", "--data-dir", directory.file("data")]
            func launch() async throws -> ChildProcess {
                let process = try ChildProcess(start + ["--socket", socket], log: directory.file("log"))
                do {
                    try await eventually("the daemon is ready") {
                        try await Shell.run(["curl", "-sf", "--unix-socket", socket, "http://localhost/ready"])
                            .succeeded
                    }
                } catch {
                    try await process.kill9()
                    throw TestFailure("\(error)\n\((try? directory.read("log")) ?? "")")
                }
                return process
            }
            func cli(_ arguments: String...) async throws -> ShellOutput {
                try await Shell.run(prefix + [binary] + arguments + ["--socket", socket])
            }
            func running() async throws -> Int? {
                try JSONValue(parsing: try await cli("app", "info", "web", "-o", "json").checked().stdout)["replicas"][
                    "running"
                ].int
            }

            var daemon = try await launch()
            // A script that reloads every service of the machine means no harm.
            daemon.signal(SIGHUP)
            try await eventually("it says that there is nothing to read") {
                try directory.read("log").contains("no certificates to read again")
            }
            do {
                let deploy = ["app", "deploy", "web", "--image", "example/web:1", "--replicas", "3"]
                try await Shell.run(prefix + [binary] + deploy + ["--socket", socket]).checked()
                try await eventually("three run") { try await running() == 3 }
                try await daemon.kill9()
                daemon = try await launch()
                try await eventually("three run again") { try await running() == 3 }
                try await cli("app", "delete", "web", "--yes").checked()
                try await eventually("it is gone") { try await cli("app", "info", "web").status == 6 }
                let end = ContinuousClock.now
                daemon.signal(SIGTERM)
                #expect(try await daemon.wait(within: .seconds(10)) == 0, "SIGTERM ends it with 0")
                #expect(ContinuousClock.now - end < .seconds(10))
            } catch {
                try await daemon.kill9()
                throw TestFailure("\(error)\n\((try? directory.read("log")) ?? "")")
            }
        }
    }
}
