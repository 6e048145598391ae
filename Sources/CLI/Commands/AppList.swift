// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct AppList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List apps.",
        discussion: "Example:\n  hivemind app ls -o wide", aliases: ["list"])

    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let output = try global.result(namespace: scope.namespace)
        let apps: Answer<ItemList<AppView>> = try await global.client(namespace: scope.namespace).get(
            "/v1/apps", read.query)
        let now = output.terminal.now()
        try output.show(json: apps.body, names: apps.value.items.map(\.name)) {
            AppText.apps(apps.value.items, now: now).rendered($0)
        }
        guard let first = apps.value.items.first else {
            return output.next("app deploy NAME --image IMAGE")
        }
        output.next("app info \(first.name)", afterReading: true)
    }
}
