// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Glibc
import HTTPClient
import Model
import Testing

@testable import ContainerRuntime

/// A containerd and a registry of one test, in its own directory; both end with it.
private final class ImageLab {
    let directory: TemporaryDirectory
    let client: ContainerdClient
    let store: ImageStore
    let registry: String
    private let containerd: ChildProcess
    private var registryProcess: ChildProcess?
    private let port: UInt16

    static let isPossible =
        getuid() == 0
        && ["containerd", "docker-registry", "skopeo"].allSatisfy { (name: String) in
            access("/usr/bin/" + name, X_OK) == 0
        }

    init() async throws {
        directory = try TemporaryDirectory()
        let path = directory.path
        let config = try directory.write(
            "containerd.toml",
            Array(
                """
                version = 2
                root = "\(path)/root"
                state = "\(path)/state"
                disabled_plugins = ["io.containerd.grpc.v1.cri"]
                [grpc]
                  address = "\(path)/c.sock"
                """.utf8))
        let log = open(path + "/containerd.log", O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        defer { close(log) }
        containerd = try ChildProcess("/usr/bin/containerd", ["-c", config], descriptors: [1: log, 2: log])
        guard try await eventually(30, { access(path + "/c.sock", F_OK) == 0 }) else {
            throw TestFailure("containerd did not start: see \(path)/containerd.log")
        }
        client = try ContainerdClient(address: path + "/c.sock")
        // A port nobody has now; the registry takes it at once.
        let probe = try HTTPTestServer { _, _ in }
        port = probe.port
        probe.stop()
        registry = "127.0.0.1:\(port)"
        store = ImageStore(client: client, snapshotter: "native")
        try await startRegistry()
    }

    func startRegistry() async throws {
        let path = "\(directory.path)/registry.yml"
        if readFile(path) == nil {
            _ = try directory.write(
                "registry.yml",
                Array(
                    """
                    version: 0.1
                    log: {level: error}
                    storage: {filesystem: {rootdirectory: \(directory.path)/registry}}
                    http: {addr: "\(registry)"}
                    """.utf8))
        }
        registryProcess = try ChildProcess("/usr/bin/docker-registry", ["serve", path])
        let url = "http://\(registry)/v2/"
        guard try await eventually(30, { (try? await HTTPClient().send(HTTPRequest(url: url)))?.status == 200 }) else {
            throw TestFailure("docker-registry did not start")
        }
    }

    func stopRegistry() {
        registryProcess?.signal(SIGKILL)
        _ = registryProcess?.wait()
        registryProcess = nil
    }

    func end() async {
        await client.shutdown()
        stopRegistry()
        containerd.signal(SIGTERM)
        _ = containerd.wait()
    }

    // MARK: Images made by hand

    struct Made {
        var manifest: [UInt8]
        var config: [UInt8]
        var layers: [[UInt8]]
        var digest: String { Digest.of(manifest) }
        var chain: String { Digest.chain(layers.map { Digest.of($0) }) }
    }

    func image(_ texts: [String], architecture: String = Platform.current.architecture) -> Made {
        let layers = texts.enumerated().map { number, text in
            TestTar.entry("file\(number)", Array(text.utf8)) + TestTar.end
        }
        let diffIDs = layers.map { "\"\(Digest.of($0))\"" }.joined(separator: ",")
        let config = Array(
            """
            {"architecture":"\(architecture)","os":"linux","config":{"Cmd":["/bin/x"],"Env":["A=b"]},\
            "rootfs":{"type":"layers","diff_ids":[\(diffIDs)]}}
            """.utf8)
        let list = layers.map {
            #"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"\#(Digest.of($0))","size":\#($0.count)}"#
        }
        let manifest = Array(
            """
            {"schemaVersion":2,"mediaType":"\(MediaType.ociManifest)","config":{"mediaType":"\(MediaType.ociConfig)",\
            "digest":"\(Digest.of(config))","size":\(config.count)},"layers":[\(list.joined(separator: ","))]}
            """.utf8)
        return Made(manifest: manifest, config: config, layers: layers)
    }

    func push(_ image: Made, _ repository: String, _ key: String) async throws {
        for blob in image.layers + [image.config] {
            let start = try await HTTPClient().send(
                HTTPRequest(method: "POST", url: "http://\(registry)/v2/\(repository)/blobs/uploads/"))
            let place = try #require(start.headers["Location"])
            let url = place + (place.contains("?") ? "&" : "?") + "digest=" + Digest.of(blob)
            let done = try await HTTPClient().send(
                HTTPRequest(
                    method: "PUT", url: url, headers: ["Content-Type": "application/octet-stream"], body: .bytes(blob)))
            #expect(done.status == 201)
        }
        try await put(image.manifest, MediaType.ociManifest, repository, key)
    }

    func put(_ manifest: [UInt8], _ type: String, _ repository: String, _ key: String) async throws {
        let done = try await HTTPClient().send(
            HTTPRequest(
                method: "PUT", url: "http://\(registry)/v2/\(repository)/manifests/\(key)",
                headers: ["Content-Type": type], body: .bytes(manifest)))
        #expect(done.status == 201)
    }
}

private func withLab(_ body: (ImageLab) async throws -> Void) async throws {
    let lab = try await ImageLab()
    do { try await body(lab) } catch {
        await lab.end()
        throw error
    }
    await lab.end()
}

@Suite(
    .serialized,
    .enabled(if: ImageLab.isPossible, "needs root, containerd, docker-registry and skopeo"))
struct ImageStoreTests {
    @Test
    func `an image is resolved, pulled with all layers, unpacked, listed and removed`() async throws {
        try await withLab { lab in
            let image = lab.image(["one", "two", "three", "four", "two"])
            try await lab.push(image, "team/app", "v1")
            let resolved = try await lab.store.resolve(image: "\(lab.registry)/team/app:v1")
            #expect(resolved.digest == image.digest)
            #expect(!resolved.isLocal)
            // Many at once share one transfer.
            let store = lab.store
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<5 {
                    group.addTask { try await store.pull(image: resolved.reference, digest: resolved.digest) }
                }
                try await group.waitForAll()
            }
            let unpacked = try await lab.store.unpacked(image: resolved.reference, digest: resolved.digest)
            #expect(unpacked.topChainID == image.chain)
            #expect(unpacked.config.command == ["/bin/x"])
            let fresh = ImageStore(client: lab.client, snapshotter: "native")
            #expect(try await fresh.unpacked(image: resolved.reference, digest: resolved.digest) == unpacked)
            #expect(try await fresh.unpacker.exists(image.chain))
            let listed = try await lab.store.images()
            #expect(listed.map(\.name) == [resolved.reference])
            #expect(listed.first?.digest == image.digest)
            #expect((listed.first?.sizeBytes ?? 0) > Int64(image.layers[0].count))

            lab.stopRegistry()
            let local = try await lab.store.resolve(image: resolved.reference)
            #expect(local.digest == image.digest && local.isLocal)
            try await lab.store.pull(image: resolved.reference, digest: resolved.digest)

            try await lab.store.removeImage(resolved.reference)
            #expect(try await lab.store.images().isEmpty)
            #expect(try await lab.store.content.info(image.digest) == nil)
            #expect(try await !lab.store.unpacker.exists(image.chain))
            let gone = await #expect(throws: ImageError.self) { try await lab.store.removeImage(resolved.reference) }
            #expect(gone?.reason.code == .imageNotFound)
            let away = await #expect(throws: ImageError.self) {
                _ = try await lab.store.resolve(image: resolved.reference)
            }
            #expect(away?.reason.code == .registryUnreachable)
        }
    }

    @Test
    func `an index gives the image of this platform and a moved tag keeps the old one`() async throws {
        try await withLab { lab in
            let own = lab.image(["own"])
            let other = lab.image(["other"], architecture: "riscv64")
            for (image, key) in [(own, own.digest), (other, other.digest)] { try await lab.push(image, "multi", key) }
            func index(_ entries: [(ImageLab.Made, String)]) -> [UInt8] {
                let list = entries.map { image, architecture in
                    """
                    {"mediaType":"\(MediaType.ociManifest)","digest":"\(image.digest)","size":\(image.manifest.count),\
                    "platform":{"os":"linux","architecture":"\(architecture)"}}
                    """
                }
                return Array(
                    #"{"schemaVersion":2,"mediaType":"\#(MediaType.ociIndex)","manifests":[\#(list.joined(separator: ","))]}"#
                        .utf8)
            }
            let both = index([(other, "riscv64"), (own, Platform.current.architecture)])
            try await lab.put(both, MediaType.ociIndex, "multi", "latest")
            let name = "\(lab.registry)/multi"
            let resolved = try await lab.store.resolve(image: name)
            #expect(resolved.digest == Digest.of(both))
            try await lab.store.pull(image: name, digest: resolved.digest)
            #expect(try await lab.store.unpacked(image: name, digest: resolved.digest).topChainID == own.chain)

            let foreign = index([(other, "riscv64")])
            try await lab.put(foreign, MediaType.ociIndex, "multi", "foreign")
            let error = await #expect(throws: ImageError.self) {
                try await lab.store.pull(image: name + ":foreign", digest: Digest.of(foreign))
            }
            #expect(error?.reason.code == .platformUnavailable)
            #expect(error?.reason.message.contains("linux/riscv64") == true)

            let next = lab.image(["next"])
            try await lab.push(next, "multi", "latest")
            try await lab.store.pull(image: name, digest: next.digest)
            #expect(try await lab.store.content.info(resolved.digest) != nil)
            #expect(try await lab.store.unpacker.exists(own.chain))
        }
    }

    @Test
    func `missing images and damaged layers are refused and leave nothing`() async throws {
        try await withLab { lab in
            let missing = await #expect(throws: ImageError.self) {
                _ = try await lab.store.resolve(image: "\(lab.registry)/nobody/nothing:1")
            }
            #expect(missing?.reason.code == .imageNotFound)

            let image = lab.image(["good", String(repeating: "bad", count: 1000)])
            try await lab.push(image, "broken", "1")
            let hex = Digest.of(image.layers[1]).dropFirst(7)
            let blob = "\(lab.directory.path)/registry/docker/registry/v2/blobs/sha256/\(hex.prefix(2))/\(hex)/data"
            var bytes = try #require(readFile(blob))
            bytes[700] ^= 1
            unlink(blob)
            _ = try lab.directory.write(String(blob.dropFirst(lab.directory.path.count + 1)), bytes)
            let error = await #expect(throws: ImageError.self) {
                try await lab.store.pull(image: "\(lab.registry)/broken:1", digest: image.digest)
            }
            #expect(error?.reason.code == .digestMismatch)
            #expect(try await lab.store.images().isEmpty)
            #expect(try await lab.store.content.info(Digest.of(image.layers[1])) == nil)
        }
    }

    @Test
    func `archives of both kinds are imported and no registry is asked about them`() async throws {
        try await withLab { lab in
            let image = lab.image(["base", "top"])
            let (id, top) = (Digest.of(image.config).dropFirst(7), image.layers[1])
            let legacy =
                TestTar.entry("\(id).json", image.config) + TestTar.entry("a/layer.tar", image.layers[0])
                + TestTar.entry("b/layer.tar", type: "2", link: "../c/layer.tar") + TestTar.entry("c/layer.tar", top)
                + TestTar.entry(
                    "manifest.json",
                    Array(
                        #"[{"Config":"\#(id).json","RepoTags":["legacy:1","legacy:2"],"Layers":["a/layer.tar","b/layer.tar"]}]"#
                            .utf8))
                + TestTar.end
            let first = try await lab.store.importImages(archive: lab.directory.write("legacy.tar", legacy), name: nil)
            #expect(first.map(\.name) == ["docker.io/library/legacy:1", "docker.io/library/legacy:2"])
            let resolved = try await lab.store.resolve(image: "legacy:1")
            #expect(resolved.isLocal)
            #expect(try await lab.store.unpacked(image: "legacy:1", digest: resolved.digest).topChainID == image.chain)

            try await lab.push(image, "team/app", "v1")
            let path = lab.directory.path + "/oci.tar"
            let status = try ChildProcess.run(
                "/usr/bin/skopeo",
                [
                    "copy", "--src-tls-verify=false", "docker://\(lab.registry)/team/app:v1",
                    "oci-archive:\(path):latest",
                ])
            #expect(status == 0)
            let nameless = await #expect(throws: ImageError.self) {
                _ = try await lab.store.importImages(archive: path, name: nil)
            }
            #expect(nameless?.reason.hint?.contains("--name") == true)
            let second = try await lab.store.importImages(archive: path, name: "web:1")
            #expect(second.map(\.name) == ["docker.io/library/web:1"])
            let web = try await lab.store.resolve(image: "web:1")
            #expect(try await lab.store.unpacked(image: "web:1", digest: web.digest).topChainID == image.chain)

            let saved = lab.directory.path + "/saved.tar"
            let copy = try ChildProcess.run(
                "/usr/bin/skopeo",
                [
                    "copy", "--src-tls-verify=false", "docker://\(lab.registry)/team/app:v1",
                    "docker-archive:\(saved):saved:3",
                ])
            #expect(copy == 0)
            let third = try await lab.store.importImages(archive: saved, name: nil)
            #expect(third.map(\.name) == ["docker.io/library/saved:3"])
            try await lab.store.removeImage("saved:3")
            // The others share its layers.
            #expect(try await lab.store.unpacker.exists(image.chain))
        }
    }
}
