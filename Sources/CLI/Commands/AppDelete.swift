// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct AppDelete: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Stop an app and remove it; its volumes stay.",
        discussion: "Example:\n  hivemind app delete web --yes", aliases: ["rm"])

    @OptionGroup var app: AppNameArgument
    @Flag(name: [.customShort("y"), .long], help: "Do not ask.")
    var yes = false
    @OptionGroup(title: "Waiting") var wait: WaitOptions
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let terminal = Terminal.current
        let name = try app.required()
        let output = try global.result(namespace: scope.namespace)
        let client = global.client(namespace: scope.namespace)
        let timeout = try wait.deadline()
        try terminal.confirm("delete app `\(name)`", yes: yes)
        let started = terminal.elapsed()
        let reply = try await client.call("DELETE", "/v1/apps/\(Client.escape(name))")
        if !wait.isNotWaiting {
            let watch = RolloutWatch(
                client: client, app: name, terminal: terminal, timeout: timeout, started: started)
            let isGone: Bool? = try await terminal.untilInterrupted {
                try await watch.gone()
                return true
            }
            guard isGone == true else {
                throw CLIError(
                    .interrupted, "stopped waiting; the removal of `\(name)` goes on",
                    hint: "watch it with `hivemind app ls\(output.context)`")
            }
        }
        let result = wait.isNotWaiting ? "is being deleted" : "is deleted"
        try output.show(json: reply.body, names: [name]) { _ in "app `\(name)` \(result)\n" }
        output.next(wait.isNotWaiting ? "ps \(name)" : "app ls", "volume ls")
    }
}
