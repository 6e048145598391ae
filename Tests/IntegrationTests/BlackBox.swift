// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

/// The promises of the README, kept by the built program: real containerd, registry, namespaces and sockets.
///
/// One test at a time: each starts a daemon with a containerd of its own.
@Suite(.serialized, .enabled(if: Host.canRunContainers, "\(Host.needsContainers)"), .timeLimit(.minutes(20)))
enum BlackBox {
    /// The app of the README: three replicas of an HTTP server with a volume and a published port.
    static let helloFlags = ["--replicas", "3", "--volume", "hello-data:/data", "--port", "8080:8080"]

    /// A daemon with a registry next to it.
    static func withNode<Result>(
        _ name: String, isolation: isolated (any Actor)? = #isolation,
        _ body: (TestDaemon, TestRegistry) async throws -> Result
    ) async throws -> Result {
        try await withTestDaemon(name) { daemon in
            let registry = try await TestRegistry(in: daemon.node, directory: daemon.directory)
            return try await body(daemon, registry)
        }
    }
}
