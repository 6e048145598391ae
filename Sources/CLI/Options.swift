// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

/// On every verb that talks to the daemon.
struct GlobalOptions: ParsableArguments {
    static let defaultSocket = "/run/hivemind/hivemind.sock"

    @Option(
        help: ArgumentHelp(
            "Socket of the daemon (HIVEMIND_SOCKET; default /run/hivemind/hivemind.sock).", valueName: "path"),
        completion: .file())
    var socket: String?

    @Option(help: ArgumentHelp("Cluster to talk to, see `hivemind context` (HIVEMIND_CONTEXT).", valueName: "name"))
    var context: String?

    @Option(
        name: [.customShort("o"), .long],
        help: ArgumentHelp("How data is shown (HIVEMIND_OUTPUT; default table).", valueName: "format"))
    var output: OutputFormat?

    func client(namespace: String? = nil) -> Client {
        let terminal = Terminal.current
        let transport: any Transport
        do {
            transport = terminal.transport(try Target.chosen(socket: socket, context: context, terminal))
        } catch {
            transport = ClosedTransport(error: error)
        }
        return Client(transport: transport, namespace: namespace ?? terminal.setting("HIVEMIND_NAMESPACE"))
    }

    /// For verbs about this machine itself, whatever context is used.
    func localClient() -> Client {
        let terminal = Terminal.current
        guard context == nil else {
            let error = CLIError.usage(
                "this is about the machine itself: it takes no --context", hint: "run it on that machine")
            return Client(transport: ClosedTransport(error: error), namespace: nil)
        }
        let path = socket ?? terminal.setting("HIVEMIND_SOCKET") ?? Self.defaultSocket
        return Client(transport: terminal.connect(path), namespace: nil)
    }

    /// - Parameter namespace: as given by flag; one from the environment need not be repeated in suggestions.
    func result(namespace: String? = nil) throws -> Output {
        let terminal = Terminal.current
        let format = try OutputFormat.chosen(output, terminal)
        var suffix = ""
        if let namespace { suffix += " --namespace \(namespace)" }
        if let socket { suffix += " --socket \(socket)" } else if let context { suffix += " --context \(context)" }
        return Output(format: format, terminal: terminal, context: suffix)
    }
}

/// On verbs that show state.
struct ReadOption: ParsableArguments {
    enum Consistency: String, CaseIterable, ExpressibleByArgument { case linearizable, leader, local }

    @Option(
        help: ArgumentHelp(
            "How current what is shown must be (default linearizable for one object, local for lists).",
            valueName: "level"))
    var consistency: Consistency?

    var query: [(String, String?)] { [("consistency", consistency?.rawValue)] }
}

/// On verbs about apps, services, tasks, volumes and configs.
struct NamespaceOption: ParsableArguments {
    @Option(help: ArgumentHelp("Namespace (HIVEMIND_NAMESPACE; default `default`, lists show all).", valueName: "ns"))
    var namespace: String?
}

/// The object a verb is about: positional or `--name`.
struct NameArgument: ParsableArguments {
    @Argument(help: "Name of the object (or --name).")
    var name: String?

    @Option(name: .customLong("name"), help: .hidden)
    var nameOption: String?

    func required(_ what: String) throws -> String { try requireName(name, nameOption, what) }
}

/// The app a verb is about: positional or `--name`; shells complete it.
struct AppNameArgument: ParsableArguments {
    @Argument(help: "Name of the app (or --name).", completion: .custom(completeAppNames))
    var name: String?

    @Option(name: .customLong("name"), help: .hidden)
    var nameOption: String?

    func required() throws -> String { try requireName(name, nameOption, "app") }
}

private func requireName(_ positional: String?, _ option: String?, _ what: String) throws -> String {
    if let positional, let option, positional != option {
        throw CLIError.usage(
            "two names for one \(what): `\(positional)` and `\(option)`", hint: "give the name once")
    }
    guard let name = positional ?? option, !name.isEmpty else {
        throw CLIError.usage("which \(what)? its name is missing", hint: "give it as the first argument")
    }
    return name
}

/// Names for the shell's completion. Silent when the daemon is away: a shell that completes is no place for errors.
@Sendable
private func completeAppNames(words: [String], index: Int, prefix: String) async -> [String] {
    func value(of option: String) -> String? {
        words.firstIndex(of: option).flatMap { $0 + 1 < words.count ? words[$0 + 1] : nil }
    }
    let terminal = Terminal.current
    guard
        let target = try? Target.chosen(socket: value(of: "--socket"), context: value(of: "--context"), terminal)
    else { return [] }
    let client = Client(transport: terminal.transport(target), namespace: nil)
    guard let reply = try? await client.call("GET", "/v1/apps", timeout: .seconds(1)),
        let apps: Answer<ItemList<AppView>> = try? client.decode(reply)
    else { return [] }
    return apps.value.items.map(\.name)
}

/// On verbs that start something and wait for its end.
struct WaitOptions: ParsableArguments {
    @Flag(name: .customLong("no-wait"), help: "Return at once instead of waiting for the end.")
    var isNotWaiting = false

    @Option(help: ArgumentHelp("Stop waiting after this time (default 5m).", valueName: "duration"))
    var timeout: String?

    func deadline() throws -> Duration {
        .milliseconds(try timeout.map { try DurationParser.milliseconds($0, flag: "--timeout") } ?? 300_000)
    }
}
