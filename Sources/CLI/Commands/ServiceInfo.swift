// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ServiceInfo: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Show one service: image, endpoints, settings, tasks.",
        discussion: "Example:\n  hivemind service info web")

    @OptionGroup var service: NameArgument
    @Option(help: ArgumentHelp("Its app (default the one of the same name).", valueName: "name"))
    var app: String?
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let name = try service.required("service")
        let output = try global.result(namespace: scope.namespace)
        let client = global.client(namespace: scope.namespace)
        let view: Answer<ServiceView> = try await client.get(
            "/v1/services/\(Client.escape(name))", [("app", app)] + read.query)
        var tasks: [TaskView] = []
        if !output.format.isForPrograms {
            let answer: Answer<ItemList<TaskView>> = try await client.get("/v1/tasks", [("app", view.value.app)])
            tasks = answer.value.items.filter { $0.service == name && $0.namespace == view.value.namespace }
        }
        try output.show(json: view.body, names: [name]) {
            AppText.info(view.value, tasks: tasks, now: output.terminal.now()).rendered($0)
        }
        output.next("app logs \(view.value.app) --service \(name)", afterReading: true)
    }
}
