// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
internal import Model

/// A cluster on this machine, for trying and for tests: each node is a real daemon in a network namespace of its own, all
/// on one bridge.
///
/// Everything is named in `cluster.json` before it is made, so that `down` finds it after a crash, too.
struct DevCluster: Codable {
    struct Node: Codable {
        var name: String
        var netns: String
        var socket: String
        var address: String
        var dataDir: String
    }

    static let nodesMax = 20
    static let standardDirectory = "/var/lib/hivemind-dev"
    private static let fileName = "cluster.json"

    var directory: String
    var bridge: String
    var nodes: [Node]

    // MARK: - Plan

    /// - Parameter network: the first three numbers of the nodes' addresses.
    static func plan(_ directory: String, nodes count: Int, prefix: String, network: String) throws(CLIError)
        -> DevCluster
    {
        guard (1...nodesMax).contains(count) else {
            throw .usage("a dev cluster has 1 to \(nodesMax) nodes", hint: "for example --nodes 3")
        }
        guard directory.hasPrefix("/"), directory.utf8.count <= 70 else {
            throw .usage("`\(directory)` must be an absolute path of at most 70 bytes", hint: "--dir DIR")
        }
        // With `p20` after it, a link's name has at most 15 bytes.
        guard (1...11).contains(prefix.utf8.count),
            prefix.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") })
        else { throw .usage("`\(prefix)` must be 1 to 11 letters, digits and dashes", hint: "--prefix NAME") }
        guard IPv4Address("\(network).1") != nil else {
            throw .usage("`\(network)` is no network", hint: "its first three numbers: --network 10.209.0")
        }
        return DevCluster(
            directory: directory, bridge: prefix,
            nodes: (1...count).map { number in
                Node(
                    name: "node\(number)", netns: "\(prefix)-\(number)", socket: "\(directory)/\(number).sock",
                    address: "\(network).\(number)", dataDir: "\(directory)/\(number)")
            })
    }

    /// Nil when there is none in that directory.
    static func read(_ directory: String) throws(CLIError) -> DevCluster? {
        guard let data = FileManager.default.contents(atPath: "\(directory)/\(fileName)") else { return nil }
        do { return try JSON.decode(DevCluster.self, from: data) } catch {
            throw CLIError(.general, "`\(directory)/\(fileName)` cannot be read: \(error)")
        }
    }

    // MARK: - Up

    /// Makes namespaces and links and starts the daemons; they are alone.
    func start(program: String, runtime: String) throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try JSON.encode(self, pretty: true).write(to: URL(filePath: "\(directory)/\(Self.fileName)"))
        let gateway = (nodes[0].address.split(separator: ".").dropLast() + ["254"]).joined(separator: ".")
        try HostCommand.run("ip", "link", "add", bridge, "type", "bridge")
        try HostCommand.run("ip", "address", "add", "\(gateway)/24", "dev", bridge)
        try HostCommand.run("ip", "link", "set", bridge, "up")
        for (number, node) in nodes.enumerated() {
            let port = "\(bridge)p\(number + 1)"
            try HostCommand.run("ip", "netns", "add", node.netns)
            try HostCommand.run(
                "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", node.netns)
            try HostCommand.run("ip", "link", "set", port, "master", bridge, "up")
            try HostCommand.run("ip", "-n", node.netns, "address", "add", "\(node.address)/24", "dev", "eth0")
            for link in ["lo", "eth0"] { try HostCommand.run("ip", "-n", node.netns, "link", "set", link, "up") }
            _ = try HostCommand.begin(
                [
                    "nsenter", "--net=/run/netns/\(node.netns)", "--", program, "daemon", "--data-dir", node.dataDir,
                    "--socket", node.socket, "--node-name", node.name, "--runtime", runtime,
                ], log: "\(directory)/\(node.name).log")
        }
    }

    /// The end of a node's log, for errors.
    func lastWords(of node: Node) -> String {
        guard let data = FileManager.default.contents(atPath: "\(directory)/\(node.name).log") else { return "" }
        return String(decoding: data.suffix(2_000), as: UTF8.self).split(separator: "\n").suffix(5).joined(
            separator: "\n")
    }

    // MARK: - Down

    /// Ends and removes everything `start` made and everything that grew from it. No error when half of it is missing.
    func remove() throws {
        var groups: Set<String> = []
        // Ending one may begin another; nothing begins once all are gone.
        for _ in 0..<200 {
            let processes = try DevSweep.processes(of: nodes.map(\.netns))
            if processes.isEmpty { break }
            for process in processes {
                groups.formUnion(DevSweep.groups(of: process))
                kill(process, SIGKILL)
            }
            usleep(20_000)
        }
        for node in nodes { _ = try HostCommand.output(["ip", "netns", "delete", node.netns]) }
        for number in nodes.indices { _ = try HostCommand.output(["ip", "link", "delete", "\(bridge)p\(number + 1)"]) }
        _ = try HostCommand.output(["ip", "link", "delete", bridge])
        DevSweep.remove(groups)
        // What was being mounted when its maker was killed may still come.
        for attempt in 1...20 {
            DevSweep.unmount(below: directory)
            do {
                return try FileManager.default.removeItem(atPath: directory)
            } catch {
                guard attempt < 20 else { throw error }
                usleep(50_000)
            }
        }
    }
}

