// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NodeTaint: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "taint", abstract: "Keep tasks away from a node that do not tolerate it.",
        discussion: """
            What runs there already stays.

            Examples:
              hivemind node taint alpha gpu
              hivemind app deploy train --image train:1 --toleration gpu
              hivemind node taint alpha gpu-
            """)

    @Argument(help: "Node.") var node: String
    @Argument(help: ArgumentHelp("Taints to add, or with - behind to take away.", valueName: "taint"))
    var taints: [String]
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let gone = taints.filter { $0.hasSuffix("-") && $0.count > 1 }.map { String($0.dropLast()) }
        let new = taints.filter { !$0.hasSuffix("-") || $0.count == 1 }
        let output = try global.result()
        let view: Answer<NodeView> = try await global.client().send(
            "PATCH", "/v1/nodes/\(Client.escape(node))", body: NodePatch(addTaints: new, removeTaints: gone))
        try output.show(json: view.body, names: [view.value.name]) { _ in
            let all = view.value.taints ?? []
            return "node `\(view.value.name)` has "
                + (all.isEmpty ? "no taints\n" : "the taints \(all.joined(separator: ", "))\n")
        }
        output.next("node info \(view.value.name)")
    }
}
