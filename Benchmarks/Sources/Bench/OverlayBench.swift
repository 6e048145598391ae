// SPDX-License-Identifier: Apache-2.0
import ContainerNetwork
import Foundation
import Model

/// Containers on two nodes, joined by this project's network and by the same topology made by hand with `ip`: routed veth
/// pairs and a VXLAN device; bare, and with the one rule no container network does without, a masquerade for what leaves
/// it, for which the kernel tracks every connection. Every node is a network namespace plugged into one switch.
struct OverlayBench {
    let directory: String
    let report: Report
    let rounds: Int

    private static let program = CommandLine.arguments[0]

    /// An empty network namespace, alive as long as its process.
    private final class Namespace {
        let process: Program
        var path: String { "/proc/\(process.pid)/ns/net" }

        init() throws {
            process = try Program(["unshare", "--net", "sleep", "100000"])
            let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/net")
            _ = try eventually("a network namespace is made") {
                let theirs = try? FileManager.default.destinationOfSymbolicLink(atPath: path)
                return theirs == nil || theirs == own ? nil : true
            }
            try ip("link set lo up")
        }

        deinit {
            process.kill(SIGKILL)
            process.wait()
        }

        func ip(_ command: String) throws {
            try Program.run(["nsenter", "--net=\(path)", "ip"] + command.split(separator: " ").map(String.init))
        }
    }

    /// Where a server answers, and where its clients are.
    private struct Way {
        var name: String
        var client: String
        var server: String
        var address: String
        var samples = [Samples](repeating: Samples(), count: 3)
    }

    func run() throws {
        let underlay = try Namespace()
        try underlay.ip("link add br0 type bridge")
        try underlay.ip("link set br0 up")
        let nodes = try (1...6).map { number in
            let node = try Namespace()
            try node.ip("link add up0 type veth peer name p\(number) netns \(underlay.process.pid)")
            try underlay.ip("link set p\(number) master br0 up")
            try node.ip("addr add 192.0.2.\(number)/24 dev up0")
            try node.ip("link set up0 up")
            return node
        }
        let ours = try (1...2).map { try prepared(nodes[$0 - 1], number: $0) }
        let pods = try (3...6).map { try byHand(nodes[$0 - 1], number: $0, peer: ($0 - 1 ^ 1) + 1, tracked: $0 > 4) }
        defer { withExtendedLifetime((underlay, nodes, pods)) {} }
        var ways = [
            Way(name: "ours", client: ours[0], server: ours[1], address: "10.210.2.2"),
            Way(name: "by hand", client: pods[0].path, server: pods[1].path, address: "10.210.4.2"),
            Way(name: "by hand, masquerade", client: pods[2].path, server: pods[3].path, address: "10.210.6.2"),
            Way(name: "no overlay", client: nodes[2].path, server: nodes[3].path, address: "192.0.2.4"),
        ]
        let servers = try ways.flatMap { way in
            try ["serve", "sink"].map { try Program(["nsenter", "--net=\(way.server)", Self.program, $0]) }
        }
        defer {
            for server in servers {
                server.kill(SIGKILL)
                server.wait()
            }
        }
        for round in 0...rounds {
            // Each goes first as often as the others.
            for place in ways.indices {
                let index = (place + round) % ways.count
                let numbers = try eventually("\(ways[index].name) answers") {
                    try? Program.run([
                        "nsenter", "--net=\(ways[index].client)", Self.program, "cross", ways[index].address,
                    ]).output.split(separator: " ").compactMap { Double($0.trimmingCharacters(in: .newlines)) }
                }
                guard numbers.count == 3 else { throw BenchError("\(ways[index].name) gave \(numbers)") }
                // The first round only warms up.
                if round > 0 {
                    for (column, number) in numbers.enumerated() { ways[index].samples[column].add(number) }
                }
            }
        }
        for (what, unit, column, aim) in [
            ("connect, request, close: container on another node", "us", 0, "<= 1.05 x"),
            ("request on an open connection: container on another node", "us", 1, "<= 1.05 x"),
            ("one stream: container on another node", "Gbit/s", 2, ">= 0.95 x"),
        ] {
            for peer in ways[1...2] {
                report.row(
                    what, unit: unit, ours: ways[0].samples[column], peer: (peer.name, peer.samples[column]), aim: aim)
            }
        }
        let added = ways[0].samples[1].median - ways[3].samples[1].median
        report.row(
            "request on an open connection: overlay, against none (\(Samples.format(added)) us added)", unit: "us",
            ours: ways[0].samples[1], peer: (ways[3].name, ways[3].samples[1]))
    }

