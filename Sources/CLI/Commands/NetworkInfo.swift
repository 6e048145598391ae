// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NetworkInfo: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Show one range of addresses, and what each node has of it.",
        discussion: "Example:\n  hivemind network info containers")

    @OptionGroup var network: NameArgument
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption

    func run() async throws {
        let output = try global.result()
        let name = try network.required("network")
        let view: Answer<NetworkView> = try await global.client().get(
            "/v1/networks/\(Client.escape(name))", read.query)
        try output.show(json: view.body, names: [view.value.name]) { Self.block(view.value).rendered($0) }
        output.next("network ipam check", "network doctor", afterReading: true)
    }

    private static func block(_ network: NetworkView) -> Block {
        var block = Block()
        block.add("network", network.name)
        block.add("kind", network.kind)
        block.add("subnet", network.subnet.description)
        block.add("used", network.used)
        block.add("encryption", network.encryption)
        guard !network.nodes.isEmpty else { return block }
        block.add(
            "nodes",
            Table(
                ["NAME", "ADDRESS", "SUBNET", .init("USED", right: true)],
                network.nodes.map {
                    [Cell($0.name), Cell($0.address), Cell($0.subnet.description), Cell($0.used)]
                }))
        return block
    }
}
