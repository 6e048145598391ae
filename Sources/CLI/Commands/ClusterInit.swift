// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

/// Where the other nodes find this one.
struct AdvertiseOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "IPv4 address of this machine at which the other nodes reach it; without it that of its first interface.",
            valueName: "addr"))
    var advertise: String?
    @Option(help: ArgumentHelp("TCP port for other nodes (4484).", valueName: "port"))
    var peerPort: Int?
    @Option(help: ArgumentHelp("TCP port of the API over TLS (4483).", valueName: "port"))
    var apiPort: Int?

    func validate() throws {
        for port in [peerPort, apiPort].compactMap({ $0 }) where !(1...65_535).contains(port) {
            throw ValidationError("\(port) is no port")
        }
    }
}

struct ClusterInit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init", abstract: "Make this node the first of a cluster that others can join.",
        discussion: """
            Its apps go on. It prints the line with which other machines join, and a recovery code, once: keep that where
            the cluster's backups are, it opens the secrets in them.

            Examples:
              hivemind cluster init
              hivemind cluster init --advertise 10.0.0.1
            """)

    @Flag(help: "Encrypt what containers of different nodes say; refused where that cannot be done.")
    var encrypt = false
    @OptionGroup var place: AdvertiseOptions
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let client = global.localClient()
        let made: Answer<ClusterInitView> = try await client.send(
            "POST", "/v1/cluster/init",
            body: ClusterInitRequest(
                advertise: place.advertise, peerPort: place.peerPort, apiPort: place.apiPort,
                encrypt: encrypt ? true : nil))
        try await Membership.wait(client, global) { $0.id == made.value.id && $0.isOpen }
        let token: Answer<JoinTokenView> = try await client.send(
            "POST", "/v1/cluster/tokens", body: JoinTokenRequest())
        try output.show(
            json: Array(try JSON.encode(Shown(cluster: made.value, token: token.value))), names: [made.value.id]
        ) { _ in
            """
            cluster \(made.value.id) begins at \(made.value.address)

            recovery code, shown this once: keep it with the backups
              \(made.value.recoveryCode)

            on every machine that is to join, within a day:
              hivemind cluster join \(token.value.token ?? "")

            """
        }
        output.next("node ls", "cluster token create")
    }

    private struct Shown: Encodable {
        var id: String
        var node: String
        var address: String
        var recoveryCode: String
        var token: String?
        var tokenExpiresAt: Timestamp

        init(cluster: ClusterInitView, token: JoinTokenView) {
            (id, node, address, recoveryCode) = (cluster.id, cluster.node, cluster.address, cluster.recoveryCode)
            self.token = token.token
            tokenExpiresAt = token.expiresAt
        }
    }
}

struct ClusterJoin: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "join", abstract: "Make this machine a node of the cluster a token is from.",
        discussion: """
            The machine must be alone and without apps. It shows the token's secret only to a cluster whose authority the
            token names. Repeating it is harmless.

            Examples:
              hivemind cluster join hmj_0123…
              hivemind cluster join hmj_0123… --advertise 10.0.0.2
              hivemind cluster join hmj_0123… --check
            """)

    @Argument(help: "What `hivemind cluster token create` printed.")
    var token: String
    @Option(help: "voter or observer; without it the cluster chooses.")
    var role: String?
    @Flag(help: "Only tell what is in the way: ports, MTU, clock, version, addresses, name.")
    var check = false
    @OptionGroup var place: AdvertiseOptions
    @OptionGroup(title: "Common") var global: GlobalOptions

    private func look(_ output: Output, _ client: Client) async throws {
        let answer: Answer<ClusterJoinCheckView> = try await client.send(
            "POST", "/v1/cluster/join/check",
            body: ClusterJoinRequest(
                token: token, advertise: place.advertise, role: role, peerPort: place.peerPort,
                apiPort: place.apiPort))
        let view = answer.value
        try output.show(json: answer.body, names: view.findings.map(\.check.rawValue)) { style in
            guard !view.ready else {
                return "this machine can join; ways to and from \(view.nodes.joined(separator: ", ")) are open\n"
            }
            return Table(
                ["CHECK", "WHY", "WHAT HELPS"],
                view.findings.map { [Cell($0.check.rawValue, .bad), Cell($0.message), Cell($0.hint)] }
            ).rendered(style)
        }
        guard view.ready else {
            throw CLIError(
                .general, "\(view.findings.count) things keep this machine from joining; nothing was changed",
                hint: "put them right, then ask again")
        }
        output.next("cluster join TOKEN")
    }

    func run() async throws {
        let output = try global.result()
        let client = global.localClient()
        if check { return try await look(output, client) }
        let joined: Answer<ClusterJoinView> = try await client.send(
            "POST", "/v1/cluster/join",
            body: ClusterJoinRequest(
                token: token, advertise: place.advertise, role: role, peerPort: place.peerPort,
                apiPort: place.apiPort))
        try await Membership.wait(client, global) { $0.id == joined.value.id && $0.isReady }
        try output.show(json: joined.body, names: [joined.value.node]) { _ in
            "`\(joined.value.node)` is a node of cluster \(joined.value.id)\n"
        }
        output.next("node ls", "cluster status")
    }
}

