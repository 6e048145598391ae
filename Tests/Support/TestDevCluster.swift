// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// A cluster made by `hivemind dev cluster up`: real daemons in network namespaces, joined by a token.
public struct TestDevCluster: Sendable {
    public struct Node: Sendable {
        public var name: String
        public var netns: String
        public var socket: String
        public var address: String
        public var dataDir: String

        /// Runs the program against this node's socket.
        public func cli(_ arguments: String..., timeout: Duration = .seconds(60)) async throws -> ShellOutput {
            try await cli(arguments, timeout: timeout)
        }

        public func cli(_ arguments: [String], timeout: Duration = .seconds(60)) async throws -> ShellOutput {
            try await Shell.run(
                [Repository.binary] + arguments + ["--socket", socket], environment: ["HIVEMIND_COLOR": "never"],
                timeout: timeout)
        }

        public func json(_ arguments: String..., timeout: Duration = .seconds(60)) async throws -> JSONValue {
            let output = try await Shell.run(
                [Repository.binary] + arguments + ["--socket", socket, "-o", "json"], timeout: timeout)
            return try JSONValue(parsing: output.checked().stdout)
        }

        /// Body of an HTTP answer as seen from the node.
        public func get(_ url: String) async throws -> String {
            try await Shell.run(
                ["nsenter", "--net=/run/netns/\(netns)", "curl", "-sS", "-f", "-m", "2", "--noproxy", "*", url],
                timeout: .seconds(5)
            ).checked().stdout
        }
    }

    public let directory: TemporaryDirectory
    public let nodes: [Node]
    public let runtime: String
    /// Of the one node that was given a small disk of its own.
    public private(set) var disk: TestDisk?

    /// Bytes of the names, so that two of them do not meet.
    private static func prefix(_ directory: TemporaryDirectory) -> String {
        "hmt-" + directory.path.suffix(6).lowercased()
    }

    init(_ name: String, nodes count: Int, runtime: String, diskOf limited: Int?) async throws {
        directory = try TemporaryDirectory(name)
        disk = nil
        if let limited {
            disk = try await TestDisk(
                mounting: directory.file("disk"), at: directory.file("dev/\(limited + 1)"), mebibytes: 1_024)
        }
        self.runtime = runtime
        let number = 1 + Int.random(in: 0..<200)
        let made = try await Shell.run(
            [
                Repository.binary, "dev", "cluster", "up", "--nodes", "\(count)", "--runtime", runtime, "--dir",
                directory.file("dev"), "--prefix", Self.prefix(directory), "--network", "198.18.\(number)", "-o",
                "json",
            ], timeout: .seconds(120))
        if !made.succeeded {
            try? await disk?.unmount()
            directory.remove()
        }
        let view = try JSONValue(parsing: made.checked().stdout)
        let place = directory.file("dev")
        nodes = view["nodes"].array.enumerated().map { index, node in
            Node(
                name: node["name"].string ?? "", netns: node["netns"].string ?? "", socket: node["socket"].string ?? "",
                address: node["address"].string ?? "", dataDir: "\(place)/\(index + 1)")
        }
    }

    func down() async throws {
        defer { directory.remove() }
        try await Shell.run(
            [Repository.binary, "dev", "cluster", "down", "--dir", directory.file("dev")], timeout: .seconds(60)
        ).checked()
    }

    // MARK: - Faults

    /// The daemon of a node, by the directory in its command line.
    public func daemon(of node: Node) async throws -> Int32 {
        let found = try await Shell.run(["pgrep", "-f", "daemon --data-dir \(node.dataDir) "])
        guard let pid = found.stdout.split(separator: "\n").compactMap({ Int32($0) }).first else {
            throw TestFailure("no daemon of \(node.name) runs")
        }
        return pid
    }

    public func kill9(_ node: Node) async throws {
        let pid = try await daemon(of: node)
        kill(pid, SIGKILL)
        try await eventually("the daemon of \(node.name) is gone") { !Host.isAlive(pid) }
    }

