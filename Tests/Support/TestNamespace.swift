// SPDX-License-Identifier: Apache-2.0

/// A network namespace with loopback up. Removing it removes its links, rules and routes.
public struct TestNamespace: Sendable {
    public let name: String
    public var path: String { "/run/netns/\(name)" }

    public init(_ name: String) async throws {
        self.name = name
        try await Shell.run(["ip", "netns", "add", name]).checked()
        try await run("ip", "link", "set", "lo", "up").checked()
    }

    /// Runs a program with the network of this namespace and the file system of the test.
    ///
    /// nsenter rather than `ip netns exec`, which mounts its own /sys and thereby hides the cgroups from runc.
    public func run(_ arguments: String..., timeout: Duration = .seconds(30)) async throws -> ShellOutput {
        try await Shell.run(prefix + arguments, timeout: timeout)
    }

    public func run(_ arguments: [String], timeout: Duration = .seconds(30)) async throws -> ShellOutput {
        try await Shell.run(prefix + arguments, timeout: timeout)
    }

    /// Put in front of a command line, it runs here; the pid stays that of the program.
    public var prefix: [String] { ["nsenter", "--net=\(path)", "--"] }

    /// Body of a GET, or the failure of curl as an error.
    public func get(_ url: String, timeoutSeconds: Int = 5) async throws -> String {
        let arguments = ["curl", "--noproxy", "*", "-sS", "--fail", "--max-time", "\(timeoutSeconds)", url]
        return try await run(arguments).checked().stdout
    }

    /// What a name server answers, one line a record, sorted.
    public func dig(_ name: String, _ type: String = "A", server: String = "169.254.20.10") async throws -> [String] {
        let arguments = ["dig", "+short", "+time=2", "+tries=2", "@\(server)", name, type]
        return try await run(arguments).checked().lines.sorted()
    }

    public func remove() async { _ = try? await Shell.run(["ip", "netns", "delete", name]) }
}
