// SPDX-License-Identifier: Apache-2.0

/// Images built by scripts/demo-image; each does one thing.
public enum TestImage: String, Sendable {
    /// HTTP on 8080: `hello <version> from <hostname>` and, with a volume on /data, `visits <n>`.
    case hello
    /// Prints `line 1`, `line 2`, … every `INTERVAL` seconds (0.05), `LINES_MAX` of them (0: without end).
    case writer
    /// Prints `sleeping as <uid>:<gid>` and waits for SIGTERM.
    case sleeper
    /// Prints a line to each stream and exits with `EXIT_CODE` (3).
    case crash
    /// Runs as user `app` (1000) with `VOLUME /data`, owned by it and holding seed.txt; writes /data/written.
    case owner
    /// Fills 1 GiB of memory at once in its first process.
    case oom

    /// Writes an archive for `image import`. Costs about a second.
    /// - Parameter format: `oci` or `docker`.
    public func archive(tag: String = "1.0", format: String = "oci", to path: String) async throws {
        let arguments = ["--kind", rawValue, "--tag", tag, "--format", format, "--output", path]
        try await Shell.run(["python3", Repository.script("demo-image")] + arguments).checked()
    }
}

/// A docker-registry on loopback of one namespace, where a daemon of that namespace finds it without TLS.
public struct TestRegistry: Sendable {
    public let namespace: TestNamespace
    public let port = 5000
    public var address: String { "127.0.0.1:\(port)" }
    private let process: ChildProcess

    public init(in namespace: TestNamespace, directory: TemporaryDirectory) async throws {
        self.namespace = namespace
        let configuration = try directory.write(
            """
            version: 0.1
            log: {level: warn}
            storage:
              filesystem: {rootdirectory: \(directory.file("registry"))}
              delete: {enabled: true}
            http: {addr: "127.0.0.1:\(port)"}
            """, to: "registry.yml")
        let command = namespace.prefix + ["docker-registry", "serve", configuration]
        process = try ChildProcess(command, log: directory.file("registry.log"))
        let address = address
        try await eventually("the registry answers", within: .seconds(15)) {
            try await namespace.get("http://\(address)/v2/").contains("{}")
        }
    }

    /// - Returns: the reference to deploy, `127.0.0.1:5000/hivemind/<kind>:<tag>`.
    public func push(_ image: TestImage, tag: String = "1.0") async throws -> String {
        let script = ["python3", Repository.script("demo-image"), "--kind", image.rawValue, "--tag", tag]
        try await namespace.run(script + ["--push", address]).checked()
        return "\(address)/hivemind/\(image.rawValue):\(tag)"
    }

    public func stop() async throws { try await process.kill9() }
}
