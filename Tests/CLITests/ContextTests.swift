// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import TestSupport
import Testing

@testable import CLI
@testable import Daemon

struct ContextTests {
    private let token = "hm_\(Base32.text([1, 2, 3, 4, 5]))_\(Base32.text([UInt8](0..<20)))"
    private let secret = Base32.text([UInt8](0..<20))

    private struct Listed: Encodable { var authorities: [String] }

    /// A daemon behind an authority, and a place for contexts.
    private func withCluster(
        _ body: (
            _ daemon: FakeDaemon, _ digest: String, _ environment: [String: String], _ directory: TemporaryDirectory
        )
            async throws -> Void
    ) async throws {
        try await withTemporaryDirectory("contexts") { directory in
            let authority = try CertificateAuthority.make(clusterID: "c", now: Date())
            let pem = try authority.certificateText
            let daemon = FakeDaemon().on("GET /v1/authority", .ok(Listed(authorities: [pem])))
                .on("GET /v1/whoami", .ok(IdentityView(kind: "token", name: "anna", token: "01", role: "admin")))
                .on("GET /version", .ok(VersionView(version: "9", api: "v1")))
            try await body(
                daemon, NodeBackend.hex(authority.digest), ["HIVEMIND_CONFIG_DIR": directory.file("a/b")], directory)
        }
    }

    @Test func `a cluster is added once it proved who it is, and used from then on`() async throws {
        try await withCluster { daemon, digest, environment, directory in
            let fake = FakeTerminal()
            let added = await hivemind(
                "context", "add", "prod", "--address", "10.0.0.1", "--address", "b.example:99", "--ca-digest", digest,
                "--token", token, daemon: daemon, options: .init(environment: environment), fake: fake)
            #expect(added.status == 0, "\(added)")
            #expect(daemon.log == ["GET /v1/authority", "GET /v1/authority", "GET /v1/whoami"])
            // First nobody is believed and nothing said, then the one of the digest, and only then comes the token.
            #expect(fake.contexts.map { $0.authority == nil } == [true, false, false])
            #expect(fake.contexts.map { $0.token == nil } == [true, true, false])
            #expect(fake.contexts.last?.addresses == ["10.0.0.1:4483", "b.example:99"])

            let file = directory.file("a/b/contexts.json")
            let attributes = try FileManager.default.attributesOfItem(atPath: file)
            #expect(attributes[.posixPermissions] as? Int == 0o600)
            let parent = try FileManager.default.attributesOfItem(atPath: directory.file("a/b"))
            #expect(parent[.posixPermissions] as? Int == 0o700)
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory.file("a/b")) == ["contexts.json"])

