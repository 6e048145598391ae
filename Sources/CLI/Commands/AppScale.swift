// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct AppScale: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scale", abstract: "Set how many replicas run.",
        discussion: """
            Examples:
              hivemind app scale web 5
              hivemind app scale web=5
              hivemind app scale web --replicas 5 --no-wait
            """)

    @OptionGroup var app: AppNameArgument
    @Argument(help: ArgumentHelp("Replicas, 0 to 1000 (or NAME=N, or --replicas).", valueName: "n"))
    var count: String?
    @Option(help: ArgumentHelp("Replicas, 0 to 1000.", valueName: "n"))
    var replicas: Int?
    @Option(
        help: ArgumentHelp("Service of the app (default its only one, or the one named like it).", valueName: "name"))
    var service: String?
    @OptionGroup(title: "Waiting") var wait: WaitOptions
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let terminal = Terminal.current
        let started = terminal.elapsed()
        let (name, replicas) = try target()
        let output = try global.result(namespace: scope.namespace)
        let client = global.client(namespace: scope.namespace)
        let answer: Answer<AppView> = try await client.send(
            "POST", "/v1/apps/\(Client.escape(name))/scale", body: ScaleRequest(service: service, replicas: replicas))
        let outcome = RolloutOutcome(client: client, output: output, app: name, verb: "scaling")
        try await outcome.finish(answer, wait: wait, started: started)
    }

    /// One name and one number, however they were written.
    func target() throws -> (name: String, replicas: Int) {
        let form = "write NAME N, NAME=N or NAME --replicas N"
        var name = app.name ?? app.nameOption
        var number = count
        if number == nil, app.nameOption != nil, let only = app.name, Int(only) != nil {
            // `--name web 3`: the only word is the number.
            (name, number) = (app.nameOption, only)
        } else if let word = name, let equals = word.firstIndex(of: "=") {
            guard number == nil else { throw CLIError.usage("two numbers for one app", hint: form) }
            name = String(word[..<equals])
            number = String(word[word.index(after: equals)...])
        }
        guard let name, !name.isEmpty else { throw CLIError.usage("which app? its name is missing", hint: form) }
        if let number, let replicas, Int(number) != replicas {
            throw CLIError.usage("two numbers for one app: \(number) and \(replicas)", hint: form)
        }
        guard let text = number ?? replicas.map({ String($0) }) else {
            throw CLIError.usage("how many replicas? the number is missing", hint: form)
        }
        guard let value = Int(text), (0...1000).contains(value) else {
            throw CLIError.usage("`\(text)` is not a number within 0 to 1000", hint: form)
        }
        return (name, value)
    }
}