    /// - Returns: the container's namespace.
    private func prepared(_ node: Namespace, number: Int) throws -> String {
        try Program.run([
            "nsenter", "--net=\(node.path)", Self.program, "overlay-node", "\(directory)/overlay\(number)", "\(number)",
        ]).output.trimmingCharacters(in: .newlines)
    }

    private func byHand(_ node: Namespace, number: Int, peer: Int, tracked: Bool) throws -> Namespace {
        let pod = try Namespace()
        func hardware(_ number: Int) -> String { "02:00:00:00:00:0\(number)" }
        for command in [
            "link add vx0 mtu 1450 address \(hardware(number)) type vxlan id 7 local 192.0.2.\(number) dev up0 "
                + "dstport 4789 nolearning",
            "link set vx0 up",
            "route add 10.210.\(peer).0/24 via 10.210.\(peer).0 dev vx0 onlink",
            "neigh add 10.210.\(peer).0 lladdr \(hardware(peer)) dev vx0 nud permanent",
            "link add v0 mtu 1450 type veth peer name eth0 mtu 1450 netns \(pod.process.pid)",
            "link set v0 address 02:00:00:00:00:ff up",
            "route add 10.210.\(number).2/32 dev v0",
        ] { try node.ip(command) }
        try Program.run([
            "nsenter", "--net=\(node.path)", "bridge", "fdb", "add", hardware(peer), "dev", "vx0", "dst",
            "192.0.2.\(peer)", "self", "permanent",
        ])
        try Program.run(["nsenter", "--net=\(node.path)", "sysctl", "-qw", "net.ipv4.ip_forward=1"])
        if tracked {
            try Program.run([
                "nsenter", "--net=\(node.path)", "nft",
                "add table ip nat; add chain ip nat out { type nat hook postrouting priority srcnat; }; "
                    + "add rule ip nat out ip saddr 10.210.0.0/16 ip daddr != 10.210.0.0/16 masquerade",
            ])
        }
        for command in [
            "addr add 10.210.\(number).2/32 dev eth0", "link set eth0 up", "route add 169.254.1.1 dev eth0",
            "neigh add 169.254.1.1 lladdr 02:00:00:00:00:ff dev eth0 nud permanent",
            "route add default via 169.254.1.1",
        ] { try pod.ip(command) }
        return pod
    }

    // MARK: What runs in namespaces

    /// Makes the namespace it runs in one of two nodes, with one container, and prints where that is.
    static func prepareNode(_ directory: String, number: Int) throws {
        func subnet(_ number: Int) -> IPv4Subnet {
            IPv4Subnet(AddressRanges.standard.containers[number << 8], prefix: 24)
        }
        func address(_ number: Int) -> IPv4Address { IPv4Address(value: 192 << 24 | 2 << 8 | UInt32(number)) }
        let peer = 3 - number
        let remote = RemoteNode(id: NodeID("n\(peer)"), address: address(peer), subnet: subnet(peer))
        let networking = try KernelNetworking(dataDirectory: directory)
        let node = NodeNetwork(
            subnet: subnet(number), ranges: .standard, overlay: OverlayEnd(address: address(number)))
        try finish {
            try await networking.prepare(node)
            let refused = try await networking.connect([remote])
            guard refused.isEmpty else { throw BenchError("\(refused)") }
            let attachment = try await networking.attach(AttachmentRequest(task: "c", address: node.subnet[2]))
            _ = try await networking.program(.empty)
            print(attachment.namespacePath ?? "")
        }
    }

    private static func finish(_ body: @escaping @Sendable () async throws -> Void) throws {
        let done = DispatchSemaphore(value: 0)
        nonisolated(unsafe) var failure: (any Error)?  // Written before the signal, read after it.
        Task {
            do { try await body() } catch { failure = error }
            done.signal()
        }
        done.wait()
        if let failure { throw failure }
    }
}
