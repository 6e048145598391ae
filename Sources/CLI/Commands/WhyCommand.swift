// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct WhyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "why", abstract: "Tell why an app, a task or a node is as it is.",
        discussion: """
            Examples:
              hivemind why app web
              hivemind why node alpha
            """)

    @Argument(help: "app, task or node.") var kind: String
    @Argument(help: "Name; of a task its id or the beginning of it.") var name: String
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        guard ["app", "task", "node"].contains(kind) else {
            throw CLIError.usage("`\(kind)` is none of app, task, node", hint: "ask like: hivemind why app web")
        }
        let output = try global.result(namespace: scope.namespace)
        let answer: Answer<WhyView> = try await global.client(namespace: scope.namespace).get(
            "/v1/why/\(kind)/\(Client.escape(name))")
        let view = answer.value
        try output.show(json: answer.body, names: [view.name]) { style in
            var table = Table(["ABOUT", "WHY", "WHAT HELPS"])
            table.rows = view.items.map { item in
                [Cell(item.about), Cell(item.reason?.message ?? "nothing is in the way"), Cell(item.reason?.hint)]
            }
            return view.answer + "\n" + (view.items.isEmpty ? "" : "\n" + table.rendered(style))
        }
    }
}
