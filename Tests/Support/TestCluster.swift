// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc
internal import Synchronization

/// Several real daemons that form one cluster: each in a network namespace of its own, all on one bridge in a further one.
///
/// Members are numbered from 0 and named `a`, `b`, …; their Raft ids begin at 1. Get one with `withTestCluster`, which
/// removes everything afterwards, also when the test fails.
public final class TestCluster: Sendable {
    public let directory: TemporaryDirectory
    public let members: [TestDaemon]
    /// Disks of the members, when they were asked for.
    public let disks: [TestDisk]
    /// Where the bridge is: reaches every member and is none.
    public let hub: TestNamespace
    public let authority: TestAuthority
    private let blocked = Mutex<Set<Link>>([])

    /// Traffic in one direction.
    private struct Link: Hashable {
        var from: Int
        var to: Int
    }

    public enum Direction: String, Sendable, CaseIterable { case incoming, outgoing, both }

    public static let clusterID = "test"
    public static func name(_ member: Int) -> String { String(UnicodeScalar(UInt8(97 + member))) }
    public static func address(_ member: Int) -> String { "198.18.0.\(member + 1)" }
    static let hubAddress = "198.18.0.254"

    public var indices: Range<Int> { members.indices }
    public var majority: Int { members.count / 2 + 1 }

    /// - Parameters:
    ///   - diskMebibytes: nil keeps data on the test's own file system, else each member gets a disk this large.
    ///   - arguments: further ones of every daemon.
    init(name: String, nodes: Int, diskMebibytes: Int?, arguments: [String] = []) async throws {
        let directory = try TemporaryDirectory(name)
        let base = String(directory.path.dropFirst("/tmp/".count))
        do {
            hub = try await TestNamespace("\(base)-hub")
            try await hub.run("ip", "link", "add", "bridge", "type", "bridge").checked()
            try await hub.run("ip", "address", "add", "\(Self.hubAddress)/24", "dev", "bridge").checked()
            try await hub.run("ip", "link", "set", "bridge", "up").checked()
            authority = try await TestAuthority(in: directory.path)
            var members: [TestDaemon] = []
            var disks: [TestDisk] = []
            for number in 0..<nodes {
                let letter = Self.name(number)
                let namespace = try await TestNamespace("\(base)-\(letter)")
                try await Self.connect(namespace, to: hub, port: "port-\(letter)", address: Self.address(number))
                let own = try directory.subdirectory(letter)
                if let diskMebibytes {
                    disks.append(
                        try await TestDisk(
                            mounting: directory.file("\(letter).img"), at: own.file("data"), mebibytes: diskMebibytes))
                }
                let issued = try await authority.issue(letter)
                let list = Self.peerList(
                    own: letter, nodes: nodes, authority: authority.certificate, certificate: issued)
                try own.write(list, to: "peers.json")
                members.append(
                    TestDaemon(
                        directory: own, node: namespace, outside: hub,
                        arguments: [
                            "--runtime", "simulated", "--peers", own.file("peers.json"), "--node-name", letter,
                        ] + arguments))
            }
            self.members = members
            self.disks = disks
            self.directory = directory
        } catch {
            await Self.clear(directory)
            throw error
        }
    }

    private static func connect(
        _ namespace: TestNamespace, to hub: TestNamespace, port: String, address: String
    ) async throws {
        let veth = ["ip", "link", "add", "uplink", "type", "veth", "peer", "name", port, "netns", hub.name]
        try await namespace.run(veth).checked()
        try await namespace.run("ip", "address", "add", "\(address)/24", "dev", "uplink").checked()
        try await namespace.run("ip", "link", "set", "uplink", "up").checked()
        try await namespace.run("ip", "route", "add", "default", "via", hubAddress).checked()
        try await hub.run("ip", "link", "set", "dev", port, "master", "bridge", "up").checked()
    }

