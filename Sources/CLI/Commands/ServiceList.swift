// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ServiceList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List services.",
        discussion: "Example:\n  hivemind service ls --app web", aliases: ["list"])

    @Option(help: ArgumentHelp("Of one app only.", valueName: "name"))
    var app: String?
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let output = try global.result(namespace: scope.namespace)
        let services: Answer<ItemList<ServiceView>> = try await global.client(namespace: scope.namespace)
            .get("/v1/services", [("app", app)] + read.query)
        try output.show(json: services.body, names: services.value.items.map(\.name)) {
            AppText.services(services.value.items).rendered($0)
        }
        if let first = services.value.items.first {
            output.next("service info \(first.name) --app \(first.app)", afterReading: true)
        }
    }
}
