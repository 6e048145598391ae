// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NodeList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List nodes.",
        discussion: "Example:\n  hivemind node ls", aliases: ["list"])

    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption

    func run() async throws {
        let output = try global.result()
        let nodes: Answer<ItemList<NodeView>> = try await global.client().get("/v1/nodes", read.query)
        let table = Table(
            [
                "NAME", .wide("ID"), "STATE", "ROLE", "ADDRESS", "SUBNET", "TASKS", .wide("CPU"), .wide("MEMORY"),
                .wide("INDEX"), "VERSION",
            ],
            nodes.value.items.map { node in
                [
                    Cell(node.name), Cell(node.id.raw), .state(node.state),
                    Cell(node.leader ? "\(node.role), leader" : node.role), Cell(node.address),
                    Cell(node.subnet.description), Cell(node.allocated.tasks),
                    Cell(
                        "\(Format.cpu(millis: node.allocated.cpuMillis))/\(Format.cpu(millis: node.capacity.cpuMillis))"
                    ),
                    Cell(
                        "\(Format.bytes(node.allocated.memoryBytes)) of \(Format.bytes(node.capacity.memoryBytes))"),
                    Cell(node.appliedIndex), Cell(node.version),
                ]
            })
        try output.show(json: nodes.body, names: nodes.value.items.map(\.name)) { table.rendered($0) }
        if let first = nodes.value.items.first { output.next("node info \(first.name)", afterReading: true) }
    }
}
