// SPDX-License-Identifier: Apache-2.0
import Foundation
import HTTPTypes
import Logging
import Model
import NIOPosix
import ServiceLifecycle
import Store
import Synchronization
import TestSupport
import Testing

@testable import Daemon

/// The API on TCP, with real TLS on loopback and `curl` as the client.
@Suite(.enabled(if: Host.program("curl") != nil, "needs curl")) struct APIIdentityTests {
    private let house = House()

    /// Tokens of a test, by what they are.
    private struct House: Sendable {
        let viewer = Self.make(1), worker = Self.make(2), admin = Self.make(3)
        let bound = Self.make(4), expired = Self.make(5), stranger = Self.make(6)

        private static func make(_ byte: UInt8) -> APIToken? {
            APIToken(
                identity: [UInt8](repeating: byte, count: APIToken.identityBytes),
                secret: [UInt8](repeating: byte &* 7, count: APIToken.secretBytes))
        }

        func rows(now: Timestamp = Clock.now()) -> [APITokenRow] {
            func row(_ token: APIToken?, _ role: APIRole, namespace: String? = nil, life: Int64 = 60_000)
                -> APITokenRow?
            {
                token.map {
                    APITokenRow(
                        id: $0.id, name: "\(role)", hash: NodeBackend.hex(Authentication.digest(of: $0)), role: role,
                        namespace: namespace, createdAt: now, expiresAt: now + life)
                }
            }
            return [
                row(viewer, .viewer), row(worker, .operator), row(admin, .admin),
                row(bound, .operator, namespace: "shop"), row(expired, .admin, life: -1_000),
            ].compactMap { $0 }
        }
    }

    private struct Listener: Sendable {
        var port: Int
        var directory: TemporaryDirectory
        var backend: FakeBackend
        var recorder: PeerRecorder

        struct Answer: Sendable {
            var status: Int
            var text: String
            var problem: Problem? { try? JSON.decode(Problem.self, from: Data(text.utf8)) }
            func json<Value: Decodable>(_ type: Value.Type) throws -> Value {
                try JSON.decode(type, from: Data(text.utf8))
            }
        }

        func request(
            _ method: String, _ target: String, token: String? = nil, body: String? = nil, _ more: String...
        ) async throws -> Answer {
            var arguments = [
                "curl", "-sS", "-m", "20", "--noproxy", "*", "--tlsv1.3", "--cacert", directory.file("ca.pem"),
                "--resolve", "n1:\(port):127.0.0.1", "-X", method, "-w", "\n%{http_code}",
                "https://n1:\(port)\(target)",
            ]
            if let token { arguments += ["-H", "Authorization: Bearer \(token)"] }
            if let body { arguments += ["-H", "Content-Type: application/json", "--data-binary", body] }
            let output = try await Shell.run(arguments + more).checked().stdout
            let lines = output.split(separator: "\n", omittingEmptySubsequences: false)
            return Answer(
                status: Int(lines.last ?? "") ?? 0, text: lines.dropLast().joined(separator: "\n"))
        }
    }

    private func withListener(
        _ backend: FakeBackend = FakeBackend(), limits: RequestLimits = RequestLimits(),
        _ body: @Sendable (Listener) async throws -> Void
    ) async throws {
        let directory = try TemporaryDirectory("listener")
        defer { directory.remove() }
        let authority = try CertificateAuthority.make(clusterID: "c1", now: Date())
        try directory.write(authority.certificateText, to: "ca.pem")
        for name in ["n1", "gone"] {
            let request = try CertificateRequest(name: name)
            let certificate = try authority.issue(
                request.request, to: CertificateAuthority.Subject(name: name, node: "\(name)-id", clusterID: "c1"),
                now: Date())
            try directory.write(try CertificateAuthority.text(of: certificate), to: "\(name).pem")
            try directory.write(try request.keyText, to: "\(name).key")
        }
        let certificates = try await PeerCertificates.load(
            CertificateFiles(
                authority: directory.file("ca.pem"), certificate: directory.file("n1.pem"),
                key: directory.file("n1.key")), name: "n1")
        backend.state.withLock {
            $0.tokens = house.rows()
            $0.certified = [PeerConfiguration.uri(clusterID: "c1", node: "n1-id"): "n1"]
        }
        let recorder = PeerRecorder()
        let logger = Logger(label: "test") { _ in RecordingLog(recorder: recorder) }
        try Spool(dataDirectory: directory.path, limits: limits).prepare()
        let (ports, told) = AsyncStream.makeStream(of: Int.self)
        let listener = TLSListener(
            address: PeerAddress(host: "127.0.0.1", port: 0), dataDirectory: directory.path, backend: backend,
            certificates: certificates, eventLoopGroup: MultiThreadedEventLoopGroup.singleton, logger: logger,
            version: VersionView(version: "1", api: "v1"), limits: limits, metrics: APIMetrics(),
            onListening: { told.yield($0) })
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: [.init(service: listener, successTerminationBehavior: .gracefullyShutdownGroup)],
                logger: Logger(label: "group") { _ in SwiftLogNoOpLogHandler() }))
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                defer { told.finish() }
                try await group.run()
            }
            let result: Result<Void, any Error>
            do {
                guard let port = await ports.first(where: { _ in true }) else { throw TestFailure("nobody listens") }
                try await body(Listener(port: port, directory: directory, backend: backend, recorder: recorder))
                result = .success(())
            } catch { result = .failure(error) }
            await group.triggerGracefulShutdown()
            try await tasks.waitForAll()
            try result.get()
        }
    }

    // MARK: - Who

    @Test func `without a token only what is for anybody is answered`() async throws {
        try await withListener { listener in
            for target in ["/health", "/ready", "/version", "/v1/authority"] {
                #expect(try await listener.request("GET", target).status == 200, "\(target)")
            }
            for (method, target) in [
                ("GET", "/v1/apps"), ("GET", "/metrics"), ("POST", "/v1/query"), ("GET", "/v1/whoami"),
            ] {
                let answer = try await listener.request(method, target)
                #expect(answer.status == 401 && answer.problem?.code == .unauthenticated, "\(target): \(answer)")
                #expect(answer.problem?.detail.contains("no token") == true)
                #expect(answer.problem?.hint?.contains("auth token create") == true)
            }
        }
    }

    @Test func `a token that is malformed, unknown or expired is refused by name, and nothing of it is logged`()
        async throws
    {
        let (viewer, expired, stranger) = (
            try #require(house.viewer), try #require(house.expired), try #require(house.stranger)
        )
        // The id of one token with the secret of another.
        let mixed = "hm_\(viewer.id)_\(Base32.text(stranger.secret))"
        let cases = [
            ("nonsense", "malformed"), (String(viewer.text.dropLast(3)), "malformed"), ("", "malformed"),
            ("hmj_0123", "malformed"), (String(repeating: "x", count: 4_000), "malformed"),
            (stranger.text, "not known"), (mixed, "not known"), (expired.text, "expired at"),
        ]
        try await withListener { listener in
            for (token, says) in cases {
                let answer = try await listener.request("GET", "/v1/apps", token: token)
                #expect(answer.status == 401, "\(token): \(answer)")
                #expect(answer.problem?.detail.contains(says) == true, "\(token): \(answer)")
                #expect(answer.problem?.hint?.isEmpty == false)
            }
            let log = listener.recorder.log
            #expect(log.contains { $0.contains("a request was refused") && $0.contains("from=127.0.0.1") })
            // The same from the same once a minute, however often it comes.
            #expect(log.filter { $0.contains("a request was refused") }.count == 1)
            for secret in [viewer.secret, expired.secret, stranger.secret] {
                #expect(!log.contains { $0.contains(Base32.text(secret)) })
            }
        }
    }

    @Test func `a good token says who it is, until it is revoked`() async throws {
        let (worker, admin) = (try #require(house.worker), try #require(house.admin))
        try await withListener { listener in
            let who = try await listener.request("GET", "/v1/whoami", token: worker.text).json(IdentityView.self)
            #expect(who.kind == "token" && who.token == worker.id && who.role == "operator" && who.expiresAt != nil)
            // Upper case and look-alikes are the same token: it may have been read out.
            let shouted = "hm_\(worker.id.uppercased())_\(Base32.text(worker.secret).uppercased())"
            #expect(try await listener.request("GET", "/v1/apps", token: shouted).status == 200)
            #expect(try await listener.request("DELETE", "/v1/tokens/\(worker.id)", token: admin.text).status == 204)
            #expect(try await listener.request("GET", "/v1/apps", token: worker.text).status == 401)
        }
    }

    @Test func `a stream without an end goes on as long as its token is good`() async throws {
        let (worker, admin) = (try #require(house.worker), try #require(house.admin))
        var limits = RequestLimits()
        (limits.bookmark, limits.recheck) = (.milliseconds(50), .milliseconds(50))
        try await withListener(limits: limits) { listener in
            let path = listener.directory.file("events")
            let stream = Task {
                try await listener.request("GET", "/v1/events", token: worker.text, body: nil, "-N", "-o", path)
            }
            try await eventually("it says something") {
                (FileManager.default.contents(atPath: path)?.count ?? 0) > 0
            }
            #expect(try await listener.request("DELETE", "/v1/tokens/\(worker.id)", token: admin.text).status == 204)
            do {
                Issue.record("the body is left unfinished, not ended: \(try await stream.value)")
            } catch { #expect(!"\(error)".contains("timed out"), "\(error)") }
        }
    }

    @Test func `the certificate of a node is an admin's, that of a removed one or of another cluster is none`()
        async throws
    {
        try await withListener { listener in
            func with(_ name: String) async throws -> Listener.Answer {
                try await listener.request(
                    "GET", "/v1/tokens", token: nil, body: nil, "--cert", listener.directory.file("\(name).pem"),
                    "--key", listener.directory.file("\(name).key"))
            }
            #expect(try await with("n1").status == 200)
            let gone = try await with("gone")
            #expect(gone.status == 401 && gone.problem?.detail.contains("names no node") == true, "\(gone)")
            let foreign = try CertificateAuthority.make(clusterID: "c1", now: Date())
            let request = try CertificateRequest(name: "n1")
            let certificate = try foreign.issue(
                request.request, to: CertificateAuthority.Subject(name: "n1", node: "n1-id", clusterID: "c1"),
                now: Date())
            try listener.directory.write(try CertificateAuthority.text(of: certificate), to: "foreign.pem")
            try listener.directory.write(try request.keyText, to: "foreign.key")
            // The handshake ends it.
            await #expect(throws: (any Error).self) { _ = try await with("foreign") }
        }
    }

    // MARK: - What

    @Test func `a viewer reads, an operator runs apps, an admin does everything, each refusal says who may`()
        async throws
    {
        let (viewer, worker, admin) = (
            try #require(house.viewer), try #require(house.worker), try #require(house.admin)
        )
        let spec = #"{"services":[{"name":"web","image":"nginx"}]}"#
        try await withListener { listener in
            for token in [viewer, worker, admin] {
                #expect(try await listener.request("GET", "/v1/apps", token: token.text).status == 200)
                let query = try await listener.request(
                    "POST", "/v1/query", token: token.text, body: #"{"sql":"select 1"}"#)
                #expect(query.status == 200)
            }
            let deploy = try await listener.request("PUT", "/v1/apps/web", token: viewer.text, body: spec)
            #expect(
                deploy.status == 403 && deploy.problem?.detail.contains("an operator or an admin") == true, "\(deploy)")
            #expect(deploy.problem?.hint?.contains("--role operator") == true)
            #expect(listener.backend.state.withLock { $0.puts.isEmpty }, "nothing changed")
            #expect(try await listener.request("PUT", "/v1/apps/web", token: worker.text, body: spec).status == 202)
            for (method, target) in [
                ("GET", "/v1/tokens"), ("DELETE", "/v1/nodes/n1"), ("POST", "/v1/snapshots"), ("POST", "/v1/backup"),
                ("POST", "/v1/cluster/tokens"),
            ] {
                let answer = try await listener.request(method, target, token: worker.text)
                #expect(
                    answer.status == 403 && answer.problem?.detail.contains("an admin") == true, "\(target): \(answer)")
            }
            let pin = try await listener.request(
                "PATCH", "/v1/nodes/n1", token: worker.text, body: #"{"role":"voter"}"#)
            #expect(pin.status == 403, "\(pin)")
            let drain = try await listener.request(
                "PATCH", "/v1/nodes/n1", token: worker.text, body: #"{"availability":"drained"}"#)
            #expect(drain.status == 404, "may, but there is none: \(drain)")
            #expect(try await listener.request("GET", "/v1/tokens", token: admin.text).status == 200)
        }
    }

    @Test func `a token of a namespace works in it, and nowhere else`() async throws {
        let bound = try #require(house.bound)
        let spec = #"{"services":[{"name":"web","image":"nginx"}]}"#
        let host =
            #"{"services":[{"name":"web","image":"nginx","mounts":[{"type":"bind","source":"/etc","target":"/e"}]}]}"#
        let strong = #"{"services":[{"name":"web","image":"nginx","capabilities_add":["sys_admin"]}]}"#
        try await withListener { listener in
            func ask(_ method: String, _ target: String, _ body: String? = nil) async throws -> Listener.Answer {
                try await listener.request(method, target, token: bound.text, body: body)
            }
            // Without a namespace its own is meant.
            #expect(try await ask("PUT", "/v1/apps/web", spec).status == 202)
            #expect(listener.backend.state.withLock { $0.puts.first?.0.namespace } == "shop")
            #expect(try await ask("GET", "/v1/apps?namespace=shop").status == 200)
            for (method, target, body) in [
                ("GET", "/v1/apps?namespace=default", nil), ("PUT", "/v1/apps/web?namespace=default", spec),
                ("POST", "/v1/query", #"{"sql":"select 1"}"#), ("GET", "/v1/images", nil),
                ("GET", "/v1/why/node/n1", nil),
                ("PATCH", "/v1/nodes/n1", "{}"), ("GET", "/metrics", nil), ("PUT", "/v1/apps/web", host),
                ("PUT", "/v1/apps/web", strong),
            ] {
                let answer = try await ask(method, target, body)
                #expect(
                    answer.status == 403 && answer.problem?.detail.contains("`shop`") == true, "\(target): \(answer)")
            }
            #expect(try await ask("GET", "/v1/nodes").status == 200)
            // Of another namespace: as if it were not there.
            #expect(try await ask("GET", "/v1/operations/op1").status == 404)
        }
    }

    @Test func `whether one may is answered before one tries`() async throws {
        let (viewer, bound) = (try #require(house.viewer), try #require(house.bound))
        try await withListener { listener in
            func can(_ token: APIToken, _ query: String) async throws -> Listener.Answer {
                try await listener.request("GET", "/v1/can-i?\(query)", token: token.text)
            }
            #expect(try await can(viewer, "verb=list&kind=apps").json(PermissionView.self).allowed)
            let refused = try await can(viewer, "verb=deploy&kind=app").json(PermissionView.self)
            #expect(!refused.allowed && refused.reason?.contains("an operator") == true)
            #expect(try await can(bound, "verb=deploy&kind=app").json(PermissionView.self).allowed)
            #expect(try await !can(bound, "verb=deploy&kind=app&namespace=x").json(PermissionView.self).allowed)
            for query in ["verb=fly&kind=app", "verb=get&kind=moon", ""] {
                #expect(try await can(viewer, query).status == 400, "\(query)")
            }
        }
    }

    @Test func `uploads and streams work over TLS, and an upload of a stranger is not stored`() async throws {
        let worker = try #require(house.worker)
        let bytes = 3 << 20
        let backend = FakeBackend(onImport: { path in
            let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int
            guard size == bytes else { throw TestFailure("\(size ?? 0) bytes came") }
        })
        try await withListener(backend) { listener in
            let archive = try listener.directory.write(String(repeating: "x", count: bytes), to: "a.tar")
            let stranger = try await listener.request("POST", "/v1/images/import", body: "@\(archive)")
            #expect(stranger.status == 401, "\(stranger)")
            #expect(backend.state.withLock { $0.pathsSeen.isEmpty })
            let taken = try await listener.request("POST", "/v1/images/import", token: worker.text, body: "@\(archive)")
            #expect(taken.status == 200 && backend.state.withLock { $0.pathsSeen.count } == 1, "\(taken)")
            let lines = try await listener.request("GET", "/v1/apps/web/logs?follow=true", token: worker.text)
            #expect(lines.status == 200 && lines.text.contains("line 3"), "\(lines)")
        }
    }

    // MARK: - Bounds

    @Test func `long heads and clients that do not come to an end are cut off`() async throws {
        var limits = RequestLimits()
        limits.idle = .milliseconds(300)
        try await withListener(limits: limits) { listener in
            let long = try await Shell.run([
                "curl", "-sS", "-m", "20", "--noproxy", "*", "-k", "https://127.0.0.1:\(listener.port)/health", "-H",
                "X-Long: \(String(repeating: "a", count: 40_000))", "-o", "/dev/null", "-w", "%{http_code}",
            ])
            #expect(!long.succeeded || Int(long.stdout) ?? 0 >= 400, "\(long)")
            // TCP without TLS, and TLS without a request.
            let silent = try await RawPeer.dial(listener.port, nil)
            #expect(await eventually { silent.seen.withLock { $0.isClosed } })
            #expect(try await listener.request("GET", "/health").status == 200)
        }
    }
}

@Suite struct AuthorizationTests {
    @Test func `every path that changes something is refused to a viewer, and every path is known`() throws {
        let routes = APIServer.routes(version: VersionView(version: "1", api: "v1")).routes
        let viewer = Caller(kind: .token, name: "v", role: .viewer)
        var open: [String] = []
        for route in routes {
            let (verb, kind) = Authorization.subject(of: route)
            if route.isPublic {
                open.append("\(route.method.rawValue) \(route.parts)")
                continue
            }
            #expect(kind != .other, "\(route.method) \(route.parts) is in no row of the table")
            if verb == .write {
                #expect(throws: Problem.self) { try Authorization.judge(viewer, route, namespace: nil) }
            }
            try Authorization.judge(.root, route, namespace: nil)
        }
        // Health, readiness, version, the authority, what became of a cluster, what a machine says that is to join, and
        // what a node says whose certificate opens nothing.
        #expect(open.count == 8, "\(open)")
    }

    @Test func `a token is read back from its text, and shown to nobody`() throws {
        let token = try #require(APIToken(identity: [1, 2, 3, 4, 5], secret: [UInt8](0..<20)))
        #expect(APIToken(token.text) == token && token.text.hasPrefix("hm_\(token.id)_"))
        var dumped = ""
        dump(token, to: &dumped)
        for text in ["\(token)", dumped, String(reflecting: token)] {
            #expect(!text.contains(Base32.text(token.secret)), "\(text)")
        }
        for slip in [
            "", "hm_", "hm__", "hm_a_b", "\(token.text)0", String(token.text.dropLast()), "x\(token.text)",
            "\(token.text)_",
        ] {
            #expect(APIToken(slip) == nil, "\(slip)")
        }
        #expect(APIToken(identity: [], secret: token.secret) == nil)
    }
}
