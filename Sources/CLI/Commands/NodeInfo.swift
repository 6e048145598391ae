// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NodeInfo: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Show one node; without a name, the one that answers.",
        discussion: "Example:\n  hivemind node info")

    @OptionGroup var node: NameArgument
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption

    func run() async throws {
        let output = try global.result()
        let client = global.client()
        var name = node.name ?? node.nameOption
        if name == nil {
            let status: Answer<StatusView> = try await client.get("/v1/status")
            name = status.value.node
        }
        let view: Answer<NodeView> = try await client.get("/v1/nodes/\(Client.escape(name ?? ""))", read.query)
        try output.show(json: view.body, names: [view.value.name]) { Self.block(view.value).rendered($0) }
        output.next("ps", "status", afterReading: true)
    }

    private static func block(_ node: NodeView) -> Block {
        var block = Block()
        block.add("node", node.name)
        block.add("id", node.id.raw)
        block.add("state", node.state, .state(node.state))
        block.add("role", node.leader ? "\(node.role), leader" : node.role)
        block.add("address", node.address)
        block.add("subnet", node.subnet.description)
        let cpu = (Format.cpu(millis: node.allocated.cpuMillis), Format.cpu(millis: node.capacity.cpuMillis))
        block.add("cpu", "\(cpu.0) of \(cpu.1) cores promised")
        let memory = (Format.bytes(node.allocated.memoryBytes), Format.bytes(node.capacity.memoryBytes))
        block.add("memory", "\(memory.0) of \(memory.1) promised")
        block.add("tasks", node.allocated.tasks)
        for (name, value) in node.labels.sorted(by: { $0.key < $1.key }) { block.add("label", "\(name)=\(value)") }
        for taint in node.taints ?? [] { block.add("taint", taint) }
        block.add("index", node.appliedIndex)
        block.add("version", node.version)
        if let runtime = node.runtime { StatusCommand.add(runtime, to: &block) }
        return block
    }
}
