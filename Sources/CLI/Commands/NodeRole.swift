// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NodeRole: AsyncParsableCommand {
    enum Role: String, ExpressibleByArgument, CaseIterable { case auto, voter, observer }

    static let configuration = CommandConfiguration(
        commandName: "role", abstract: "Say whether a node may vote on changes, or leave it to the cluster.",
        discussion: """
            The cluster chooses 1, 3 or 5 voters by itself, spread over zones; this is for machines that must not be
            among them, or should be before others. It takes effect within seconds, one vote at a time.

            Examples:
              hivemind node role alpha observer
              hivemind node role alpha auto
            """)

    @Argument(help: "Node.") var node: String
    @Argument(help: "What it is to be.") var role: Role
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let view: Answer<NodeView> = try await global.client().send(
            "PATCH", "/v1/nodes/\(Client.escape(node))", body: NodePatch(role: role.rawValue))
        try output.show(json: view.body, names: [view.value.name]) { _ in
            switch role {
            case .auto: "the cluster chooses what node `\(view.value.name)` is\n"
            case .voter: "node `\(view.value.name)` votes before others do\n"
            case .observer: "node `\(view.value.name)` does not vote as soon as another can\n"
            }
        }
        output.next("cluster status")
    }
}
