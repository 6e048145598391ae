// SPDX-License-Identifier: Apache-2.0
import Model
import Testing

@testable import CLI

struct RenderTests {
    static let daemon = FakeDaemon()
        .on(
            "GET /v1/apps",
            .ok(
                Sample.list(
                    Sample.app(),
                    Sample.app(
                        "api", status: .degraded, ready: 1, reason: Reason(.crashLoop, "exits with 1 again and again")))
            )
        )
        .on("GET /v1/apps/web", .ok(Sample.app(rollout: Sample.rollout(.succeeded, updated: 3))))
        .on(
            "GET /v1/tasks",
            .ok(
                Sample.list(
                    Sample.task("kaaaaaaaaaaa"),
                    Sample.task(
                        "kbbbbbbbbbbb", state: "restarting", reason: Reason(.exited, "exited with code 1"), restarts: 4)
                ))
        )
        .on("GET /v1/tasks?app=web", .ok(Sample.list(Sample.task("kaaaaaaaaaaa"))))
        .on("GET /v1/services", .ok(Sample.list(Sample.app().services[0])))
        .on("GET /v1/services/web", .ok(Sample.app().services[0]))
        .on("GET /v1/volumes", .ok(Sample.list(Sample.volume)))
        .on("GET /v1/volumes/data", .ok(Sample.volume))
        .on("PUT /v1/volumes/data", .ok(Sample.volume, status: 201))
        .on("DELETE /v1/volumes/data", .empty)
        .on("GET /v1/images", .ok(Sample.list(Sample.image)))
        .on("POST /v1/images/pull", .ok(Sample.image))
        .on("POST /v1/images/import?name=team%2Fapp%3A1", .ok(Sample.list(Sample.image)))
        .on("DELETE /v1/images?name=nginx%3A1.27", .empty)
        .on("GET /v1/nodes", .ok(Sample.list(Sample.node)))
        .on("GET /v1/nodes/alpha", .ok(Sample.node))
        .on("GET /v1/status", .ok(Sample.status))
        .on("GET /v1/cluster", .ok(Sample.cluster))
        .on("POST /v1/cluster/transfer-leader", .ok(LeaderView(leader: "beta", previous: "alpha", term: 3)))
        .on("POST /v1/snapshots", .ok(Sample.snapshot, status: 201))
        .on("GET /v1/snapshots", .ok(Sample.list(Sample.snapshot)))
        .on("GET /version", .ok(VersionView(version: "0.1.0", api: "v1")))
        .on("GET /v1/configs", .ok(Sample.list(Sample.config)))
        .on("GET /v1/configs/nginx%2Fsite.conf", .ok(Sample.config))
        .on("PUT /v1/configs/nginx%2Fsite.conf", .ok(Sample.config))
        .on("DELETE /v1/configs/nginx%2Fsite.conf", .empty)
        .on(
            "POST /v1/query",
            .ok(
                QueryView(
                    columns: ["node", "count(*)", "note"],
                    rows: [
                        [.text("alpha"), .integer(12), .null], [.text("größe"), .real(3.5), .text("")],
                        [.text("漢字"), .integer(7), .text("two\nlines")],
                    ], truncated: false)))

    static let lines: [[String]] = [
        ["app", "ls"], ["app", "ls", "-o", "wide"], ["app", "ls", "-o", "name"], ["app", "info", "web"],
        ["app", "info", "web", "-o", "json"], ["app", "info", "web", "-o", "yaml"], ["ps"], ["ps", "-o", "wide"],
        ["ps", "-o", "yaml"], ["service", "ls"], ["service", "info", "web"], ["volume", "ls"],
        ["volume", "info", "data"],
        ["volume", "create", "data"], ["volume", "rm", "data", "--yes"], ["image", "ls"],
        ["image", "ls", "-o", "wide"],
        ["image", "pull", "nginx:1.27"], ["image", "import", "app.tar", "--name", "team/app:1"],
        ["image", "rm", "nginx:1.27"], ["node", "ls"], ["node", "ls", "-o", "wide"], ["node", "info"], ["status"],
        ["status", "-o", "json"], ["version"], ["cluster", "status"], ["cluster", "status", "-o", "wide"],
        ["cluster", "status", "-o", "json"], ["cluster", "status", "-o", "name"],
        ["cluster", "transfer-leader", "beta"],
        ["cluster", "snapshot", "save"], ["cluster", "snapshot", "ls"], ["cluster", "snapshot", "ls", "-o", "wide"],
        ["config", "ls"], ["config", "get", "nginx/site.conf"],
        ["config", "get", "nginx/site.conf", "-o", "json"], ["config", "set", "nginx/site.conf", "x"],
        ["config", "delete", "nginx/site.conf", "--yes"], ["query", "select 1"], ["query", "select 1", "-o", "json"],
        ["query", "select 1", "-o", "name"],
    ]

