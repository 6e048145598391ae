// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ContextCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "context", abstract: "Keep the clusters you talk to.",
        subcommands: [ContextAdd.self, ContextUse.self, ContextShow.self, ContextRemove.self, ContextExport.self])
}

/// Where a cluster is and how it is known.
struct ClusterPlaceOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Address of a node's API, host:4483; may be given again, they are tried in order.", valueName: "addr"))
    var address: [String] = []
    @Option(
        help: ArgumentHelp("Digest of the cluster's authority, as `auth token create` printed it.", valueName: "hex"))
    var caDigest: String?
    @Option(
        help: ArgumentHelp("The authority's certificate instead of its digest, PEM.", valueName: "file"),
        completion: .file())
    var ca: String?
    @Option(
        help: ArgumentHelp("The token; others on this machine can see it while the command runs.", valueName: "hm_…"))
    var token: String?
    @Flag(help: "Read the token from standard input.") var tokenStdin = false

    /// Asks the cluster who it is and whom it takes this token for. Nothing is stored here.
    func context(_ name: String, _ terminal: Terminal) async throws -> (context: Context, who: IdentityView) {
        guard !address.isEmpty else {
            throw CLIError.usage("which cluster? its address is missing", hint: "give --address HOST:4483")
        }
        guard address.count <= Context.addressesMax else {
            throw CLIError.usage("\(address.count) addresses are too many", hint: "at most \(Context.addressesMax)")
        }
        let addresses = try address.map { text throws(CLIError) in try Context.address(text) }
        let digest = try wantedDigest()
        let token = try readToken(terminal)
        let authority: DaemonAuthority
        if let ca {
            authority = try DaemonAuthority.read(
                String(decoding: try terminal.readFile(.file(ca)), as: UTF8.self), from: ca)
            if let digest, digest != authority.digest {
                throw CLIError.usage("--ca and --ca-digest name two authorities", hint: "give one of them")
            }
        } else {
            authority = try await DaemonAuthority.fetch(addresses, digest: digest, terminal) { found in
                terminal.note("the authority of \(addresses[0]) has digest \(found)")
                try terminal.confirm("believe it", yes: false, instead: "give --ca-digest")
            }
        }
        let context = Context(
            name: name, addresses: addresses, token: token.text, authority: authority.certificates,
            digest: authority.digest)
        let client = Client(transport: terminal.remote(context), namespace: nil)
        let who: Answer<IdentityView> = try await client.get("/v1/whoami")
        return (context, who.value)
    }

    private func wantedDigest() throws(CLIError) -> String? {
        guard let text = caDigest?.lowercased() else { return nil }
        guard text.utf8.count == 64, text.allSatisfy(\.isHexDigit) else {
            throw .usage("--ca-digest `\(text)` is no digest", hint: "it has 64 hexadecimal digits")
        }
        return text
    }

    private func readToken(_ terminal: Terminal) throws -> APIToken {
        let text: String
        switch (token, tokenStdin) {
        case (_?, true): throw CLIError.usage("--token and --token-stdin are two tokens", hint: "give one of them")
        case (let given?, false): text = given
        case (nil, true): text = terminal.readLine() ?? ""
        case (nil, false):
            guard terminal.isInputTTY, terminal.isErrorTTY else {
                throw CLIError.usage(
                    "the token is missing, and there is no terminal to ask on", hint: "give --token-stdin or --token")
            }
            terminal.writeError(Array("token: ".utf8))
            text = terminal.readSecret() ?? ""
        }
        guard let token = APIToken(text.trimmed) else {
            throw CLIError.usage(
                text.hasPrefix(JoinToken.prefix)
                    ? "this is a token to join with, not one for the API" : "the token is mistyped or cut off",
                hint: "it begins with `\(APIToken.prefix)`, as `hivemind auth token create` printed it")
        }
        return token
    }
}

extension String {
    fileprivate var trimmed: String {
        var rest = self[...]
        while rest.first?.isWhitespace == true { rest.removeFirst() }
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return String(rest)
    }
}

struct ContextAdd: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Add a cluster, or replace one; the first one added is used from then on.",
        discussion: """
            The cluster must prove that it is the one of the digest before the token is sent. Without a digest it is shown,
            and you are asked.

            Examples:
              hivemind context add prod --address 10.0.0.1:4483 --ca-digest 3f… --token-stdin <token
              hivemind context add prod --address a.example --address b.example --ca ca.pem
            """)

    @Argument(help: "What you call it.") var name: String
    @OptionGroup var place: ClusterPlaceOptions
    @OptionGroup(title: "Common") var shown: ShowOptions

    func run() async throws {
        try Context.checkName(name)
        let output = try shown.result()
        let (context, who) = try await place.context(name, output.terminal)
        let file = ContextFile(output.terminal)
        var list = try file.read()
        let isFirst = list.contexts.isEmpty
        list[name] = context
        if isFirst { list.current = name }
        try file.write(list)
        try output.show(json: Array(try JSON.encode(ContextView(context, list))), names: [name]) { _ in
            "context `\(name)`: \(who.role)\(who.name.isEmpty ? "" : " `\(who.name)`") on \(context.addresses[0])"
                + "\(list.current == name ? ", used from now on" : "")\n"
        }
        output.next(list.current == name ? "status" : "context use \(name)")
    }
}

struct LoginCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "login", abstract: "Use a cluster from here: asks for a token and keeps it.",
        discussion: """
            The same as `context add` and `context use`.

            Examples:
              hivemind login --address 10.0.0.1:4483
              hivemind login --address 10.0.0.1:4483 --ca-digest 3f… --token-stdin <token
            """)

    @Option(help: ArgumentHelp("What the context is called (default `default`).", valueName: "name"))
    var name = "default"
    @OptionGroup var place: ClusterPlaceOptions
    @OptionGroup(title: "Common") var shown: ShowOptions

    func run() async throws {
        try Context.checkName(name)
        let output = try shown.result()
        let (context, who) = try await place.context(name, output.terminal)
        let file = ContextFile(output.terminal)
        var list = try file.read()
        list[name] = context
        list.current = name
        try file.write(list)
        try output.show(json: Array(try JSON.encode(ContextView(context, list))), names: [name]) { _ in
            "logged in to \(context.addresses[0]) as \(who.role)\(who.name.isEmpty ? "" : " `\(who.name)`")\n"
        }
        output.next("status", "auth whoami")
    }
}
