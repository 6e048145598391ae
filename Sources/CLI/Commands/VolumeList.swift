// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct VolumeList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List volumes.",
        discussion: "Example:\n  hivemind volume ls", aliases: ["list"])

    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let output = try global.result(namespace: scope.namespace)
        let volumes: Answer<ItemList<VolumeView>> = try await global.client(namespace: scope.namespace)
            .get("/v1/volumes", read.query)
        let now = output.terminal.now()
        var table = Table(["NAME", .wide("NAMESPACE"), "DRIVER", "NODE", "USED BY", "AGE", .wide("PATH")])
        table.columns[1].isWide = !AppText.spansNamespaces(volumes.value.items.map(\.namespace))
        table.rows = volumes.value.items.map { volume in
            [
                Cell(volume.name), Cell(volume.namespace), Cell(volume.driver), Cell(volume.node),
                Cell(volume.usedBy.joined(separator: ", ")), Cell(Format.age(volume.createdAt, now: now)),
                Cell(volume.path),
            ]
        }
        try output.show(json: volumes.body, names: volumes.value.items.map(\.name)) { table.rendered($0) }
        guard let first = volumes.value.items.first else { return output.next("volume create NAME") }
        output.next("volume info \(first.name)", afterReading: true)
    }
}
