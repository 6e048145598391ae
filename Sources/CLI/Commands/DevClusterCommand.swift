// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import FoundationEssentials
internal import Glibc
internal import Model

struct DevCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dev", abstract: "Try things on this machine alone.", subcommands: [DevClusterCommand.self])
}

struct DevClusterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cluster", abstract: "A whole cluster on this machine.",
        subcommands: [DevClusterUp.self, DevClusterDown.self, DevClusterList.self])
}

struct DevClusterOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Where everything of it lies (\(DevCluster.standardDirectory)).", valueName: "dir"),
        completion: .directory)
    var dir = DevCluster.standardDirectory
}

struct DevClusterUp: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up", abstract: "Start nodes in network namespaces and join them.",
        discussion: """
            Real daemons with real containers; the nodes reach one another and this machine reaches them, but they reach
            nothing beyond it: bring images with `hivemind image import` on each of them.

            Examples:
              sudo hivemind dev cluster up --nodes 3
              sudo hivemind dev cluster up --nodes 5 --runtime simulated
            """)

    @Option(help: "Number of nodes, 1 to 20.") var nodes = 3
    @Option(help: ArgumentHelp("containerd or simulated.", valueName: "kind")) var runtime = "containerd"
    @Option(help: ArgumentHelp("Begins the names of namespaces and links.", valueName: "name")) var prefix = "hivedev"
    @Option(help: ArgumentHelp("First three numbers of the nodes' addresses.", valueName: "numbers"))
    var network = "10.209.0"
    @OptionGroup var place: DevClusterOptions
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        guard geteuid() == 0 else {
            throw CLIError(.permission, "only root can make network namespaces", hint: "run it with sudo")
        }
        if try DevCluster.read(place.dir) != nil {
            throw CLIError(
                .conflict, "there is a dev cluster in `\(place.dir)` already",
                hint: "remove it first: hivemind dev cluster down --dir \(place.dir)")
        }
        let cluster = try DevCluster.plan(place.dir, nodes: nodes, prefix: prefix, network: network)
        do {
            try cluster.start(program: try Self.ownProgram(), runtime: runtime)
            try await join(cluster)
        } catch {
            // Half a cluster is of no use to anybody.
            do { try cluster.remove() } catch {
                output.terminal.note("could not remove everything: \(error)")
            }
            throw error
        }
        struct Shown: Encodable {
            struct Node: Encodable {
                var name: String
                var netns: String
                var socket: String
                var address: String
            }
            var nodes: [Node]
        }
        let shown = Shown(
            nodes: cluster.nodes.map {
                Shown.Node(name: $0.name, netns: $0.netns, socket: $0.socket, address: $0.address)
            })
        let table = Table(
            ["NAME", "ADDRESS", "NAMESPACE", "SOCKET"],
            cluster.nodes.map { [Cell($0.name), Cell($0.address), Cell($0.netns), Cell($0.socket)] })
        try output.show(json: Array(try JSON.encode(shown)), names: cluster.nodes.map(\.name)) { table.rendered($0) }
        output.terminal.note("next: export HIVEMIND_SOCKET=\(cluster.nodes[0].socket)")
    }

    private func join(_ cluster: DevCluster) async throws {
        for node in cluster.nodes {
            do {
                try await Membership.wait(client(node), global, seconds: 30) { $0.isReady }
            } catch {
                throw CLIError(
                    .general, "`\(node.name)` did not start: \(error)", hint: cluster.lastWords(of: node))
            }
        }
        let first = client(cluster.nodes[0])
        let made: Answer<ClusterInitView> = try await first.send(
            "POST", "/v1/cluster/init", body: ClusterInitRequest(advertise: cluster.nodes[0].address))
        try await Membership.wait(first, global) { $0.id == made.value.id && $0.isOpen }
        let token: Answer<JoinTokenView> = try await first.send(
            "POST", "/v1/cluster/tokens", body: JoinTokenRequest(ttl: "1h", uses: max(1, nodes - 1)))
        for node in cluster.nodes.dropFirst() {
            let _: Answer<ClusterJoinView> = try await client(node).send(
                "POST", "/v1/cluster/join",
                body: ClusterJoinRequest(token: token.value.token ?? "", advertise: node.address))
            try await Membership.wait(client(node), global) { $0.id == made.value.id && $0.isReady }
        }
    }

    private func client(_ node: DevCluster.Node) -> Client {
        var options = global
        options.socket = node.socket
        return options.client()
    }

    private static func ownProgram() throws -> String {
        var buffer = [CChar](repeating: 0, count: 4_096)
        guard readlink("/proc/self/exe", &buffer, buffer.count - 1) > 0 else {
            throw CLIError(.general, "cannot find this program's file")
        }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

struct DevClusterDown: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "down", abstract: "End the dev cluster and remove everything of it, data too.",
        discussion: "Example:\n  sudo hivemind dev cluster down")

    @OptionGroup var place: DevClusterOptions
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        guard let cluster = try DevCluster.read(place.dir) else {
            throw CLIError(
                .notFound, "there is no dev cluster in `\(place.dir)`", hint: "name its directory: --dir DIR")
        }
        try cluster.remove()
        try output.show(json: Array(#"{"removed":true}"#.utf8), names: cluster.nodes.map(\.name)) { _ in
            "the dev cluster of \(cluster.nodes.count) nodes is gone\n"
        }
    }
}

struct DevClusterList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "Show the nodes of the dev cluster.",
        discussion: "Example:\n  hivemind dev cluster ls", aliases: ["list"])

    @OptionGroup var place: DevClusterOptions
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let nodes = try DevCluster.read(place.dir)?.nodes ?? []
        let table = Table(
            ["NAME", "ADDRESS", "NAMESPACE", "SOCKET"],
            nodes.map { [Cell($0.name), Cell($0.address), Cell($0.netns), Cell($0.socket)] })
        try output.show(json: Array(try JSON.encode(nodes)), names: nodes.map(\.name)) { table.rendered($0) }
    }
}
