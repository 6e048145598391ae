// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc

/// What a daemon has on the machine right now, as sorted lines: two of them are compared, and the difference names
/// what was left behind.
///
/// Seen are: links `hm*`, routes and rules' elements in its namespace, network namespaces that are mounted for it,
/// mounts below its data directory, shims and log capture processes, containers, tasks and active snapshots of its
/// containerd, control groups and files named after its tasks.
public struct Footprint: Sendable, Hashable, CustomStringConvertible {
    public var lines: Set<String> = []

    public init(lines: Set<String> = []) { self.lines = lines }

    public var description: String { lines.sorted().joined(separator: "\n") }

    /// What is here now and was not before.
    public func added(since before: Footprint) -> [String] { lines.subtracting(before.lines).sorted() }
}

extension TestDaemon {
    /// - Parameter tasks: ids whose names are looked for everywhere, ended ones included.
    public func footprint(tasks: [String] = []) async throws -> Footprint {
        try await look.footprint(tasks: tasks, runtime: try await api("GET", "/v1/status").json()["runtime"])
    }

    private var look: MachineLook { MachineLook(netns: node.name, directory: directory.path) }

    /// Pids of the programs of this name in the daemon's namespace, such as its `containerd`.
    public func processes(named name: String) throws -> [Int32] {
        try look.processesInside().filter { $0.name == name }.map(\.pid).sorted()
    }

    /// Fails, naming what is left, unless the footprint comes back to `before`.
    public func expectNothingLeft(
        since before: Footprint, tasks: [String], within limit: Duration = .seconds(30)
    ) async throws {
        try await eventually("nothing is left", within: limit, every: .milliseconds(200)) {
            let left = try await self.footprint(tasks: tasks).added(since: before)
            guard left.isEmpty else { throw TestFailure("left behind:\n  \(left.joined(separator: "\n  "))") }
            return true
        }
    }
}

extension TestDevCluster.Node {
    /// As `TestDaemon.footprint`.
    public func footprint() async throws -> Footprint {
        try await MachineLook(netns: netns, directory: dataDir).footprint(
            tasks: [], runtime: try await json("status")["runtime"])
    }
}

/// Looks at one node's part of this machine.
struct MachineLook {
    /// Of the network namespace the daemon is in.
    var netns: String
    var directory: String

    /// - Parameter runtime: as in the status of the node.
    func footprint(tasks: [String], runtime: JSONValue) async throws -> Footprint {
        var lines: Set<String> = []
        for link in try await listed(["ip", "-j", "link", "show"]) {
            if let name = link["ifname"].string, name.hasPrefix("hm") { lines.insert("link \(name)") }
        }
        for route in try await run(["ip", "route", "show", "table", "all"]).checked().lines
        where !route.contains("dev uplink") { lines.insert("route \(route)") }
        lines.formUnion(try await ruleElements())
        lines.formUnion(try mounts(tasks: tasks))
        lines.formUnion(try processes())
        lines.formUnion(try await containerdObjects(runtime))
        lines.formUnion(files(namedAfter: tasks))
        return Footprint(lines: lines)
    }

    private func run(_ command: [String]) async throws -> ShellOutput {
        try await Shell.run(["nsenter", "--net=/run/netns/\(netns)", "--"] + command)
    }

    private func listed(_ command: [String]) async throws -> [JSONValue] {
        let output = try await run(command).checked()
        return output.text.isEmpty ? [] : try JSONValue(parsing: output.stdout).array
    }

    /// Elements of the maps and sets of the table: what a service, a published port or an address leaves there.
    private func ruleElements() async throws -> [String] {
        let output = try await run(["nft", "-j", "list", "table", "inet", "hivemind"])
        guard output.succeeded else { return [] }
        var found: [String] = []
        for object in try JSONValue(parsing: output.stdout)["nftables"].array {
            for kind in ["map", "set"] where !object[kind].isNull {
                let name = object[kind]["name"].string ?? ""
                found += object[kind]["elem"].array.map { "nft \(kind) \(name) \($0)" }
            }
        }
        return found
    }

    private func mounts(tasks: [String]) throws -> [String] {
        let table = try String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)
        return table.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ")
            guard fields.count > 4 else { return nil }
            let point = String(fields[4])
            let named = tasks.contains { point.contains($0) }
            return named || point.hasPrefix(directory + "/") ? "mount \(point)" : nil
        }
    }

    private func processes() throws -> [String] {
        try processesInside().filter { $0.name.hasPrefix("containerd-shim") || $0.name.hasPrefix("hivemind-log") }
            .map { "process \($0.pid) \($0.name)" }
    }

    /// Programs that run in the daemon's namespace, whoever their parent is by now. Names are cut to 15 bytes.
    func processesInside() throws -> [(pid: Int32, name: String)] {
        var wanted = stat()
        guard stat("/run/netns/\(netns)", &wanted) == 0 else { throw TestFailure("no namespace \(netns)") }
        return try FileManager.default.contentsOfDirectory(atPath: "/proc").compactMap { entry in
            var found = stat()
            guard let pid = Int32(entry), stat("/proc/\(entry)/ns/net", &found) == 0, found.st_ino == wanted.st_ino,
                let name = try? String(contentsOfFile: "/proc/\(entry)/comm", encoding: .utf8)
            else { return nil }
            return (pid, String(name.prefix { !$0.isNewline }))
        }
    }

    private func containerdObjects(_ runtime: JSONValue) async throws -> [String] {
        guard runtime["kind"].string == "containerd" else { return [] }
        guard var address = runtime["address"].string else { throw TestFailure("no address in \(runtime)") }
        if address.hasPrefix("unix://") { address.removeFirst("unix://".count) }
        let ctr = ["ctr", "--address", address]
        var found: [String] = []
        for space in try await Shell.run(ctr + ["namespaces", "list", "--quiet"]).checked().lines {
            let scoped = ctr + ["--namespace", space]
            for name in try await Shell.run(scoped + ["containers", "list", "--quiet"]).checked().lines {
                found.append("container \(space)/\(name)")
            }
            for name in try await Shell.run(scoped + ["tasks", "list", "--quiet"]).checked().lines {
                found.append("task \(space)/\(name)")
            }
            for line in try await Shell.run(scoped + ["snapshots", "list"]).checked().lines
            where line.contains("Active") || line.contains("View") {
                found.append("snapshot \(space)/\(line.prefix { $0 != " " })")
            }
            for name in try await Shell.run(scoped + ["leases", "list", "--quiet"]).checked().lines {
                found.append("lease \(space)/\(name)")
            }
        }
        return found
    }

    private func files(namedAfter tasks: [String]) -> [String] {
        guard !tasks.isEmpty else { return [] }
        var found: [String] = []
        for root in [directory, "/sys/fs/cgroup", "/run/netns", "/run/hivemind"] {
            guard let entries = FileManager.default.subpaths(atPath: root) else { continue }
            for entry in entries {
                guard let last = entry.split(separator: "/").last, tasks.contains(where: { last.contains($0) }) else {
                    continue
                }
                found.append("file \(root)/\(entry)")
            }
        }
        return found
    }
}
