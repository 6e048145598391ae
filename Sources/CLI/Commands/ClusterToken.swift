// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ClusterTokenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token", abstract: "Let machines join the cluster.",
        subcommands: [ClusterTokenCreate.self, ClusterTokenList.self, ClusterTokenRotate.self, ClusterTokenRevoke.self])
}

struct ClusterTokenCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Make a token; it is shown this once.",
        discussion: """
            Examples:
              hivemind cluster token create
              hivemind cluster token create --uses 1 --ttl 1h
              hivemind cluster token create --role observer
            """)

    @Option(help: "Role of the nodes: voter or observer; without it the cluster chooses.") var role: String?
    @Option(help: "How long it is good for (24h).") var ttl: String?
    @Option(help: "Machines it lets in; without it any number.") var uses: Int?
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        if let ttl { _ = try DurationParser.milliseconds(ttl, flag: "--ttl") }
        let made: Answer<JoinTokenView> = try await global.client().send(
            "POST", "/v1/cluster/tokens", body: JoinTokenRequest(role: role, ttl: ttl, uses: uses))
        try output.show(json: made.body, names: [made.value.id]) { _ in
            "hivemind cluster join \(made.value.token ?? "")\n"
        }
        output.next("cluster token ls")
    }
}

struct ClusterTokenList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List the tokens that are good; without their secrets.",
        discussion: "Example:\n  hivemind cluster token ls", aliases: ["list"])

    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let list: Answer<ItemList<JoinTokenView>> = try await global.client().get("/v1/cluster/tokens")
        let items = list.value.items
        let table = Table(
            ["ID", "ROLE", "USES LEFT", "EXPIRES"],
            items.map { token in
                [
                    Cell(token.id), Cell(token.role), Cell(token.usesLeft.map { "\($0)" } ?? "any"),
                    Cell(token.expiresAt.description),
                ]
            })
        try output.show(json: list.body, names: items.map(\.id)) { table.rendered($0) }
        output.next("cluster token create", afterReading: true)
    }
}

struct ClusterTokenRotate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rotate", abstract: "Exchange a token for a new one; the old one is refused from then on.",
        discussion: """
            Role and machines left stay; it is good for as long again as the old one was given. Without an id the only
            token there is.

            Examples:
              hivemind cluster token rotate
              hivemind cluster token rotate ID
            """)

    @Argument(help: "Id of the token, as `cluster token ls` shows it.") var id: String?
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let place = id.map { "/\(Client.escape($0))" } ?? ""
        let client = global.client()
        let made: Answer<JoinTokenView> = try client.decode(
            try await client.call("POST", "/v1/cluster/tokens\(place)/rotate"))
        try output.show(json: made.body, names: [made.value.id]) { _ in
            "hivemind cluster join \(made.value.token ?? "")\n"
        }
        output.next("cluster token ls")
    }
}

struct ClusterTokenRevoke: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke", abstract: "Make a token good for nothing; nodes that joined with it stay.",
        discussion: "Example:\n  hivemind cluster token revoke ID", aliases: ["rm"])

    @Argument(help: "Id of the token, as `cluster token ls` shows it.") var id: String
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let reply = try await global.client().call("DELETE", "/v1/cluster/tokens/\(Client.escape(id))")
        try output.show(json: reply.body, names: [id]) { _ in "join token \(id) is revoked\n" }
        output.next("cluster token ls")
    }
}