/// What a node leaves on a machine.
enum DevSweep {
    /// Processes in these network namespaces and everything they began, containers too.
    static func processes(of namespaces: [String]) throws -> Set<pid_t> {
        var inodes: Set<UInt64> = []
        for name in namespaces {
            if let inode = inode("/run/netns/\(name)") { inodes.insert(inode) }
        }
        var parents: [pid_t: pid_t] = [:]
        var found: Set<pid_t> = []
        for entry in try FileManager.default.contentsOfDirectory(atPath: "/proc") {
            guard let process = pid_t(entry), process != getpid() else { continue }
            // Gone meanwhile: nothing to end.
            guard let data = FileManager.default.contents(atPath: "/proc/\(process)/stat") else { continue }
            let fields = String(decoding: data, as: UTF8.self).split(separator: ")").last?.split(separator: " ") ?? []
            guard fields.count > 1, fields[0] != "Z", let parent = pid_t(fields[1]) else { continue }
            parents[process] = parent
            if let inode = inode("/proc/\(process)/ns/net"), inodes.contains(inode) { found.insert(process) }
        }
        while true {
            let children = parents.filter { found.contains($0.value) && !found.contains($0.key) }.map(\.key)
            if children.isEmpty { return found }
            found.formUnion(children)
        }
    }

    private static func inode(_ path: String) -> UInt64? {
        var status = stat()
        return stat(path, &status) == 0 ? UInt64(status.st_ino) : nil
    }

    /// Control groups of ours a process is in.
    static func groups(of process: pid_t) -> [String] {
        guard let data = FileManager.default.contents(atPath: "/proc/\(process)/cgroup") else { return [] }
        return String(decoding: data, as: UTF8.self).split(separator: "\n").compactMap { line in
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            return parts.count == 3 && parts[2].contains("/hivemind") ? String(parts[2]) : nil
        }
    }

    static func remove(_ groups: Set<String>) {
        let root = "/sys/fs/cgroup"
        let hierarchies =
            [root] + ((try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []).map { "\(root)/\($0)" }
        var left = Set(groups.flatMap { group in hierarchies.map { $0 + group } })
        // Up to the last that names us. What has ended stays in its group until somebody has taken note of it.
        for _ in 0..<150 where !left.isEmpty {
            for path in left.sorted(by: { $0.utf8.count > $1.utf8.count }) {
                let isGone = rmdir(path) == 0 || errno == ENOENT
                guard isGone else { continue }
                left.remove(path)
                let parent = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
                if parent.contains("/hivemind"), access(parent, F_OK) == 0 { left.insert(parent) }
            }
            if !left.isEmpty { usleep(20_000) }
        }
    }

    static func unmount(below directory: String) {
        guard let data = FileManager.default.contents(atPath: "/proc/self/mounts") else { return }
        let points = String(decoding: data, as: UTF8.self).split(separator: "\n").compactMap { line -> String? in
            let fields = line.split(separator: " ")
            return fields.count > 1 && fields[1].hasPrefix(directory + "/") ? String(fields[1]) : nil
        }
        for point in points.reversed() { umount2(point, Int32(MNT_DETACH)) }
    }
}