    /// A list for `--peers`. Members of a cluster with another id or other files are made with it, too.
    public static func peerList(
        own: String, nodes: Int, clusterID: String = clusterID, authority: String, certificate: TestAuthority.Issued
    ) -> String {
        let members = (0..<nodes).map {
            "{\"id\": \($0 + 1), \"name\": \"\(name($0))\", \"address\": \"\(address($0)):4484\"}"
        }
        return """
            {"cluster_id": "\(clusterID)", "self": "\(own)", "members": [\(members.joined(separator: ", "))],
             "ca": "\(authority)", "certificate": "\(certificate.certificate)", "key": "\(certificate.key)"}
            """
    }

    /// A further daemon with data of its own on a member's network, which must not run meanwhile.
    public func stranger(_ name: String, inPlaceOf member: Int, peers: String) throws -> TestDaemon {
        let own = try directory.subdirectory(name)
        try own.write(peers, to: "peers.json")
        return TestDaemon(
            directory: own, node: members[member].node, outside: hub,
            arguments: ["--runtime", "simulated", "--peers", own.file("peers.json")])
    }

    // MARK: Life

    /// Starts those that do not run, all at once, and waits until they take requests.
    public func start(_ which: some Sequence<Int>, within limit: Duration = .seconds(60)) async throws {
        let stopped = which.filter { !members[$0].isRunning }
        for member in stopped { try members[member].launch() }
        for member in stopped { try await members[member].waitReady(within: limit) }
    }

    public func start() async throws { try await start(indices) }

    /// SIGKILL for all of them before the first is waited for.
    public func kill9(_ which: some Sequence<Int>) async throws {
        let which = Array(which)
        for member in which { members[member].signal(SIGKILL) }
        for member in which { try await members[member].kill9() }
    }

    public func kill9(_ member: Int) async throws { try await kill9([member]) }

    /// SIGSTOP: the process stands still and keeps all it has.
    public func pause(_ member: Int) { members[member].signal(SIGSTOP) }
    public func resume(_ member: Int) { members[member].signal(SIGCONT) }

    // MARK: Who leads

    /// What a member says of itself now; nil when it does not answer.
    public func status(_ member: Int) async -> JSONValue? {
        guard members[member].isRunning else { return nil }
        return try? await members[member].api("GET", "/v1/status", timeoutSeconds: 2).json()
    }

    /// The member that leads with the highest term, of those that answer.
    public func leader(among which: [Int]? = nil) async -> Int? {
        var best: (term: Int, member: Int)?
        for member in which ?? Array(indices) {
            guard let status = await status(member), status["leader"].string == Self.name(member) else { continue }
            let term = status["term"].int ?? 0
            if term >= best?.term ?? 0 { best = (term, member) }
        }
        return best?.member
    }

    @discardableResult
    public func waitLeader(among which: [Int]? = nil, within limit: Duration = .seconds(30)) async throws -> Int {
        try await eventually("there is a leader", within: limit, every: .milliseconds(50)) {
            await self.leader(among: which)
        }
    }

    /// A write through the member is agreed.
    public func waitWritable(
        through which: [Int]? = nil, within limit: Duration = .seconds(30)
    ) async throws {
        for member in which ?? Array(indices) {
            try await eventually("a write through \(Self.name(member)) is agreed", within: limit) {
                let reply = try await self.members[member].api("PUT", "/v1/configs/probe", body: "{\"data\": \"x\"}")
                guard reply.status / 100 == 2 else { throw TestFailure("\(reply.status) \(reply.body)") }
                return true
            }
        }
    }

    // MARK: Network

    /// Only members that have a group in common reach one another.
    public func partition(_ groups: [[Int]]) async throws {
        var links: Set<Link> = []
        for from in indices {
            for to in indices where from != to {
                if !groups.contains(where: { $0.contains(from) && $0.contains(to) }) {
                    links.insert(Link(from: from, to: to))
                }
            }
        }
        try await block(links)
    }

    /// Cuts one member off: nothing reaches it, nothing of it reaches others, or both.
    public func isolate(_ member: Int, _ direction: Direction = .both) async throws {
        var links: Set<Link> = []
        for other in indices where other != member {
            if direction != .outgoing { links.insert(Link(from: other, to: member)) }
            if direction != .incoming { links.insert(Link(from: member, to: other)) }
        }
        try await block(links)
    }