            let other = FakeTerminal()
            #expect(
                await hivemind("version", daemon: daemon, options: .init(environment: environment), fake: other).status
                    == 0)
            #expect(other.contexts.map(\.name) == ["prod"] && other.sockets.isEmpty)
        }
    }

    @Test func `a wrong digest, a wrong token and a wrong word store nothing and send no secret`() async throws {
        try await withCluster { daemon, digest, environment, directory in
            func add(_ name: String, _ arguments: [String]) async -> (RunResult, [Context]) {
                let fake = FakeTerminal()
                let status = await Terminal.$current.withValue(
                    fake.terminal(daemon, .init(environment: environment))
                ) { await Hivemind.execute(["context", "add", name] + arguments) }
                return (fake.result(status), fake.contexts)
            }
            let wrong = String(repeating: "0", count: 64)
            let (foreign, seen) = await add("x", ["--address", "a", "--ca-digest", wrong, "--token", token])
            #expect(foreign.status == 4 && foreign.err.contains("not the cluster that is meant"), "\(foreign)")
            #expect(seen.allSatisfy { $0.token == nil })
            let cases: [(String, [String], String)] = [
                ("x", ["--address", "a", "--ca-digest", digest, "--token", "hmj_0"], "to join with"),
                ("x", ["--address", "a", "--ca-digest", digest, "--token", String(token.dropLast())], "mistyped"),
                ("x", ["--address", "a", "--ca-digest", digest], "no terminal to ask on"),
                ("x", ["--address", "a", "--ca-digest", "abc", "--token", token], "no digest"),
                ("x", ["--address", "a:b:c", "--ca-digest", digest, "--token", token], "no address"),
                ("x", ["--ca-digest", digest, "--token", token], "address is missing"),
                ("local", ["--address", "a", "--ca-digest", digest, "--token", token], "always this machine's"),
                ("a b", ["--address", "a", "--ca-digest", digest, "--token", token], "no name for a context"),
                ("x", ["--address", "a", "--token", token], "no terminal to ask on"),
            ]
            for (name, arguments, says) in cases {
                let (result, contexts) = await add(name, arguments)
                #expect(result.status == 2 && result.err.contains(says), "\(arguments): \(result)")
                #expect(!result.err.contains(secret), "\(result)")
                #expect(contexts.allSatisfy { $0.token == nil })
            }
            #expect(!Host.hasFile(directory.file("a/b/contexts.json")))
        }
    }

    @Test func `login asks for what is missing, and without a digest whether to believe`() async throws {
        try await withCluster { daemon, digest, environment, directory in
            let refused = await hivemind(
                "login", "--address", "a", daemon: daemon,
                options: .init(isTTY: true, environment: environment, answers: ["n"], secret: token))
            #expect(refused.status == 1 && refused.err.contains(digest), "\(refused)")
            #expect(!Host.hasFile(directory.file("a/b/contexts.json")))
            let taken = await hivemind(
                "login", "--address", "a", daemon: daemon,
                options: .init(isTTY: true, environment: environment, answers: ["y"], secret: token))
            #expect(taken.status == 0 && taken.out.contains("as admin `anna`"), "\(taken)")
            #expect(!(taken.out + taken.err).contains(secret))
            // The token from standard input.
            let piped = await hivemind(
                "login", "--name", "two", "--address", "a", "--ca-digest", digest, "--token-stdin", daemon: daemon,
                options: .init(environment: environment, answers: [" \(token)\n"]))
            #expect(piped.status == 0, "\(piped)")
        }
    }

    @Test func `contexts are listed, chosen, exported and forgotten, without their tokens`() async throws {
        try await withCluster { daemon, digest, environment, _ in
            func run(_ arguments: String...) async -> RunResult {
                let fake = FakeTerminal()
                let status = await Terminal.$current.withValue(
                    fake.terminal(daemon, .init(environment: environment))
                ) { await Hivemind.execute(arguments) }
                return fake.result(status)
            }
            for name in ["prod", "test"] {
                let place = ["--address", "\(name).example", "--ca-digest", digest]
                let fake = FakeTerminal()
                let status = await Terminal.$current.withValue(
                    fake.terminal(daemon, .init(environment: environment))
                ) { await Hivemind.execute(["context", "add", name, "--token", token] + place) }
                #expect(status == 0)
            }
            let list = await run("context", "ls")
            #expect(list.out.contains("prod.example:4483") && list.out.contains("local"), "\(list)")
            let json = await run("context", "ls", "-o", "json")
            let export = await run("context", "export", "test")
            #expect(export.out == "hivemind context add test --address test.example:4483 --ca-digest \(digest)\n")
            for result in [list, json, export] { #expect(!result.out.contains(secret) && !result.err.contains(secret)) }
            #expect(await run("context", "export", "test", "--with-token").out.contains("--token \(token)"))

            #expect(await run("context", "use", "test").status == 0)
            #expect(await run("context", "use", "nowhere").status == 6)
            let removed = await run("context", "rm", "test")
            #expect(removed.status == 0 && removed.err.contains("auth token revoke"), "\(removed)")
            // Nothing is chosen then: this machine's daemon.
            #expect(await run("context", "ls").out.contains("*  local"))
        }
    }

    @Test func `an explicit socket wins, then the flag, then the environment, then what was chosen`() async throws {
        try await withCluster { daemon, digest, environment, _ in
            for name in ["one", "two"] {
                let added = await hivemind(
                    "context", "add", name, "--address", name, "--ca-digest", digest, "--token", token, daemon: daemon,
                    options: .init(environment: environment))
                #expect(added.status == 0)
            }
            func target(_ more: [String: String], _ arguments: String...) async -> String {
                let fake = FakeTerminal()
                let merged = environment.merging(more) { $1 }
                _ = await Terminal.$current.withValue(fake.terminal(daemon, .init(environment: merged))) {
                    await Hivemind.execute(["version"] + arguments)
                }
                return (fake.contexts.map(\.name) + fake.sockets).joined(separator: ",")
            }
            #expect(await target([:]) == "one")
            #expect(await target([:], "--context", "two") == "two")
            #expect(await target([:], "--context", "local") == GlobalOptions.defaultSocket)
            #expect(await target(["HIVEMIND_CONTEXT": "two"]) == "two")
            #expect(await target(["HIVEMIND_CONTEXT": "two", "HIVEMIND_SOCKET": "/s"]) == "/s")
            #expect(await target(["HIVEMIND_SOCKET": "/s"], "--context", "two") == "two")
            #expect(await target([:], "--context", "two", "--socket", "/t") == "/t")
            let unknown = await hivemind(
                "ps", "--context", "none", daemon: daemon, options: .init(environment: environment))
            #expect(unknown.status == 6 && unknown.err.contains("there are one, two"), "\(unknown)")
            // What changes the machine itself is never sent elsewhere.
            let join = await hivemind(
                "cluster", "join", "hmj_0", "--context", "two", daemon: daemon, options: .init(environment: environment)
            )
            #expect(join.status == 2, "\(join)")
        }
    }

    @Test func `a file that others can read, or that is damaged, is not used`() async throws {
        try await withCluster { daemon, _, environment, directory in
            try FileManager.default.createDirectory(
                atPath: directory.file("a/b"), withIntermediateDirectories: true)
            let path = directory.file("a/b/contexts.json")
            for (text, mode, says) in [("{}", 0o644, "can be read by others"), ("{", 0o600, "cannot be understood")] {
                try Data(text.utf8).write(to: URL(filePath: path))
                try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
                let result = await hivemind("ps", daemon: daemon, options: .init(environment: environment))
                #expect(result.status == 1 && result.err.contains(says), "\(result)")
            }
        }
    }

    @Test func `a context shows its token to nobody`() {
        let context = Context(name: "prod", addresses: ["a:1"], token: token, authority: nil, digest: "d")
        var dumped = ""
        dump(context, to: &dumped)
        for text in ["\(context)", dumped, String(reflecting: context)] { #expect(!text.contains(secret), "\(text)") }
    }
}

struct AuthTests {
    private static let now = FakeTerminal.now
    private static let view = APITokenView(
        id: "abcdefgh", name: "ci", role: "operator", namespace: "shop", createdAt: now, expiresAt: now + 60_000,
        token: "hm_abcdefgh_0", addresses: ["10.0.0.1:4483", "10.0.0.2:4483"], authorityDigest: "00ff")

    @Test func `a new token comes with the line that uses it`() async throws {
        let daemon = FakeDaemon().on("POST /v1/tokens", .ok(Self.view, status: 201))
        let result = await hivemind(
            "auth", "token", "create", "--name", "ci", "--role", "operator", "--namespace", "shop", "--ttl", "30d",
            daemon: daemon)
        try expectGolden(result.transcript, "output/auth_token_create.txt")
        #expect(
            daemon.requests.first?.body
                == .bytes(Array(#"{"name":"ci","namespace":"shop","role":"operator","ttl":"30d"}"#.utf8)))
        #expect(await hivemind("auth", "token", "create", "--ttl", "soon", daemon: daemon).status == 2)
    }

    @Test func `tokens are listed without secrets and revoked by id`() async throws {
        var old = Self.view
        (old.id, old.token, old.namespace, old.expiresAt) = ("zz", nil, nil, Self.now + -1)
        var listed = Self.view
        listed.token = nil
        let daemon = FakeDaemon().on("GET /v1/tokens", .ok(ItemList(items: [listed, old], index: 1)))
            .on("DELETE /v1/tokens/zz", .empty)
        try expectGolden(
            await hivemind("auth", "token", "ls", daemon: daemon).transcript, "output/auth_token_ls.txt")
        #expect(await hivemind("auth", "token", "revoke", "zz", daemon: daemon).status == 0)
    }

    @Test func `can-i says yes, or no with the reason and exit code 5`() async {
        let daemon = FakeDaemon()
            .on("GET /v1/can-i?verb=deploy&kind=app", .ok(PermissionView(allowed: true)))
            .on("GET /v1/can-i?verb=rm&kind=token", .ok(PermissionView(allowed: false, reason: "it takes an admin")))
        let yes = await hivemind("auth", "can-i", "deploy", "app", daemon: daemon)
        #expect(yes.status == 0 && yes.out == "yes\n")
        let no = await hivemind("auth", "can-i", "rm", "token", daemon: daemon)
        #expect(no.status == 5 && no.out == "no\n" && no.err.contains("it takes an admin"), "\(no)")
    }

    @Test func `whoami shows the identity`() async {
        let daemon = FakeDaemon().on("GET /v1/whoami", .ok(IdentityView(kind: "socket", name: "root", role: "admin")))
        let result = await hivemind("auth", "whoami", daemon: daemon)
        #expect(result.status == 0 && result.out.contains("root") && result.out.contains("admin"))
    }
}
