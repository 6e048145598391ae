// SPDX-License-Identifier: Apache-2.0
public import FoundationEssentials

/// What an image says about running it: the `config` object of an OCI or Docker image configuration.
public struct ImageConfig: Hashable, Sendable {
    public var entrypoint: [String]
    public var command: [String]
    /// `NAME=value`, in the image's order.
    public var environment: [String]
    /// As Docker writes it: empty, `user`, `uid`, `user:group`.
    public var user: String
    /// Empty means `/`.
    public var workingDirectory: String
    public var stopSignal: String?
    /// `80/tcp`, sorted.
    public var exposedPorts: [String]
    /// Paths the image declares as volumes, sorted.
    public var volumes: [String]

    public init(
        entrypoint: [String] = [],
        command: [String] = [],
        environment: [String] = [],
        user: String = "",
        workingDirectory: String = "",
        stopSignal: String? = nil,
        exposedPorts: [String] = [],
        volumes: [String] = []
    ) {
        self.entrypoint = entrypoint
        self.command = command
        self.environment = environment
        self.user = user
        self.workingDirectory = workingDirectory
        self.stopSignal = stopSignal
        self.exposedPorts = exposedPorts
        self.volumes = volumes
    }

    /// Reads the whole image configuration document; a document without `config` gives an empty one.
    /// - Throws: `DecodingError` when it is not such a document.
    public init(document: Data) throws {
        let config = try JSONDecoder().decode(Document.self, from: document).config
        self.init(
            entrypoint: config?.Entrypoint ?? [],
            command: config?.Cmd ?? [],
            environment: config?.Env ?? [],
            user: config?.User ?? "",
            workingDirectory: config?.WorkingDir ?? "",
            stopSignal: config?.StopSignal,
            exposedPorts: (config?.ExposedPorts.map { Array($0.keys) } ?? []).sorted(),
            volumes: (config?.Volumes.map { Array($0.keys) } ?? []).sorted()
        )
    }

    /// The wire's own names.
    private struct Document: Decodable {
        struct Empty: Decodable {}
        struct Config: Decodable {
            var Entrypoint: [String]?
            var Cmd: [String]?
            var Env: [String]?
            var User: String?
            var WorkingDir: String?
            var StopSignal: String?
            var ExposedPorts: [String: Empty]?
            var Volumes: [String: Empty]?
        }
        var config: Config?
    }
}

/// An image whose layers are unpacked: all a container needs of it.
public struct UnpackedImage: Hashable, Sendable {
    /// Name of the committed snapshot with every layer.
    public var topChainID: String
    public var config: ImageConfig

    public init(topChainID: String, config: ImageConfig) {
        self.topChainID = topChainID
        self.config = config
    }
}
