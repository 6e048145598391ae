// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ConfigDelete: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Delete a config.",
        discussion: "Example:\n  hivemind config delete greeting --yes", aliases: ["rm"])

    @OptionGroup var config: NameArgument
    @Option(help: ArgumentHelp("Only when it has this version still.", valueName: "version"))
    var ifVersion: UInt64?
    @Flag(name: [.customShort("y"), .long], help: "Do not ask.")
    var yes = false
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let name = try config.required("config")
        let output = try global.result(namespace: scope.namespace)
        try output.terminal.confirm("delete config `\(name)`", yes: yes)
        let headers = ifVersion.map { ["If-Match": "\"\($0)\""] } ?? [:]
        let reply = try await global.client(namespace: scope.namespace)
            .call("DELETE", "/v1/configs/\(Client.escape(name))", headers: headers)
        try output.show(json: reply.body, names: [name]) { _ in "config `\(name)` is deleted\n" }
        output.next("config ls")
    }
}
