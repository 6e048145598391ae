// SPDX-License-Identifier: Apache-2.0
import HTTPClient
import Model
import Synchronization
import Testing

@testable import ContainerRuntime

struct RegistryReferenceTests {
    @Test(arguments: [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("user/app", "docker.io/user/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b/c:v1", "localhost:5000/a/b/c:v1"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("Registry/app", "Registry/app:latest"),
        ("ghcr.io/a/b__c.d-e---f", "ghcr.io/a/b__c.d-e---f:latest"),
        ("quay.io/x/y:V_1.0-rc", "quay.io/x/y:V_1.0-rc"),
    ])
    func `a reference is completed as docker does`(text: String, full: String) throws {
        #expect(try ImageReference(text).description == full)
        #expect(try ImageReference(full).description == full)
    }

    @Test
    func `a digest stands beside or instead of the tag`() throws {
        let digest = "sha256:" + String(repeating: "ab", count: 32)
        #expect(try ImageReference("nginx@\(digest)").description == "docker.io/library/nginx@\(digest)")
        #expect(try ImageReference("nginx:1@\(digest)").description == "docker.io/library/nginx:1@\(digest)")
        #expect(try ImageReference("nginx:1@\(digest)").manifestKey == digest)
    }

    @Test(arguments: [
        "", " ", "nginx:", ":tag", "nginx:-x", "Nginx", "a//b", "/a", "a/", "-a", "a-", "a..b", "a___b", "nginx:a b",
        "nginx@sha256:12", "nginx@md5:d41d8cd98f00b204e9800998ecf8427e", "host:99999/a", "ho_st.x/a", "ex ample.com/a",
        "https://docker.io/nginx", "../etc", String(repeating: "a1", count: 32), String(repeating: "a", count: 600),
    ])
    func `a wrong reference is refused with a hint`(text: String) {
        let error = #expect(throws: ImageError.self) { _ = try ImageReference(text) }
        #expect(error?.reason.code == .imageInvalid)
        #expect(error?.reason.hint != nil)
    }
}

struct RegistryPartsTests {
    @Test
    func `challenges are read with quotes and several schemes`() {
        let found = AuthChallenge.parse(
            #"Basic realm="x", Bearer realm="https://auth.example/token?a=b",service="reg, istry",SCOPE="a\"b""#)
        #expect(found.map(\.scheme) == ["basic", "bearer"])
        #expect(found.last?.parameters["realm"] == "https://auth.example/token?a=b")
        #expect(found.last?.parameters["service"] == "reg, istry")
        #expect(found.last?.parameters["scope"] == "a\"b")
        #expect(AuthChallenge.parse("").isEmpty)
        #expect(AuthChallenge.parse("Negotiate").map(\.scheme) == ["negotiate"])
        #expect(AuthChallenge.parse("Bearer realm=\"open").map(\.scheme) == ["bearer"])
    }

    private func entry(_ os: String, _ architecture: String, _ variant: String? = nil) -> Descriptor {
        Descriptor(
            mediaType: MediaType.ociManifest, digest: "\(os)-\(architecture)-\(variant ?? "")", size: 1,
            platform: Platform(os: os, architecture: architecture, variant: variant))
    }

    @Test
    func `the platform's own variant is chosen, then none, never an attestation`() {
        let amd = Platform(os: "linux", architecture: "amd64", variant: nil)
        let arm = Platform(os: "linux", architecture: "arm64", variant: "v8")
        let all = [
            entry("unknown", "unknown"), entry("windows", "amd64"), entry("linux", "amd64", "v3"),
            entry("linux", "amd64"), entry("linux", "arm64"), entry("linux", "arm64", "v8"),
        ]
        #expect(amd.choose(from: all)?.digest == "linux-amd64-")
        #expect(arm.choose(from: all)?.digest == "linux-arm64-v8")
        #expect(arm.choose(from: [entry("linux", "arm64")])?.digest == "linux-arm64-")
        #expect(amd.choose(from: [entry("linux", "arm64"), entry("unknown", "unknown")]) == nil)
        #expect(Platform.names(of: all).contains("linux/arm64/v8"))
        #expect(!Platform.names(of: all).contains("unknown/unknown"))
    }

    @Test
    func `chain ids follow the image specification`() {
        let (a, b) = ("sha256:" + String(repeating: "a", count: 64), "sha256:" + String(repeating: "b", count: 64))
        #expect(Digest.chain([a]) == a)
        #expect(Digest.chain([a, b]) == Digest.of("\(a) \(b)".utf8))
        #expect(Digest.of([]) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    }
}

struct RegistryClientTests {
    private static let manifest = Array(
        #"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#.utf8)
    private let client = RegistryClient(http: HTTPClient())

    @Test
    func `a token is fetched once and used from then on`() async throws {
        let port = Mutex<UInt16>(0)
        let server = try HTTPTestServer { request, connection in
            if request.path.hasPrefix("/token") {
                return connection.answer(200, [:], Array(#"{"token":"secret"}"#.utf8))
            }
            guard request.headers["authorization"] == "Bearer secret" else {
                let realm = "http://127.0.0.1:\(port.withLock { $0 })/token"
                return connection.answer(
                    401, ["WWW-Authenticate": "Bearer realm=\"\(realm)\",service=\"s x\",scope=\"repository:a/b:pull\""]
                )
            }
            connection.answer(200, ["Docker-Content-Digest": Digest.of(Self.manifest)], Self.manifest)
        }
        defer { server.stop() }
        port.withLock { $0 = server.port }
        let reference = try ImageReference("\(server.host)/a/b:1")
        let fetched = try await client.manifest(of: reference, key: "1")
        #expect(fetched.descriptor.digest == Digest.of(Self.manifest))
        _ = try await client.manifest(of: reference, key: "1")
        let tokens = server.requests.filter { $0.path.hasPrefix("/token") }
        #expect(tokens.map(\.path) == ["/token?scope=repository%3Aa%2Fb%3Apull&service=s%20x"])
    }

    @Test
    func `a blob that breaks off is resumed and each byte comes once`() async throws {
        let blob = (0..<5_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let server = try HTTPTestServer { request, connection in
            let from = request.headers["range"].flatMap { Int($0.dropFirst(6).dropLast()) } ?? 0
            let end = from == 0 ? 2_000_000 : blob.count
            connection.send(
                "HTTP/1.1 \(from == 0 ? 200 : 206) X\r\nContent-Length: \(blob.count - from)\r\n\r\n")
            connection.send(Array(blob[from..<end]))
        }
        defer { server.stop() }
        let reference = try ImageReference("\(server.host)/a/b:1")
        let descriptor = Descriptor(mediaType: "x", digest: Digest.of(blob), size: Int64(blob.count))
        let got = Mutex<[UInt8]>([])
        try await client.blob(descriptor, of: reference) { bytes throws(ImageError) in got.withLock { $0 += bytes } }
        #expect(got.withLock { $0 } == blob)
        #expect(server.requests.count == 2)
        #expect(server.requests.last?.headers["range"]?.hasPrefix("bytes=") == true)
    }

    @Test
    func `wrong content is refused`() async throws {
        let server = try HTTPTestServer { _, connection in connection.answer(200, [:], Self.manifest) }
        defer { server.stop() }
        let reference = try ImageReference("\(server.host)/a/b:1")
        let other = "sha256:" + String(repeating: "0", count: 64)
        let first = await #expect(throws: ImageError.self) { _ = try await client.manifest(of: reference, key: other) }
        #expect(first?.reason.code == .digestMismatch)
        for size in [Self.manifest.count, Self.manifest.count - 1, Self.manifest.count + 1] {
            let descriptor = Descriptor(mediaType: "x", digest: other, size: Int64(size))
            let error = await #expect(throws: ImageError.self) {
                _ = try await client.blob(descriptor, of: reference, bytesMax: 1 << 20)
            }
            #expect(error?.reason.code == .digestMismatch)
        }
    }

    @Test(arguments: [
        (404, Reason.Code.imageNotFound), (401, .registryDenied), (403, .registryDenied), (500, .registryUnreachable),
    ])
    func `a refusal becomes a reason`(status: Int, code: Reason.Code) async throws {
        let server = try HTTPTestServer { _, connection in
            connection.answer(status, [:], Array(#"{"errors":[{"code":"WHY","message":"because"}]}"#.utf8))
        }
        defer { server.stop() }
        let reference = try ImageReference("\(server.host)/a/b:1")
        let error = await #expect(throws: ImageError.self) {
            _ = try await client.manifest(of: reference, key: "1", attempts: 2)
        }
        #expect(error?.reason.code == code)
        #expect(error?.reason.message.contains("because") == true)
        #expect(server.requests.count == (status == 500 ? 2 : 1))
    }

    @Test
    func `only loopback and named registries are spoken to in plain text`() {
        let client = RegistryClient(http: HTTPClient(), insecureRegistries: ["reg.lan:5000"])
        #expect(client.baseURL(of: "docker.io") == "https://registry-1.docker.io")
        #expect(client.baseURL(of: "localhost:5000") == "http://localhost:5000")
        #expect(client.baseURL(of: "127.0.0.1") == "http://127.0.0.1")
        #expect(client.baseURL(of: "reg.lan:5000") == "http://reg.lan:5000")
        #expect(client.baseURL(of: "reg.lan") == "https://reg.lan")
        #expect(client.baseURL(of: "127.0.0.1.example.com") == "https://127.0.0.1.example.com")
    }
}
