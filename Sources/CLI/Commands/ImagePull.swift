// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ImagePull: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull", abstract: "Fetch an image from its registry to this node.",
        discussion: "Example:\n  hivemind image pull nginx:1.27")

    @OptionGroup var image: NameArgument
    @Option(help: ArgumentHelp("Give up after this time (default 30m).", valueName: "duration"))
    var timeout: String?
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let name = try image.required("image")
        let output = try global.result()
        let limit = try timeout.map { try DurationParser.milliseconds($0, flag: "--timeout") } ?? 1_800_000
        var progress = Progress(terminal: output.terminal)
        progress.update([("", "pulling \(name)")])
        defer { progress.clear() }
        let answer: Answer<ImageSummary> = try await global.client().send(
            "POST", "/v1/images/pull", body: PullImageRequest(image: name), timeout: .milliseconds(limit))
        progress.clear()
        try output.show(json: answer.body, names: [answer.value.name]) { style in
            var block = Block()
            block.add("image", answer.value.name)
            block.add("digest", answer.value.digest)
            block.add("size", Format.bytes(answer.value.sizeBytes))
            return block.rendered(style)
        }
        output.next("app deploy NAME --image \(answer.value.name)")
    }
}
