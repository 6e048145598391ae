// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct AppInfo: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Show one app, its last rollout and its tasks.",
        discussion: "Example:\n  hivemind app info web")

    @OptionGroup var app: AppNameArgument
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let name = try app.required()
        let output = try global.result(namespace: scope.namespace)
        let client = global.client(namespace: scope.namespace)
        let view: Answer<AppView> = try await client.get("/v1/apps/\(Client.escape(name))", read.query)
        var tasks: [TaskView] = []
        if !output.format.isForPrograms {
            let answer: Answer<ItemList<TaskView>> = try await client.get("/v1/tasks", [("app", name)])
            tasks = answer.value.items.filter { $0.namespace == view.value.namespace }
        }
        try output.show(json: view.body, names: [view.value.name]) {
            AppText.info(view.value, tasks: tasks, now: output.terminal.now()).rendered($0)
        }
        output.next("app logs \(name)", "app scale \(name) N", afterReading: true)
    }
}