struct ClusterLeave: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "leave", abstract: "Take this node out of its cluster; it is alone afterwards.",
        discussion: """
            Its tasks end here and are started elsewhere. Its ids are never used again.

            Example:
              hivemind cluster leave --yes
            """)

    @Flag(name: [.customShort("y"), .long], help: "Do not ask.")
    var yes = false
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let client = global.localClient()
        let before: Answer<ClusterView> = try await client.get("/v1/cluster")
        try output.terminal.confirm("take this node out of cluster \(before.value.id)", yes: yes)
        _ = try await client.call("POST", "/v1/cluster/leave")
        try await Membership.wait(client, global, isLeaving: true) { $0.id != before.value.id && $0.isReady }
        try output.show(json: before.body, names: [before.value.id]) { _ in
            "this node left cluster \(before.value.id)\n"
        }
        output.next("cluster join TOKEN", "status")
    }
}

/// A node that founds, joins or leaves is not there for a moment.
enum Membership {
    struct Standing {
        /// Of the cluster.
        var id: String
        /// It lets others in.
        var isOpen: Bool
        /// It follows a leader and knows itself.
        var isReady: Bool
    }

    static let limitSeconds = 60

    /// - Parameter isLeaving: the node follows nobody for now, and what asks for a leader would wait in vain. Any other must
    ///   not believe a state that is old: it may have this node's name from before.
    static func wait(
        _ client: Client, _ global: GlobalOptions, seconds: Int = limitSeconds, isLeaving: Bool = false,
        until: (Standing) -> Bool
    ) async throws {
        let end = ContinuousClock.now + .seconds(seconds)
        let client = client.silent
        let consistency = isLeaving ? "local" : "linearizable"
        var last: (any Error)?
        while ContinuousClock.now < end {
            do {
                let cluster: Answer<ClusterView> = try await client.get(
                    "/v1/cluster", [("consistency", consistency)])
                let status: Answer<StatusView> = try await client.get("/v1/status")
                let nodes: Answer<ItemList<NodeView>> = try await client.get("/v1/nodes")
                let own = nodes.value.items.first { $0.name == status.value.node }
                let authority: Answer<Authorities> = try await client.get("/v1/authority")
                let standing = Standing(
                    id: cluster.value.id,
                    isOpen: !authority.value.authorities.isEmpty && cluster.value.leader != nil && own != nil,
                    isReady: cluster.value.leader != nil && own?.state == "ready")
                if until(standing) { return }
                last = nil
            } catch {
                last = error
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw CLIError(
            .timeout, "the node did not come back within \(seconds) s\(last.map { ": \($0)" } ?? "")",
            hint: "see its log, then `hivemind cluster status`")
    }

    private struct Authorities: Decodable { var authorities: [String] }
}
