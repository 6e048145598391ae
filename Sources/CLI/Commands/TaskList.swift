// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct TaskList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ps", abstract: "List tasks: the running replicas.",
        discussion: """
            Examples:
              hivemind ps
              hivemind ps web --all -o wide
            """)

    @OptionGroup var app: AppNameArgument
    @Flag(name: [.customShort("a"), .long], help: "Also those that have ended.")
    var all = false
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let output = try global.result(namespace: scope.namespace)
        let client = global.client(namespace: scope.namespace)
        let name = app.name ?? app.nameOption
        let tasks: Answer<TaskListView> = try await client.get(
            "/v1/tasks", [("app", name), ("all", all ? "true" : nil)] + read.query)
        let unplaced = tasks.value.unplaced ?? []
        if let name, tasks.value.items.isEmpty, unplaced.isEmpty {
            // An app without tasks and no app at all look the same in this list.
            let _: Answer<AppView> = try await client.get(
                "/v1/apps/\(Client.escape(name))", [("consistency", read.consistency?.rawValue ?? "local")])
        }
        try output.show(json: tasks.body, names: tasks.value.items.map(\.id.raw)) {
            AppText.tasks(tasks.value.items, unplaced: unplaced, now: output.terminal.now()).rendered($0)
        }
        if let missing = unplaced.first { return output.next("why app \(missing.app)", afterReading: true) }
        guard let first = tasks.value.items.first else {
            return output.next(all ? "app ls" : "ps --all", afterReading: true)
        }
        output.next("app logs \(first.app) --task \(first.id)", afterReading: true)
    }
}
