// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Daemon
import Model
import Testing

@testable import CLI

struct UsageTests {
    @Test func `usage errors say what is wrong, hint at the way out, and end with 2`() async throws {
        let lines: [[String]] = [
            ["ap"], ["app", "delpoy", "web"], ["app", "deploy", "web", "--imge", "x"], ["app", "deploy", "web"],
            ["app", "deploy", "--image", "x"], ["app", "info"], ["app", "info", "a", "b"],
            ["app", "deploy", "web", "--image"], ["app", "deploy", "web", "--image", "x", "--replicas", "many"],
            ["app", "deploy", "web", "--image", "x", "--replicas", "1001"],
            ["app", "deploy", "web", "--image", "x", "--restart", "sometimes"], ["ps", "-o", "xml"],
            ["app", "deploy", "web", "--image", "x", "--port", "127.0.0.1:80:80"],
            ["app", "deploy", "web", "--name", "api", "--image", "x"], ["app", "scale", "web"],
            ["app", "scale", "web", "lots"], ["app", "scale", "web=3", "4"], ["app", "delete", "web"],
            ["volume", "delete", "data"], ["config", "set"], ["query"], ["completion", "tcsh"],
            ["daemon", "--runtime", "docker"], ["daemon", "--log-level", "loud"],
            ["daemon", "--container-subnet", "10.210.0.1/16"], ["app", "logs", "web", "--since", "yesterday"],
            ["app", "deploy", "web", "--image", "x", "stray"],
        ]
        var all = ""
        for words in lines {
            let fake = FakeTerminal()
            let status = await Terminal.$current.withValue(fake.terminal(FakeDaemon(), .init())) {
                await Hivemind.execute(words)
            }
            let result = fake.result(status)
            #expect(result.status == 2, "\(words)")
            #expect(result.out.isEmpty, "\(words)")
            #expect(result.err.hasPrefix("error: ") && result.err.contains("\nhint: "), "\(words)")
            all += "$ hivemind \(words.joined(separator: " "))\n\(result.err)\n"
        }
        try expectGolden(all, "errors/usage.txt")
    }

    @Test func `each problem code has its exit code`() async throws {
        var all = ""
        for code in Problem.Code.allCases {
            let daemon = FakeDaemon().on("GET /v1/apps/web", .problem(Problem(code, "the thing went wrong")))
            let result = await hivemind("app", "info", "web", daemon: daemon)
            #expect(result.err.contains("\nhint: "), "\(code)")
            all += "\(code.rawValue) -> exit \(result.status)\n\(result.err)\n"
        }
        try expectGolden(all, "errors/problems.txt")
    }

    @Test func `a problem's own hint wins, and an unknown code falls back to the status`() async {
        let own = FakeDaemon().on("GET /v1/status", .problem(Problem(.conflict, "no", hint: "do this")))
        #expect(await hivemind("status", daemon: own).err == "error: no\nhint: do this\n")
        let body = #"{"status":409,"code":"quota_exceeded","title":"t","detail":"too much"}"#
        let unknown = FakeDaemon().on("GET /v1/status", APIReply(status: 409, body: Array(body.utf8)))
        let result = await hivemind("status", daemon: unknown)
        #expect(result.status == 7)
        #expect(result.err.hasPrefix("error: too much\n"))
        let foreign = FakeDaemon().on("GET /v1/status", APIReply(status: 404, body: Array("<html>".utf8)))
        #expect(await hivemind("status", daemon: foreign).status == 6)
    }

    @Test func `an answer that is not the API's is an error, not a crash`() async {
        let daemon = FakeDaemon().on("GET /v1/apps", APIReply(status: 200, body: Array("[]".utf8)))
        let result = await hivemind("app", "ls", daemon: daemon)
        #expect(result.status == 1)
        #expect(result.err.contains("cannot be understood"))
    }

    @Test func `control characters of a message do not reach the terminal`() async {
        let daemon = FakeDaemon().on("GET /v1/status", .problem(Problem(.internal, "bad \u{1B}[31mthing\u{7}")))
        #expect(await hivemind("status", daemon: daemon).err.hasPrefix("error: bad ?[31mthing?\n"))
    }

    @Test func `a flag wins over the environment, which wins over the default`() async {
        let daemon = FakeDaemon().on("GET /v1/apps?namespace=blue", .ok(Sample.list(Sample.app())))
            .on("GET /v1/apps?namespace=red", .ok(Sample.list(Sample.app())))
            .on("GET /v1/apps", .ok(Sample.list(Sample.app())))
        let environment = ["HIVEMIND_SOCKET": "/env", "HIVEMIND_NAMESPACE": "blue", "HIVEMIND_OUTPUT": "name"]
        let fake = FakeTerminal()
        let fromEnvironment = await hivemind(
            "app", "ls", daemon: daemon, options: .init(environment: environment), fake: fake)
        #expect(fromEnvironment.out == "web\n")
        _ = await hivemind(
            "app", "ls", "--socket", "/flag", "--namespace", "red", "-o", "json", daemon: daemon,
            options: .init(environment: environment), fake: fake)
        _ = await hivemind("app", "ls", daemon: daemon, fake: fake)
        #expect(fake.sockets == ["/env", "/flag", "/run/hivemind/hivemind.sock"])
        #expect(
            daemon.log == ["GET /v1/apps?namespace=blue", "GET /v1/apps?namespace=red", "GET /v1/apps"])
    }

    @Test func `the daemon takes flags before the environment before defaults`() throws {
        let options = FakeTerminal.Options(environment: [
            "HIVEMIND_DATA_DIR": "/env", "HIVEMIND_NODE_NAME": "env", "HIVEMIND_RUNTIME": "simulated", "PWD": "/srv",
        ])
        let command = try DaemonCommand.parse([
            "--data-dir", "data", "--container-subnet", "10.220.0.0/16", "--log-level", "debug",
        ])
        let configuration = try command.daemonConfiguration(FakeTerminal().terminal(FakeDaemon(), options))
        var expected = DaemonConfiguration(
            dataDirectory: "/srv/data", runtime: .simulated, nodeName: "env", logLevel: "debug")
        expected.ranges.containers = IPv4Subnet(IPv4Address(value: 10 << 24 | 220 << 16), prefix: 16)
        #expect(configuration == expected)
    }

    @Test func `this program and the daemon in it have one version`() {
        #expect(programVersion == BuildInfo.version)
    }

    @Test func `a wrong HIVEMIND_OUTPUT is named`() async {
        let result = await hivemind("app", "ls", options: .init(environment: ["HIVEMIND_OUTPUT": "xml"]))
        #expect(result.status == 2)
        #expect(result.err.contains("HIVEMIND_OUTPUT"))
    }
}
