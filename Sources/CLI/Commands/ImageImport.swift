// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ImageImport: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import", abstract: "Load images from an OCI or docker archive.",
        discussion: """
            Examples:
              hivemind image import app.tar
              hivemind image import app.tar --name team/app:1.2
            """)

    @Argument(help: "The tar file.", completion: .file(extensions: ["tar"]))
    var file: String
    @Option(help: ArgumentHelp("Name for an image the archive does not name.", valueName: "ref"))
    var name: String?
    @Option(help: ArgumentHelp("Give up after this time (default 30m).", valueName: "duration"))
    var timeout: String?
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let client = global.client()
        let limit = try timeout.map { try DurationParser.milliseconds($0, flag: "--timeout") } ?? 1_800_000
        var progress = Progress(terminal: output.terminal)
        progress.update([("", "importing \(file)")])
        defer { progress.clear() }
        let reply = try await client.call(
            "POST", "/v1/images/import", [("name", name)], body: .file(file), timeout: .milliseconds(limit))
        progress.clear()
        let images: Answer<ItemList<ImageSummary>> = try client.decode(reply)
        try output.show(json: images.body, names: images.value.items.map(\.name)) {
            ImageList.table(images.value.items, now: output.terminal.now(), isWide: $0.isWide).rendered($0)
        }
        output.next("app deploy NAME --image \(images.value.items.first?.name ?? "IMAGE")")
    }
}