    @Test(arguments: lines)
    func `what a verb prints is as reviewed`(words: [String]) async throws {
        let fake = FakeTerminal()
        let status = await Terminal.$current.withValue(fake.terminal(Self.daemon, .init())) {
            await Hivemind.execute(words)
        }
        let name = words.joined(separator: "_").map { $0.isLetter || $0.isNumber || $0 == "_" ? $0 : "-" }
        try expectGolden(fake.result(status).transcript, "output/\(String(name)).txt")
    }

    @Test func `a terminal gets colours, narrow last columns and next commands, NO_COLOR takes the colours`()
        async throws
    {
        let long = Sample.task(
            "kccccccccccc", state: "failed",
            reason: Reason(.startFailed, String(repeating: "a long reason ", count: 12)))
        let daemon = FakeDaemon().on("GET /v1/tasks", .ok(Sample.list(Sample.task("kaaaaaaaaaaa"), long)))
        let colored = await hivemind("ps", daemon: daemon, options: .init(isTTY: true))
        #expect(colored.out.contains("\u{1B}[32mrunning\u{1B}[0m"))
        #expect(colored.err.contains("hivemind app logs web --task kaaaaaaaaaaa"))
        let plain = await hivemind("ps", daemon: daemon, options: .init(isTTY: true, environment: ["NO_COLOR": "1"]))
        #expect(!plain.out.contains("\u{1B}"))
        #expect(plain.out.split(separator: "\n").allSatisfy { $0.count <= 100 })
        #expect(plain.out.contains("…"))
        let piped = await hivemind("ps", daemon: daemon)
        #expect(!piped.out.contains("\u{1B}") && !piped.out.contains("…") && piped.err.isEmpty)
    }

    @Test func `JSON is the answer byte for byte but for white space`() {
        let text = #"{"b":[1.50,1e3,{},[ ]],"a":"x { \" \\ é \u00e9","n":null,"t":true}"#
        let pretty = String(decoding: JSONText.pretty(Array(text.utf8)), as: UTF8.self)
        #expect(
            pretty == """
                {
                  "b": [
                    1.50,
                    1e3,
                    {},
                    []
                  ],
                  "a": "x { \\" \\\\ é \\u00e9",
                  "n": null,
                  "t": true
                }

                """)
    }

    @Test func `YAML keeps text apart from numbers and null`() throws {
        let text = #"{"a":"12","b":12,"c":"true","d":null,"e":"two\nlines","f":18446744073709551615,"g":[],"h":{}}"#
        let yaml = try JSONText.yaml(Array(text.utf8))
        for line in ["a: '12'", "b: 12", "c: 'true'", "d: null", "f: 18446744073709551615", "g: []", "h: {}"] {
            #expect(yaml.split(separator: "\n").contains(Substring(line)), "\(line) in\n\(yaml)")
        }
    }

    @Test(arguments: [("abc", 3), ("größe", 5), ("e\u{301}", 1), ("漢字", 4), ("🐝", 2), ("❤️", 2), ("ｗ", 2), ("", 0)])
    func `width counts terminal columns`(text: String, width: Int) {
        #expect(text.displayWidth == width)
    }

    @Test(
        arguments: [
            (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (1_610_612_736, "1.5 GiB"),
            (Int64.max, "8191.9 PiB"),
        ] as [(Int64, String)])
    func `sizes are written for people`(bytes: Int64, text: String) {
        #expect(Format.bytes(bytes) == text)
    }

    @Test(
        arguments: [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")]
            as [(Int64, String)])
    func `ages are written for people`(seconds: Int64, text: String) {
        #expect(Format.duration(seconds: seconds) == text)
    }

    @Test(arguments: [(0, "0"), (500, "0.5"), (1001, "1.001"), (2000, "2"), (50, "0.05")])
    func `cores are written for people`(millis: Int, text: String) {
        #expect(Format.cpu(millis: millis) == text)
    }
}
