// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct VolumeDelete: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Delete a volume and its data for ever.",
        discussion: "Example:\n  hivemind volume delete data --yes", aliases: ["rm"])

    @OptionGroup var volume: NameArgument
    @Flag(name: [.customShort("y"), .long], help: "Do not ask.")
    var yes = false
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let name = try volume.required("volume")
        let output = try global.result(namespace: scope.namespace)
        try output.terminal.confirm("delete volume `\(name)` and its data", yes: yes)
        let reply = try await global.client(namespace: scope.namespace)
            .call("DELETE", "/v1/volumes/\(Client.escape(name))")
        try output.show(json: reply.body, names: [name]) { _ in "volume `\(name)` is deleted\n" }
        output.next("volume ls")
    }
}
