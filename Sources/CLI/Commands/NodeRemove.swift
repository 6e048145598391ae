// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NodeRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Take a node out of the cluster for ever, also one that is dead.",
        discussion: """
            Its tasks are started elsewhere; its ids are never used again, and it is told so if it comes back. A node that
            is alive had better leave by itself: `hivemind cluster leave`.

            Example:
              hivemind node remove beta --yes
            """, aliases: ["rm"])

    @OptionGroup var node: NameArgument
    @Flag(name: [.customShort("y"), .long], help: "Do not ask.")
    var yes = false
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let name = try node.required("node")
        let output = try global.result()
        try output.terminal.confirm("remove node `\(name)` for ever", yes: yes)
        let reply = try await global.client().call("DELETE", "/v1/nodes/\(Client.escape(name))")
        try output.show(json: reply.body, names: [name]) { _ in "node `\(name)` is removed\n" }
        output.next("node ls", "cluster status")
    }
}