    public func heal() async throws { try await block([]) }

    /// Packets are dropped where they arrive: a sender learns nothing of it.
    private func block(_ links: Set<Link>) async throws {
        let changed = blocked.withLock { blocked in
            defer { blocked = links }
            return indices.filter { member in
                blocked.filter { $0.to == member } != links.filter { $0.to == member }
            }
        }
        for member in changed {
            let sources = links.filter { $0.to == member }.map { Self.address($0.from) }.sorted()
            var rules = "table inet hmt\ndelete table inet hmt\n"
            if !sources.isEmpty {
                rules += """
                    table inet hmt {
                      chain arrivals {
                        type filter hook input priority -300; policy accept;
                        ip saddr { \(sources.joined(separator: ", ")) } drop
                      }
                    }

                    """
            }
            let nft = members[member].node.prefix + ["nft", "-f", "-"]
            try await Shell.run(nft, input: rules).checked()
        }
    }

    // MARK: What they hold

    /// Waits until every member has applied the same and says so, and compares what they hold.
    public func expectEqual(within limit: Duration = .seconds(30)) async throws {
        try await eventually("every member holds the same", within: limit, every: .milliseconds(100)) {
            var lists: [(index: Int, items: [JSONValue])] = []
            for member in self.members {
                let list = try await member.api("GET", "/v1/configs?consistency=local").json()
                lists.append((list["index"].int ?? -1, list.items))
            }
            for (number, list) in lists.enumerated() where list.items != lists[0].items {
                let (one, other) = (Set(lists[0].items), Set(list.items))
                let text = "a at \(lists[0].index): \(one.subtracting(other)), \(Self.name(number)) at \(list.index): "
                throw TestFailure(text + "\(other.subtracting(one))")
            }
            return true
        }
    }

    // MARK: End

    func tearDown() async {
        for member in members {
            member.signal(SIGCONT)
            member.signal(SIGKILL)
        }
        for member in members { _ = try? await member.kill9() }
        await Self.clear(directory)
    }

    private static func clear(_ directory: TemporaryDirectory) async {
        let scope = ["--data-dir", directory.path, "--delete-data", "--quiet"]
        let output = try? await Shell.run(["python3", Repository.script("sweep")] + scope)
        if let output, !output.succeeded || !output.stderr.isEmpty { print("test: \(output)") }
        let base = directory.path.dropFirst("/tmp/".count)
        for path in (try? FileManager.default.contentsOfDirectory(atPath: "/run/netns")) ?? []
        where path.hasPrefix("\(base)-") { _ = try? await Shell.run(["ip", "netns", "delete", path]) }
        directory.remove()
    }

    /// The end of every member's log, for a failure to show.
    public func logTails(_ lines: Int = 40) -> String {
        indices.map { "--- end of the log of \(Self.name($0))\n\(members[$0].logTail(lines))" }.joined(separator: "\n")
    }
}

/// Starts a cluster, runs `body`, and removes all that the daemons made. When `body` throws, the ends of their logs go
/// with the error.
///
/// - Parameters:
///   - name: a few letters, part of every name this cluster makes on the machine.
///   - nodes: 1 to 5; all of them vote.
///   - arguments: further arguments of every daemon.
public func withTestCluster<Result>(
    _ name: String, nodes: Int = 3, diskMebibytes: Int? = nil, arguments: [String] = [],
    isolation: isolated (any Actor)? = #isolation, _ body: (TestCluster) async throws -> Result
) async throws -> Result {
    let cluster = try await TestCluster(
        name: name, nodes: nodes, diskMebibytes: diskMebibytes, arguments: arguments)
    do {
        try await cluster.start()
        let result = try await body(cluster)
        await cluster.tearDown()
        return result
    } catch {
        let logs = cluster.logTails()
        await cluster.tearDown()
        throw TestFailure("\(error)\n\(logs)")
    }
}
