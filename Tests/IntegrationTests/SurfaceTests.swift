// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension BlackBox {
    /// The names programs rely on (docs/reference/api.md), through the socket and through `-o json`.
    @Suite struct Surface {
        @Test func `every object has the documented names`() async throws {
            try await withNode("names") { daemon, registry in
                let image = try await registry.push(.hello)
                try await daemon.cli(["app", "deploy", "hello", "--image", image] + helloFlags).checked()
                try await daemon.waitRunning("hello", 3)
                func expect(_ value: JSONValue, has names: [String]) {
                    for name in names { #expect(value.keys.contains(name), "\(name) in \(value)") }
                }
                expect(
                    try await daemon.json("app", "info", "hello"),
                    has: [
                        "name", "namespace", "version", "image", "status", "replicas", "vip", "ports", "created_at",
                        "updated_at",
                    ])
                expect(
                    try await daemon.json("ps").items[0],
                    has: [
                        "id", "app", "service", "node", "state", "address", "container_id", "pid", "restarts",
                        "started_at",
                    ])
                expect(
                    try await daemon.json("node", "ls").items[0],
                    has: [
                        "id", "name", "address", "state", "role", "leader", "subnet", "labels", "capacity", "allocated",
                        "applied_index", "version",
                    ])
                expect(
                    try await daemon.json("volume", "info", "hello-data"),
                    has: [
                        "name", "namespace", "driver", "node", "path", "size_bytes", "used_bytes", "used_by",
                        "created_at",
                    ])
                expect(
                    try await daemon.json("status"),
                    has: ["node", "role", "term", "applied_index", "leader", "version"])
                expect(
                    try await daemon.api("GET", "/v1/cluster").json(),
                    has: ["id", "leader", "term", "commit_index", "members", "nodes"])
                let lists = [
                    ["app", "ls"], ["service", "ls"], ["ps"], ["image", "ls"], ["volume", "ls"], ["node", "ls"],
                ]
                for list in lists {
                    let items = try JSONValue(parsing: try await daemon.cli(list + ["-o", "json"]).checked().stdout)
                        .items
                    #expect(!items.isEmpty, "\(list)")
                    let names = try await daemon.cli(list + ["-o", "name"]).checked().lines
                    #expect(names.count == items.count, "\(list)")
                    for format in ["table", "wide", "yaml"] {
                        #expect(
                            try await daemon.cli(list + ["-o", format]).checked().stderr.isEmpty, "\(list) \(format)")
                    }
                }
                for path in ["/health", "/ready", "/version", "/metrics"] {
                    #expect(try await daemon.api("GET", path).status == 200, "\(path)")
                }
                let rows = try await daemon.json("query", "select count(*) as n from tasks")
                #expect(rows["columns"].array == [.string("n")] && rows["rows"][0][0].int ?? 0 >= 3, "\(rows)")
            }
        }

        @Test func `configs are written with compare and set and survive a crash`() async throws {
            try await withTestDaemon("configs") { daemon in
                func put(_ data: String, _ headers: [String: String] = [:]) async throws -> TestDaemon.Reply {
                    try await daemon.api("PUT", "/v1/configs/app", body: "{\"data\": \"\(data)\"}", headers: headers)
                }
                let first = try await put("one", ["If-None-Match": "*"])
                #expect(first.status == 201 || first.status == 200, "\(first)")
                let version = try #require(try first.json()["version"].int)
                #expect(first.headers["etag"] == "\"\(version)\"")
                #expect(try await put("again", ["If-None-Match": "*"]).status == 412)
                #expect(try await put("two", ["If-Match": "\"\(version)\""]).status == 200)
                let stale = try await put("three", ["If-Match": "\"\(version)\""])
                #expect(
                    stale.status == 412 && stale.headers["content-type"]?.hasPrefix("application/problem+json") == true)
                #expect(try stale.json()["code"].string == "precondition_failed")
                try await daemon.restart()
                #expect(try await daemon.cli("config", "get", "app").checked().text == "two")
                let list = try await daemon.api("GET", "/v1/configs?prefix=a").json()
                #expect(list.items.map { $0["name"].string } == ["app"] && list["index"].int != nil)
                #expect(try await daemon.api("DELETE", "/v1/configs/app").status / 100 == 2)
                #expect(try await daemon.api("GET", "/v1/configs/app").status == 404)
            }
        }

        @Test func `archives of both kinds are imported and run, and logs are followed`() async throws {
            try await withTestDaemon("import") { daemon in
                for format in ["oci", "docker"] {
                    let archive = daemon.directory.file("\(format).tar")
                    try await TestImage.writer.archive(tag: format, format: format, to: archive)
                    try await daemon.cli("image", "import", archive).checked()
                    let image = "hivemind/writer:\(format)"
                    let flags = ["--env", "LINES_MAX=20", "--env", "INTERVAL=0.01"]
                    try await daemon.cli(["app", "deploy", format, "--image", image] + flags).checked()
                    try await eventually("all lines are there") {
                        try await daemon.cli("app", "logs", format).checked().lines.count == 20
                    }
                    let tail = try await daemon.cli("app", "logs", format, "--tail", "3").checked().lines
                    #expect(
                        tail.map { $0.hasSuffix("line 18") || $0.hasSuffix("line 19") || $0.hasSuffix("line 20") } == [
                            true, true, true,
                        ])
                }
                for shell in ["bash", "zsh", "fish"] {
                    #expect(try await daemon.cli("completion", shell).checked().stdout.contains("hivemind"))
                }
            }
        }
    }
}
