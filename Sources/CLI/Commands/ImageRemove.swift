// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ImageRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove an image from this node.",
        discussion: "Does not ask: an image can be pulled again.\n\nExample:\n  hivemind image rm nginx:1.27",
        aliases: ["delete"])

    @OptionGroup var image: NameArgument
    @Flag(name: [.customShort("y"), .long], help: .hidden)
    var yes = false
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let name = try image.required("image")
        let output = try global.result()
        let reply = try await global.client().call("DELETE", "/v1/images", [("name", name)])
        try output.show(json: reply.body, names: [name]) { _ in "image `\(name)` is removed\n" }
        output.next("image ls")
    }
}
