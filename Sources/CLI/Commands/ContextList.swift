// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

/// On verbs that talk to no daemon.
struct ShowOptions: ParsableArguments {
    @Option(
        name: [.customShort("o"), .long],
        help: ArgumentHelp("How data is shown (HIVEMIND_OUTPUT; default table).", valueName: "format"))
    var output: OutputFormat?

    func result() throws -> Output {
        let terminal = Terminal.current
        return Output(format: try OutputFormat.chosen(output, terminal), terminal: terminal)
    }
}

/// What may be shown of a context.
struct ContextView: Encodable {
    var name: String
    var isCurrent: Bool
    var addresses: [String]
    var digest: String
    var token: String?

    init(_ context: Context, _ list: ContextList) {
        (name, addresses, digest) = (context.name, context.addresses, context.digest)
        isCurrent = list.current == context.name
        token = context.token.flatMap { APIToken($0)?.id }
    }

    private enum CodingKeys: String, CodingKey {
        case name
        case isCurrent = "current"
        case addresses
        case digest = "authorityDigest"
        case token = "tokenId"
    }
}

struct ContextShow: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List the clusters you can talk to, without their tokens.",
        discussion: "Example:\n  hivemind context ls", aliases: ["list"])

    @OptionGroup(title: "Common") var shown: ShowOptions

    func run() throws {
        let output = try shown.result()
        let list = try ContextFile(output.terminal).read()
        let views = list.contexts.map { ContextView($0, list) }
        struct Shown: Encodable { var items: [ContextView] }
        let local = [
            Cell(list.current == nil ? "*" : ""), Cell(Context.local), Cell("this machine's socket"), Cell("-"),
            Cell("-"),
        ]
        let table = Table(
            ["", "NAME", "ADDRESSES", "TOKEN", "AUTHORITY"],
            [local]
                + views.map { view in
                    [
                        Cell(view.isCurrent ? "*" : ""), Cell(view.name), Cell(view.addresses.joined(separator: ", ")),
                        Cell(view.token ?? "-"), Cell(String(view.digest.prefix(12))),
                    ]
                })
        try output.show(json: Array(try JSON.encode(Shown(items: views))), names: views.map(\.name)) {
            table.rendered($0)
        }
        output.next("context use NAME", afterReading: true)
    }
}

struct ContextUse: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "use", abstract: "Choose the cluster that commands talk to from now on.",
        discussion: """
            `local` is this machine's daemon.

            Examples:
              hivemind context use prod
              hivemind context use local
            """)

    @Argument(help: "Name of the context.") var name: String
    @OptionGroup(title: "Common") var shown: ShowOptions

    func run() throws {
        let output = try shown.result()
        let file = ContextFile(output.terminal)
        var list = try file.read()
        list.current = name == Context.local ? nil : try list.required(name).name
        try file.write(list)
        try output.show(json: Array(try JSON.encode(["current": name])), names: [name]) { _ in
            "commands talk to `\(name)` from now on\n"
        }
        output.next("status")
    }
}

struct ContextRemove: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Forget a cluster and its token; the token stays good until it is revoked.",
        discussion: "Example:\n  hivemind context rm prod", aliases: ["remove", "delete"])

    @Argument(help: "Name of the context.") var name: String
    @OptionGroup(title: "Common") var shown: ShowOptions

    func run() throws {
        let output = try shown.result()
        let file = ContextFile(output.terminal)
        var list = try file.read()
        let context = try list.required(name)
        list[name] = nil
        if list.current == name { list.current = nil }
        try file.write(list)
        try output.show(json: Array(try JSON.encode(["removed": name])), names: [name]) { _ in
            "context `\(name)` is forgotten\n"
        }
        if let id = context.token.flatMap({ APIToken($0)?.id }) {
            output.note("on a node, to make its token good for nothing: hivemind auth token revoke \(id)")
        }
    }
}

struct ContextExport: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Print the line that adds a context elsewhere.",
        discussion: """
            Without --with-token it asks for a token where it is run: give each person one of their own.

            Examples:
              hivemind context export prod
              hivemind context export prod --with-token
            """)

    @Argument(help: "Name of the context.") var name: String
    @Flag(help: "Print the token, too.") var withToken = false
    @OptionGroup(title: "Common") var shown: ShowOptions

    func run() throws {
        let output = try shown.result()
        let context = try ContextFile(output.terminal).read().required(name)
        struct Exported: Encodable {
            var name: String
            var addresses: [String]
            var authorityDigest: String
            var authority: String?
            var token: String?
        }
        let exported = Exported(
            name: name, addresses: context.addresses, authorityDigest: context.digest, authority: context.authority,
            token: withToken ? context.token : nil)
        try output.show(json: Array(try JSON.encode(exported)), names: [name]) { _ in
            Self.line(
                name: name, addresses: context.addresses, digest: context.digest, token: exported.token) + "\n"
        }
    }

    static func line(name: String, addresses: [String], digest: String, token: String?) -> String {
        let places = addresses.map { "--address \($0)" }.joined(separator: " ")
        return "hivemind context add \(name) \(places) --ca-digest \(digest)\(token.map { " --token \($0)" } ?? "")"
    }
}
