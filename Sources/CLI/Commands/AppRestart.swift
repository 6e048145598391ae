// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct AppRestart: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restart", abstract: "Replace the tasks of an app one by one by new ones.",
        discussion: "Example:\n  hivemind app restart web")

    @OptionGroup var app: AppNameArgument
    @OptionGroup(title: "Waiting") var wait: WaitOptions
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let terminal = Terminal.current
        let started = terminal.elapsed()
        let name = try app.required()
        let output = try global.result(namespace: scope.namespace)
        let client = global.client(namespace: scope.namespace)
        let reply = try await client.call("POST", "/v1/apps/\(Client.escape(name))/restart")
        let answer: Answer<AppView> = try client.decode(reply)
        let outcome = RolloutOutcome(client: client, output: output, app: name, verb: "restart")
        try await outcome.finish(answer, wait: wait, started: started)
    }
}
