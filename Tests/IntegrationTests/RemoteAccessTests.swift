// SPDX-License-Identifier: Apache-2.0
import Foundation
import TestSupport
import Testing

extension BlackBox {
    /// The cluster used from elsewhere: over TCP, with a token.
    @Suite struct RemoteAccess {
        /// The program as a user elsewhere runs it, with contexts of its own.
        private struct User: Sendable {
            let directory: String

            func cli(_ arguments: String...) async throws -> ShellOutput {
                try await Shell.run(
                    [Repository.binary] + arguments,
                    environment: [
                        "HIVEMIND_CONFIG_DIR": directory, "HIVEMIND_SOCKET": "", "HIVEMIND_COLOR": "never",
                    ])
            }
        }

        private struct Token {
            var id: String
            var text: String
            var digest: String
        }

        private func token(_ node: TestDevCluster.Node, _ arguments: [String]) async throws -> Token {
            let made = try await Shell.run(
                [Repository.binary, "auth", "token", "create", "--socket", node.socket, "-o", "json"] + arguments
            ).checked()
            let view = try JSONValue(parsing: made.stdout)
            return Token(
                id: view["id"].string ?? "", text: view["token"].string ?? "",
                digest: view["authority_digest"].string ?? "")
        }

        @Test func `a token of one node is good at another, for what its role may, until it ends`() async throws {
            try await withDevCluster("remote", runtime: "simulated") { cluster in
                let (first, second, third) = (cluster.nodes[0], cluster.nodes[1], cluster.nodes[2])
                let user = User(directory: cluster.directory.file("user"))
                func add(_ name: String, _ token: Token, _ addresses: String...) async throws -> ShellOutput {
                    try await Shell.run(
                        [Repository.binary, "context", "add", name, "--ca-digest", token.digest, "--token", token.text]
                            + addresses.flatMap { ["--address", $0] },
                        environment: ["HIVEMIND_CONFIG_DIR": user.directory])
                }
                func refused(_ output: ShellOutput, _ status: Int32, _ says: String) {
                    #expect(output.status == status && output.stderr.contains(says), "\(output)")
                    #expect(output.stderr.contains("hint: "), "\(output)")
                }

                // Made on one node, used at another, for everything an operator does.
                let worker = try await token(first, ["--role", "operator", "--name", "anna"])
                try await eventually("the other node knows it") {
                    try await add("prod", worker, "\(second.address):4483", "\(third.address):4483").succeeded
                }
                try await user.cli("app", "deploy", "web", "--image", "nginx", "--replicas", "2").checked()
                #expect(try await user.cli("ps").checked().stdout.contains("running"))
                let events = try await user.cli("query", "select count(*) from tasks").checked()
                #expect(events.stdout.contains("2"), "\(events)")
                #expect(try await user.cli("auth", "whoami").checked().stdout.contains(second.name))
                refused(try await user.cli("auth", "token", "ls"), 5, "an admin")
                refused(try await user.cli("node", "remove", "node3", "--yes"), 5, "an admin")

                // A node that is gone is passed over.
                try await cluster.kill9(second)
                #expect(try await user.cli("auth", "whoami").checked().stdout.contains(third.name))
                try await cluster.start(second)
                try await cluster.waitState("ready", of: second, seenBy: first)

                // Another role, another namespace, the end of it.
                let viewer = try await token(first, ["--role", "viewer"])
                try await eventually("known") { try await add("look", viewer, "\(second.address):4483").succeeded }
                #expect(try await user.cli("app", "ls", "--context", "look").checked().stdout.contains("web"))
                refused(
                    try await user.cli("app", "deploy", "web", "--image", "other", "--context", "look"), 5,
                    "an operator or an admin")
                refused(try await user.cli("app", "delete", "web", "--yes", "--context", "look"), 5, "an operator")
                let bound = try await token(first, ["--role", "operator", "--namespace", "shop"])
                try await eventually("known") { try await add("shop", bound, "\(second.address):4483").succeeded }
                #expect(try await user.cli("app", "ls", "--context", "shop", "-o", "name").checked().stdout.isEmpty)
                refused(
                    try await user.cli("app", "delete", "web", "--yes", "--context", "shop", "--namespace", "default"),
                    5,
                    "bound to namespace `shop`")
                try await user.cli("app", "deploy", "web", "--image", "nginx", "--context", "shop").checked()
                #expect(try await first.json("app", "ls", "--namespace", "shop")["items"].array.count == 1)

                let short = try await token(first, ["--ttl", "1s"])
                try await eventually("it has expired") {
                    let output = try await add("short", short, "\(second.address):4483")
                    return output.status == 4 && output.stderr.contains("expired at")
                }
                try await first.cli("auth", "token", "revoke", worker.id).checked()
                try await eventually("the other node knows that it is revoked") {
                    try await !user.cli("ps").succeeded
                }
                refused(try await user.cli("ps"), 4, "not known here")

                // Nothing secret where it does not belong.
                for node in cluster.nodes {
                    for token in [worker, viewer, bound, short] {
                        #expect(!cluster.log(of: node).contains(token.text.suffix(20)), "\(node.name)")
                    }
                }
                let dump = try await first.cli("query", "select * from api_tokens")
                #expect(!dump.stdout.contains(String(worker.text.suffix(20))))
                try await first.cli("app", "delete", "web", "--yes").checked()
            }
        }

        @Test func `a foreign cluster is told nothing`() async throws {
            try await withDevCluster("foreign", nodes: 1, runtime: "simulated") { cluster in
                let node = cluster.nodes[0]
                let token = try await token(node, [])
                let wrong = String(repeating: "0", count: 64)
                let output = try await Shell.run(
                    [
                        Repository.binary, "context", "add", "x", "--address", "\(node.address):4483", "--ca-digest",
                        wrong, "--token", token.text,
                    ], environment: ["HIVEMIND_CONFIG_DIR": cluster.directory.file("user")])
                #expect(output.status == 4 && output.stderr.contains("not the cluster that is meant"), "\(output)")
                #expect(!Host.hasFile(cluster.directory.file("user/contexts.json")))
                // Plain HTTP and old TLS get nowhere.
                let plain = try await Shell.run([
                    "curl", "-sS", "-m", "5", "--noproxy", "*", "http://\(node.address):4483/health",
                ])
                #expect(!plain.succeeded)
                let old = try await Shell.run([
                    "curl", "-sSk", "-m", "5", "--noproxy", "*", "--tls-max", "1.2",
                    "https://\(node.address):4483/health",
                ])
                #expect(!old.succeeded)
            }
        }
    }
}
