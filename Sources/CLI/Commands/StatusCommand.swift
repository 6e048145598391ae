// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show how the node behind the socket is.",
        discussion: "Example:\n  hivemind status -o json")

    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let view: Answer<StatusView> = try await global.client().get("/v1/status")
        let status = view.value
        var block = Block()
        block.add("node", status.node)
        block.add("role", status.leader == status.node ? "\(status.role), leader" : status.role)
        if status.leader != status.node {
            block.add("leader", status.leader ?? "none", status.leader == nil ? .bad : .plain)
        }
        block.add("term", status.term)
        block.add("index", status.appliedIndex)
        block.add("version", status.version)
        block.add("up", Format.duration(seconds: Int64(status.uptimeSeconds)))
        block.add("apps", status.apps)
        block.add("tasks", "\(status.tasksRunning) running")
        Self.add(status.runtime, to: &block)
        for condition in status.conditions where !status.runtime.conditions.contains(condition) {
            block.add("condition", condition, .bad)
        }
        try output.show(json: view.body, names: [status.node]) { block.rendered($0) }
        output.next(status.apps == 0 ? "app deploy NAME --image IMAGE" : "app ls", afterReading: true)
    }

    static func add(_ runtime: RuntimeInfo, to block: inout Block) {
        let state = runtime.isReady ? "ready" : "not ready"
        block.add("runtime", "\(runtime.kind) \(runtime.version), \(state)", runtime.isReady ? .good : .bad)
        block.add("socket", runtime.address)
        for condition in runtime.conditions { block.add("condition", condition, .busy) }
    }
}
