// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ConfigList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List configs.",
        discussion: "Example:\n  hivemind config ls --prefix nginx/", aliases: ["list"])

    @Option(help: ArgumentHelp("Names that start like this.", valueName: "text"))
    var prefix: String?
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let output = try global.result(namespace: scope.namespace)
        let configs: Answer<ItemList<ConfigView>> = try await global.client(namespace: scope.namespace)
            .get("/v1/configs", [("prefix", prefix)] + read.query)
        var table = Table(["NAME", .wide("NAMESPACE"), "VERSION", .init("SIZE", right: true)])
        table.columns[1].isWide = !AppText.spansNamespaces(configs.value.items.map(\.namespace))
        table.rows = configs.value.items.map { config in
            [
                Cell(config.name), Cell(config.namespace), Cell(config.version),
                Cell(Format.bytes(Int64(config.data.utf8.count))),
            ]
        }
        try output.show(json: configs.body, names: configs.value.items.map(\.name)) { table.rendered($0) }
        guard let first = configs.value.items.first else { return output.next("config set NAME VALUE") }
        output.next("config get \(first.name)", afterReading: true)
    }
}
