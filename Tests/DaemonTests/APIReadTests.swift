// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import Synchronization
import TestSupport
import Testing

@testable import Daemon

/// How current reads are, and what is said when nobody leads.
@Suite struct APIReadTests {
    @Test(arguments: [
        ("/v1/apps", ReadConsistency.local), ("/v1/tasks", .local), ("/v1/services", .local), ("/v1/nodes", .local),
        ("/v1/volumes", .local), ("/v1/configs", .local), ("/v1/cluster", .local), ("/v1/status", .local),
        ("/v1/apps/web/logs", .local), ("/v1/apps/web", .linearizable), ("/v1/services/web", .linearizable),
        ("/v1/volumes/data", .linearizable), ("/v1/configs/a", .linearizable), ("/v1/tasks/t", .linearizable),
        ("/v1/nodes/n1", .linearizable), ("/v1/operations/op1", .linearizable),
    ])
    func `an object is read linearizably and a list locally unless the request says otherwise`(
        _ row: (path: String, standard: ReadConsistency)
    ) async throws {
        let backend = FakeBackend()
        try await withServer(backend) { server async throws in
            _ = try await server.request("GET", row.path)
            #expect(backend.state.withLock { $0.barriers } == [row.standard])
            for consistency in ReadConsistency.allCases {
                _ = try await server.request("GET", "\(row.path)?consistency=\(consistency.rawValue)")
                #expect(backend.state.withLock { $0.barriers.last } == consistency)
            }
        }
    }

    @Test func `what is read locally says for how long no leader was known`() async throws {
        let backend = FakeBackend()
        try await withServer(backend) { server async throws in
            let name = "hivemind-leaderless-milliseconds"
            #expect(try await server.request("GET", "/v1/apps").headers[name] == nil)
            backend.state.withLock { $0.hasLeader = false }
            #expect(try await server.request("GET", "/v1/apps").headers[name] == "7000")
        }
    }

    @Test func `what was read before the confirmation counts when nothing had to be applied`() async throws {
        let backend = FakeBackend(onBarrier: { backend in
            try await eventually("the early read") { backend.state.withLock { $0.configReads == 1 } }
        })
        try await withServer(backend) { server async throws in
            #expect(try await server.request("GET", "/v1/configs/a").status == 404)
            #expect(backend.state.withLock { $0.configReads } == 1)
        }
    }

    @Test func `what was read before the confirmed entry was applied is read again`() async throws {
        let backend = FakeBackend(onBarrier: { backend in
            try await eventually("the early read") { backend.state.withLock { $0.configReads == 1 } }
            _ = try await backend.putConfig(ObjectKey(namespace: "default", name: "a"), "new", .none)
        })
        try await withServer(backend) { server async throws in
            let answer = try await server.request("GET", "/v1/configs/a")
            #expect(try answer.json(ConfigView.self).data == "new")
            #expect(backend.state.withLock { $0.configReads } == 2)
        }
    }

    @Test func `without a leader objects are refused, local reads and the truth about the cluster are not`()
        async throws
    {
        let backend = FakeBackend()
        backend.state.withLock { $0.hasLeader = false }
        try await withServer(backend) { server async throws in
            let refused = try await server.request("GET", "/v1/apps/web")
            #expect(refused.status == 503)
            #expect(refused.problem?.code == .noLeader)
            #expect(refused.problem?.hint?.isEmpty == false)
            for path in [
                "/v1/apps/web?consistency=local", "/v1/apps", "/v1/status", "/v1/cluster", "/v1/snapshots", "/health",
                "/metrics",
            ] {
                let answer = try await server.request("GET", path)
                #expect(answer.status == 200, "\(path)")
                if path.hasPrefix("/v1") { #expect(answer.headers["hivemind-index"] != nil, "\(path)") }
            }
        }
    }

    @Test func `leadership is handed to whom the request names or the furthest voter`() async throws {
        let backend = FakeBackend()
        try await withServer(backend) { server async throws in
            func transfer(_ body: String?) async throws -> RawConnection.Answer {
                try await server.request("POST", "/v1/cluster/transfer-leader", body: body)
            }
            #expect(try await transfer(nil).json(LeaderView.self).leader == "n2")
            #expect(try await transfer("{}").status == 200)
            #expect(
                try await transfer(#"{"to":"n2"}"#).json(LeaderView.self)
                    == LeaderView(leader: "n2", previous: "n1", term: 2))
            #expect(try await transfer(#"{"to":"n3"}"#).status == 409)
            #expect(try await transfer(#"{"to":"n4"}"#).status == 504)
            #expect(try await transfer(#"{"to":"n9"}"#).status == 404)
            #expect(try await transfer(#"{"to":""}"#).status == 400)
            #expect(try await transfer(#"{"to":7}"#).status == 400)
            #expect(backend.state.withLock { $0.transfers } == [nil, nil, "n2", "n3", "n4", "n9"])
        }
    }

    @Test func `a snapshot is taken now and listed`() async throws {
        try await withServer { server async throws in
            let taken = try await server.request("POST", "/v1/snapshots")
            #expect(taken.status == 201)
            let snapshot = try taken.json(SnapshotView.self)
            #expect(snapshot.index == 7 && snapshot.sha256 == "00")
            let list = try await server.request("GET", "/v1/snapshots")
            #expect(try list.json(ItemList<SnapshotView>.self).items == [snapshot])
        }
    }

    @Test func `absent values of status and cluster are null, not missing`() throws {
        let status = StatusView(
            node: "a", role: "voter", term: 1, appliedIndex: 1, leader: nil, version: "1",
            runtime: RuntimeInfo(kind: "simulated", version: "1", address: "", isReady: true), apps: 0, tasksRunning: 0,
            uptimeSeconds: 0, conditions: [])
        let member = MemberView(id: "n", name: "a", address: "", role: "voter", matchIndex: nil, lastContactMs: nil)
        let texts = try [
            String(decoding: JSON.encode(status), as: UTF8.self), String(decoding: JSON.encode(member), as: UTF8.self),
        ]
        for name in ["leader", "log", "fsync", "snapshot"] { #expect(texts[0].contains("\"\(name)\":null"), "\(name)") }
        for name in ["match_index", "last_contact_ms", "lag"] {
            #expect(texts[1].contains("\"\(name)\":null"), "\(name)")
        }
    }
}
