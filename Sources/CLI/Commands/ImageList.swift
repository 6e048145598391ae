// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ImageList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List the images of this node.",
        discussion: "Example:\n  hivemind image ls", aliases: ["list"])

    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let images: Answer<ItemList<ImageSummary>> = try await global.client().get("/v1/images")
        try output.show(json: images.body, names: images.value.items.map(\.name)) {
            Self.table(images.value.items, now: output.terminal.now(), isWide: $0.isWide).rendered($0)
        }
        if images.value.items.isEmpty { output.next("image pull IMAGE") }
    }

    static func table(_ images: [ImageSummary], now: Timestamp, isWide: Bool) -> Table {
        Table(
            ["NAME", "DIGEST", .init("SIZE", right: true), "AGE"],
            images.map { image in
                [
                    Cell(image.name), Cell(isWide ? image.digest : Format.digest(image.digest)),
                    Cell(Format.bytes(image.sizeBytes)), Cell(Format.age(image.createdAt, now: now)),
                ]
            })
    }
}