    /// Ends a daemon as systemd does; its containers go on.
    public func stop(_ node: Node) async throws {
        let pid = try await daemon(of: node)
        kill(pid, SIGTERM)
        try await eventually("the daemon of \(node.name) has ended") { !Host.isAlive(pid) }
    }

    public func pause(_ node: Node, _ isPaused: Bool) async throws {
        kill(try await daemon(of: node), isPaused ? SIGSTOP : SIGCONT)
    }

    /// Starts a daemon again as `up` did.
    /// - Parameter clock: what its clock is off by; nil for the machine's.
    public func start(_ node: Node, clock: ShiftedClock? = nil) async throws {
        let skew = clock.map { "\($0.command) " } ?? ""
        let command = """
            setsid nsenter --net=/run/netns/\(node.netns) -- \(skew)\(Repository.binary) daemon --data-dir \(node.dataDir) \
            --socket \(node.socket) --node-name \(node.name) --runtime \(runtime) \
            >>\(directory.file("dev"))/\(node.name).log 2>&1 </dev/null &
            """
        try await Shell.run(["sh", "-c", command]).checked()
    }

    /// Cuts a node off from the others, or lets it back.
    public func unplug(_ node: Node, _ isUnplugged: Bool) async throws {
        try await Shell.run(["ip", "-n", node.netns, "link", "set", "eth0", isUnplugged ? "down" : "up"]).checked()
    }

    /// Nothing more from the others arrives at a node; what it sends itself goes out.
    public func deafen(_ node: Node, _ isDeaf: Bool) async throws {
        let rules =
            isDeaf
            ? "add table inet deaf; add chain inet deaf input { type filter hook input priority -300; }; "
                + "add rule inet deaf input iifname eth0 drop"
            : "delete table inet deaf"
        try await Shell.run(["nsenter", "--net=/run/netns/\(node.netns)", "nft", rules]).checked()
    }

    public func log(of node: Node) -> String { (try? directory.read("dev/\(node.name).log")) ?? "" }

    // MARK: - What is there

    /// Name to state, as `observer` sees them.
    public func states(seenBy observer: Node) async throws -> [String: String] {
        let list = try await observer.json("node", "ls")["items"].array
        return Dictionary(
            list.map { ($0["name"].string ?? "", $0["state"].string ?? "") }, uniquingKeysWith: { first, _ in first })
    }

    public func waitState(
        _ state: String, of node: Node, seenBy observer: Node, within limit: Duration = .seconds(20)
    ) async throws {
        try await eventually("\(node.name) is \(state)", within: limit) {
            try await states(seenBy: observer)[node.name] == state
        }
    }

    /// Nodes that run ready tasks of an app, one entry for each task.
    public func places(of app: String, seenBy observer: Node) async throws -> [String] {
        try await observer.json("ps", app)["items"].array
            .filter { $0["state"].string == "running" && $0["ready"].bool != false }
            .map { $0["node"].string ?? "" }.sorted()
    }
}

/// Makes a cluster, hands it to `body` and removes it, also when that throws; what is left then is an error.
public func withDevCluster<Result>(
    _ name: String, nodes: Int = 3, runtime: String = "containerd", diskOf limited: Int? = nil,
    isolation: isolated (any Actor)? = #isolation,
    _ body: (TestDevCluster) async throws -> Result
) async throws -> Result {
    let cluster = try await TestDevCluster(name, nodes: nodes, runtime: runtime, diskOf: limited)
    let result: Result
    do {
        result = try await body(cluster)
    } catch {
        let logs = cluster.nodes.map { node in
            "--- \(node.name)\n" + cluster.log(of: node).split(separator: "\n").suffix(25).joined(separator: "\n")
        }
        try? await cluster.down()
        throw TestFailure("\(error)\n\(logs.joined(separator: "\n"))")
    }
    try await cluster.down()
    return result
}
