// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Synchronization

/// A real `hivemind daemon` in a network namespace of its own, with its own data directory, socket and containerd.
///
/// A second namespace stands for the world outside: a host on the node's network that is not part of the cluster.
/// Get one with `withTestDaemon`, which removes everything afterwards, also when the test fails.
public final class TestDaemon: Sendable {
    public let directory: TemporaryDirectory
    /// The network the daemon lives in, `node`'s view of published ports and VIPs.
    public let node: TestNamespace
    /// Reaches the node at `nodeAddress` and nothing behind it.
    public let outside: TestNamespace
    public static let nodeAddress = "198.18.0.1"
    public static let outsideAddress = "198.18.0.2"
    public let arguments: [String]
    private let process = Mutex<ChildProcess?>(nil)

    public var socket: String { directory.file("hivemind.sock") }
    public var dataDirectory: String { directory.file("data") }
    public var logFile: String { directory.file("daemon.log") }

    /// One of several in a network made by others, who also remove it.
    init(directory: TemporaryDirectory, node: TestNamespace, outside: TestNamespace, arguments: [String]) {
        self.directory = directory
        self.node = node
        self.outside = outside
        self.arguments = arguments
    }

    init(name: String, arguments: [String]) async throws {
        directory = try TemporaryDirectory(name)
        self.arguments = arguments
        let base = String(directory.path.dropFirst("/tmp/".count))
        do {
            node = try await TestNamespace("\(base)-node")
            outside = try await TestNamespace("\(base)-out")
            let veth = ["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "uplink", "netns", outside.name]
            try await node.run(veth).checked()
            for (side, address) in [(node, Self.nodeAddress), (outside, Self.outsideAddress)] {
                try await side.run("ip", "address", "add", "\(address)/24", "dev", "uplink").checked()
                try await side.run("ip", "link", "set", "uplink", "up").checked()
            }
            try await node.run("ip", "route", "add", "default", "via", Self.outsideAddress).checked()
        } catch {
            for side in ["node", "out"] { _ = try? await Shell.run(["ip", "netns", "delete", "\(base)-\(side)"]) }
            directory.remove()
            throw error
        }
    }

    // MARK: Life

    /// Starts it and waits until it takes requests.
    public func start(within limit: Duration = .seconds(60)) async throws {
        try launch()
        try await waitReady(within: limit)
    }

    /// Starts it and does not wait: a member alone is not ready before it has a leader.
    public func launch() throws {
        guard access(Repository.binary, X_OK) == 0 else {
            throw TestFailure("there is no \(Repository.binary); build it with: swift build --build-tests")
        }
        let command =
            node.prefix + [Repository.binary, "daemon", "--data-dir", dataDirectory, "--socket", socket] + arguments
        let started = try ChildProcess(command, environment: ["SWIFT_BACKTRACE": "enable=no"], log: logFile)
        process.withLock { $0 = started }
    }

    public func waitReady(within limit: Duration = .seconds(60)) async throws {
        try await eventually("the daemon is ready", within: limit) {
            if let status = self.process.withLock({ $0?.exitStatus }) {
                throw GiveUp("the daemon ended with \(status)")
            }
            return try await self.api("GET", "/ready").status == 200
        }
    }

    public var pid: Int32? { process.withLock { $0?.pid } }
    public var isRunning: Bool { process.withLock { $0?.isRunning ?? false } }

    public func signal(_ number: Int32) { process.withLock { $0 }?.signal(number) }

    /// Waits until it ends by itself. Returns its exit status.
    public func waitEnd(within limit: Duration = .seconds(20)) async throws -> Int32 {
        guard let status = try await process.withLock({ $0 })?.wait(within: limit) else {
            throw TestFailure("the daemon still runs after \(limit)")
        }
        return status
    }

    /// SIGKILL, as a crash would: containers and containerd stay.
    public func kill9() async throws {
        guard let running = process.withLock({ $0 }) else { return }
        running.signal(SIGKILL)
        guard try await running.wait(within: .seconds(10)) != nil else { throw TestFailure("survived SIGKILL") }
    }

    /// SIGTERM. Returns its exit status.
    @discardableResult
    public func stop(within limit: Duration = .seconds(20)) async throws -> Int32 {
        guard let running = process.withLock({ $0 }) else { return 0 }
        running.signal(SIGTERM)
        guard let status = try await running.wait(within: limit) else {
            throw TestFailure("the daemon still runs \(limit) after SIGTERM")
        }
        return status
    }

    public func restart() async throws {
        try await kill9()
        try await start()
    }

    /// Ends whatever is left of it and removes its namespaces and files.
    func tearDown() async {
        _ = try? await kill9()
        let scope = ["--data-dir", directory.path, "--netns", node.path, "--delete-data", "--quiet"]
        let output = try? await Shell.run(["python3", Repository.script("sweep")] + scope)
        if let output, !output.succeeded || !output.stderr.isEmpty { print("test: \(output)") }
        await node.remove()
        await outside.remove()
        directory.remove()
    }

    /// All it has said so far.
    public var log: String { (try? directory.read("daemon.log")) ?? "" }

    /// The end of its log, for a failure to show.
    public func logTail(_ lines: Int = 60) -> String {
        log.split(separator: "\n").suffix(lines).joined(separator: "\n")
    }

    // MARK: Talking to it

    /// Runs `hivemind …` against it, from the node's network.
    public func cli(_ arguments: String..., timeout: Duration = .seconds(120)) async throws -> ShellOutput {
        try await cli(arguments, timeout: timeout)
    }

    public func cli(
        _ arguments: [String], input: String? = nil, timeout: Duration = .seconds(120)
    ) async throws -> ShellOutput {
        try await Shell.run(
            node.prefix + [Repository.binary] + arguments, environment: ["HIVEMIND_SOCKET": socket, "NO_COLOR": "1"],
            input: input, timeout: timeout)
    }

    /// `hivemind … -o json`, decoded; an error when it failed.
    public func json(_ arguments: String..., timeout: Duration = .seconds(120)) async throws -> JSONValue {
        try JSONValue(parsing: try await cli(arguments + ["-o", "json"], timeout: timeout).checked().stdout)
    }

    public struct Reply: Sendable {
        public var status: Int
        /// Names in lower case.
        public var headers: [String: String]
        public var body: String
        public func json() throws -> JSONValue { try JSONValue(parsing: body) }
    }

    /// A request to the API over its socket.
    public func api(
        _ method: String, _ path: String, body: String? = nil, headers: [String: String] = [:],
        timeoutSeconds: Int = 30
    ) async throws -> Reply {
        var command = ["curl", "-sS", "-i", "--max-time", "\(timeoutSeconds)", "--unix-socket", socket, "-X", method]
        for (name, value) in headers.sorted(by: { $0.key < $1.key }) { command += ["-H", "\(name): \(value)"] }
        if body != nil { command += ["-H", "Content-Type: application/json", "-H", "Expect:", "--data-binary", "@-"] }
        let output = try await Shell.run(command + ["http://localhost\(path)"], input: body).checked().stdout
        let normal = output.split(separator: "\r\n", omittingEmptySubsequences: false)
        guard let end = normal.firstIndex(where: \.isEmpty), let first = normal.first,
            let status = first.split(separator: " ").dropFirst().first.flatMap({ Int($0) })
        else { throw TestFailure("not an HTTP reply: \(output.prefix(200))") }
        var fields: [String: String] = [:]
        for line in normal[1..<end] {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[line[..<colon].lowercased()] = String(line[line.index(after: colon)...].drop { $0 == " " })
        }
        return Reply(status: status, headers: fields, body: normal[(end + 1)...].joined(separator: "\r\n"))
    }
}

/// Starts a daemon, runs `body`, and removes all that the daemon made. When `body` throws, the end of the daemon's log
/// goes with the error.
///
/// - Parameters:
///   - name: a few letters, part of every name this daemon makes on the machine.
///   - arguments: further arguments of `hivemind daemon`.
public func withTestDaemon<Result>(
    _ name: String, _ arguments: [String] = [], isolation: isolated (any Actor)? = #isolation,
    _ body: (TestDaemon) async throws -> Result
) async throws -> Result {
    let daemon = try await TestDaemon(name: name, arguments: ["--node-name", name] + arguments)
    do {
        try await daemon.start()
        let result = try await body(daemon)
        await daemon.tearDown()
        return result
    } catch {
        let log = daemon.logTail()
        await daemon.tearDown()
        throw TestFailure("\(error)\n--- end of the daemon's log\n\(log)")
    }
}
