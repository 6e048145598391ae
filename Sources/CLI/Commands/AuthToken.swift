// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct AuthCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "auth", abstract: "Say who may use the cluster from elsewhere.",
        subcommands: [AuthTokenCommand.self, AuthCanI.self, AuthWhoAmI.self])
}

struct AuthTokenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token", abstract: "Tokens for the API over TCP.",
        subcommands: [AuthTokenCreate.self, AuthTokenList.self, AuthTokenRevoke.self])
}

struct AuthTokenCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Make a token; it is shown this once, with the line that uses it.",
        discussion: """
            A viewer reads everything and logs; an operator also runs apps and moves tasks between nodes; an admin does
            everything. A token of a namespace is good for that namespace alone.

            Examples:
              hivemind auth token create --name anna --role admin
              hivemind auth token create --name ci --role operator --namespace shop --ttl 30d
            """)

    @Option(help: ArgumentHelp("Whose it is, for lists and logs.", valueName: "text")) var name: String?
    @Option(help: ArgumentHelp("viewer, operator or admin (default viewer).", valueName: "role")) var role: String?
    @Option(help: ArgumentHelp("The one namespace it is good for; without it all.", valueName: "ns"))
    var namespace: String?
    @Option(help: ArgumentHelp("How long it is good for (default 90d).", valueName: "duration")) var ttl: String?
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        if let ttl { _ = try DurationParser.milliseconds(ttl, flag: "--ttl") }
        let client = Client(transport: global.client().transport, namespace: nil)
        let made: Answer<APITokenView> = try await client.send(
            "POST", "/v1/tokens",
            body: APITokenRequest(name: name, role: role, namespace: namespace, ttl: ttl))
        let view = made.value
        try output.show(json: made.body, names: [view.id]) { _ in
            """
            token \(view.id), good until \(view.expiresAt), shown this once:
              \(view.token ?? "")

            from elsewhere:
              \(ContextExport.line(
                name: name.flatMap { Self.word($0) } ?? "NAME", addresses: view.addresses ?? [],
                digest: view.authorityDigest ?? "", token: view.token))

            """
        }
        output.next("auth token ls", "auth token revoke \(view.id)")
    }

    /// The name as one for a context, if it can be.
    private static func word(_ text: String) -> String? {
        do { try Context.checkName(text) } catch { return nil }
        return text
    }
}

struct AuthTokenList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List the tokens, without their secrets.",
        discussion: "Example:\n  hivemind auth token ls", aliases: ["list"])

    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let list: Answer<ItemList<APITokenView>> = try await global.client().get("/v1/tokens")
        let items = list.value.items
        let now = output.terminal.now()
        let table = Table(
            ["ID", "NAME", "ROLE", "NAMESPACE", "EXPIRES"],
            items.map { token in
                [
                    Cell(token.id), Cell(token.name), Cell(token.role), Cell(token.namespace ?? "all"),
                    Cell(token.expiresAt > now ? token.expiresAt.description : "expired"),
                ]
            })
        try output.show(json: list.body, names: items.map(\.id)) { table.rendered($0) }
        output.next("auth token create", afterReading: true)
    }
}

struct AuthTokenRevoke: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke", abstract: "Make a token good for nothing, at once.",
        discussion: "Example:\n  hivemind auth token revoke ID", aliases: ["rm"])

    @Argument(help: "Id of the token, as `auth token ls` shows it.") var id: String
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        // Whoever has the whole token at hand need not cut it.
        let name = id.hasPrefix(APIToken.prefix) ? APIToken(id)?.id ?? id : id
        let reply = try await global.client().call("DELETE", "/v1/tokens/\(Client.escape(name))")
        try output.show(json: reply.body, names: [name]) { _ in "API token \(name) is revoked\n" }
        output.next("auth token ls")
    }
}
