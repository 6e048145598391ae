// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NetworkList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List the ranges of addresses and what they are for.",
        discussion: "Example:\n  hivemind network ls", aliases: ["list"])

    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption

    func run() async throws {
        let output = try global.result()
        let networks: Answer<ItemList<NetworkView>> = try await global.client().get("/v1/networks", read.query)
        let table = Table(
            ["NAME", "KIND", "SUBNET", .init("USED", right: true), .init("NODES", right: true), "ENCRYPTION"],
            networks.value.items.map { network in
                [
                    Cell(network.name), Cell(network.kind), Cell(network.subnet.description), Cell(network.used),
                    network.nodes.isEmpty ? Cell(nil) : Cell(network.nodes.count), Cell(network.encryption),
                ]
            })
        try output.show(json: networks.body, names: networks.value.items.map(\.name)) { table.rendered($0) }
        output.next("network info containers", "network doctor", afterReading: true)
    }
}
