// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ConfigGet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get", abstract: "Print the data of a config and nothing else.",
        discussion: """
            With -o json also its version.

            Example:
              hivemind config get nginx/site.conf > site.conf
            """)

    @OptionGroup var config: NameArgument
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let name = try config.required("config")
        let output = try global.result(namespace: scope.namespace)
        let view: Answer<ConfigView> = try await global.client(namespace: scope.namespace)
            .get("/v1/configs/\(Client.escape(name))", read.query)
        // A prompt is not to stick to the end of the data; a pipe gets just the data.
        let end = output.terminal.isOutputTTY && !view.value.data.hasSuffix("\n") ? "\n" : ""
        try output.show(json: view.body, names: [name]) { _ in view.value.data + end }
    }
}
