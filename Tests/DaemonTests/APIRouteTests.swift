// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import Synchronization
import Testing

@testable import Daemon

@Suite struct APIRouteTests {
    private let spec = #"{"services":[{"name":"web","image":"nginx"}]}"#

    @Test func `lists and objects answer with the index they were read at and objects with a tag`() async throws {
        try await withServer { server async throws in
            let list = try await server.request("GET", "/v1/apps")
            #expect(list.status == 200)
            #expect(list.headers["hivemind-index"] == "9")
            #expect(try list.json(ItemList<AppView>.self).items.map(\.name) == ["web"])
            let other = try await server.request("GET", "/v1/apps?namespace=other")
            #expect(try other.json(ItemList<AppView>.self).items.isEmpty)
            let app = try await server.request("GET", "/v1/apps/web?consistency=local")
            #expect(app.headers["etag"] == "\"5\"")
            #expect(app.headers["hivemind-index"] == "7")
            #expect(app.headers["content-type"] == "application/json")
        }
    }

    @Test func `a deploy is accepted with the place to follow it`() async throws {
        let backend = FakeBackend()
        try await withServer(backend) { server async throws in
            let body = #"{"services":[{"name":"web","image":"nginx","capabilities_add":["net_admin"]}]}"#
            let answer = try await server.request("PUT", "/v1/apps/web?namespace=shop", body: body)
            #expect(answer.status == 202)
            #expect(answer.headers["location"] == "/v1/operations/op1")
            #expect(answer.headers["hivemind-index"] == "11")
            let put = try #require(backend.state.withLock { $0.puts.first })
            #expect(put.0 == ObjectKey(namespace: "shop", name: "web"))
            #expect(put.1.services.first?.capabilitiesAdd == ["CAP_NET_ADMIN"])
            #expect(put.2 == .none)
            backend.state.withLock { $0.unchanged = true }
            let again = try await server.request("PUT", "/v1/apps/web", headers: ["If-Match": "\"5\""], body: body)
            #expect(again.status == 200)
            #expect(again.headers["location"] == nil)
            #expect(backend.state.withLock { $0.puts.last?.2 } == .version(5))
        }
    }

    @Test(arguments: [
        ("POST", "/v1/apps/web/scale", #"{"replicas":3}"#, 202), ("POST", "/v1/apps/web/restart", "", 202),
        ("DELETE", "/v1/apps/web", "", 202), ("GET", "/v1/tasks?app=web&all=true", "", 200),
        ("GET", "/v1/services", "", 200), ("GET", "/v1/services/web", "", 200), ("GET", "/v1/nodes", "", 200),
        ("PATCH", "/v1/nodes/n1", #"{"labels": {"zone": "eu", "old": null}}"#, 404),
        ("GET", "/v1/why/app/web", "", 200),
        ("GET", "/v1/status", "", 200), ("GET", "/v1/cluster", "", 200), ("GET", "/v1/snapshots", "", 200),
        ("POST", "/v1/backup", "", 507), ("POST", "/v1/renew", #"{"certificate":"","request":"","signature":""}"#, 403),
        ("POST", "/v1/snapshots", "", 201), ("POST", "/v1/cluster/transfer-leader", "", 200),
        ("GET", "/v1/volumes", "", 200),
        ("GET", "/v1/volumes/data", "", 200), ("PUT", "/v1/volumes/new", "", 201), ("PUT", "/v1/volumes/old", "", 200),
        ("DELETE", "/v1/volumes/data", "", 204), ("GET", "/v1/images", "", 200),
        ("POST", "/v1/images/pull", #"{"image":"nginx"}"#, 200), ("DELETE", "/v1/images?name=nginx", "", 204),
        ("POST", "/v1/query", #"{"sql":"select 1"}"#, 200), ("GET", "/version", "", 200), ("GET", "/health", "", 200),
        ("GET", "/ready", "", 200), ("GET", "/metrics", "", 200), ("HEAD", "/v1/apps", "", 200),
    ])
    func `each operation answers with its status`(
        _ row: (method: String, target: String, body: String, status: Int)
    ) async throws {
        try await withServer { server async throws in
            let answer = try await server.request(row.method, row.target, body: row.body.isEmpty ? nil : row.body)
            #expect(answer.status == row.status, "\(answer.text)")
            #expect(answer.headers["x-request-id"]?.isEmpty == false)
        }
    }

    @Test func `a node that is not ready says so but is healthy`() async throws {
        let backend = FakeBackend()
        backend.state.withLock { $0.isReady = false }
        try await withServer(backend) { server async throws in
            #expect(try await server.request("GET", "/health").status == 200)
            let ready = try await server.request("GET", "/ready")
            #expect(ready.status == 503)
            #expect(ready.problem?.code == .runtimeUnavailable)
        }
    }

    @Test func `metrics of the node and of the API come as text`() async throws {
        try await withServer { server async throws in
            _ = try await server.request("GET", "/v1/nothing")
            let answer = try await server.request("GET", "/metrics")
            #expect(answer.headers["content-type"]?.hasPrefix("text/plain") == true)
            #expect(answer.text.contains("hivemind_tasks 1\n"))
            #expect(answer.text.contains("hivemind_api_requests_total{status=\"4xx\"} 1\n"))
        }
    }

    @Test func `configs are compared and set by their tag`() async throws {
        try await withServer { server async throws in
            func put(_ data: String, _ headers: [String: String] = [:]) async throws -> RawConnection.Answer {
                try await server.request(
                    "PUT", "/v1/configs/team%2Fa.json", headers: headers, body: "{\"data\":\"\(data)\"}")
            }
            let first = try await put("1", ["If-None-Match": "*"])
            #expect(first.status == 200)
            #expect(try first.json(ConfigView.self).name == "team/a.json")
            let tag = try #require(first.headers["etag"])
            #expect(tag == "\"8\"")
            #expect(try await put("2", ["If-None-Match": "*"]).status == 412)
            #expect(try await put("2", ["If-Match": "\"99\""]).problem?.code == .preconditionFailed)
            #expect(try await put("2", ["If-Match": tag]).status == 200)
            // The slash may also be written as it is.
            let read = try await server.request("GET", "/v1/configs/team/a.json")
            #expect(try read.json(ConfigView.self).data == "2")
            #expect(read.headers["etag"] == "\"9\"")
            let list = try await server.request("GET", "/v1/configs?prefix=team%2F")
            #expect(try list.json(ItemList<ConfigView>.self).items.count == 1)
            #expect(
                try await server.request("DELETE", "/v1/configs/team%2Fa.json", headers: ["If-Match": "\"8\""]).status
                    == 412)
            #expect(try await server.request("DELETE", "/v1/configs/team%2Fa.json").status == 204)
            #expect(try await server.request("GET", "/v1/configs/team%2Fa.json").status == 404)
        }
    }

    @Test(arguments: ["W/\"3\"", "3", "\"three\"", "\"3\", \"4\"", "*", "\"\""])
    func `a condition that is not one strong version is refused`(tag: String) async throws {
        try await withServer { server async throws in
            let answer = try await server.request(
                "PUT", "/v1/configs/a", headers: ["If-Match": tag], body: #"{"data":""}"#)
            #expect(answer.status == 400)
            #expect(answer.problem?.hint != nil)
        }
    }

    @Test func `two conditions cannot be combined and If-None-Match takes only a star`() async throws {
        try await withServer { server async throws in
            let both = ["If-Match": "\"1\"", "If-None-Match": "*"]
            #expect(try await server.request("PUT", "/v1/apps/web", headers: both, body: spec).status == 400)
            #expect(
                try await server.request("PUT", "/v1/apps/web", headers: ["If-None-Match": "\"1\""], body: spec).status
                    == 400)
        }
    }

    @Test func `one connection serves many requests also after refusals`() async throws {
        try await withServer { server async throws in
            let socket = server.socket
            let statuses = try await onThread {
                let connection = try RawConnection(socket)
                return try ["/v1/apps", "/v1/nothing", "/v1/apps/gone", "/version"].map {
                    try connection.request("GET", $0).status
                }
            }
            #expect(statuses == [200, 404, 404, 200])
        }
    }
}
