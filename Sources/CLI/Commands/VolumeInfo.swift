// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct VolumeInfo: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Show one volume: place, size, users.",
        discussion: "Example:\n  hivemind volume info data")

    @OptionGroup var volume: NameArgument
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let name = try volume.required("volume")
        let output = try global.result(namespace: scope.namespace)
        let view: Answer<VolumeView> = try await global.client(namespace: scope.namespace)
            .get("/v1/volumes/\(Client.escape(name))", read.query)
        let volume = view.value
        var block = Block()
        block.add("volume", volume.name)
        block.add("namespace", volume.namespace)
        block.add("driver", volume.driver)
        block.add("node", volume.node)
        block.add("path", volume.path)
        block.add("limit", volume.sizeBytes > 0 ? Format.bytes(volume.sizeBytes) : "none")
        block.add("used", volume.usedBytes.map { Format.bytes($0) })
        block.add("used by", volume.usedBy.isEmpty ? "no app" : volume.usedBy.joined(separator: ", "))
        block.add("age", Format.age(volume.createdAt, now: output.terminal.now()))
        try output.show(json: view.body, names: [name]) { block.rendered($0) }
        output.next(
            volume.usedBy.first.map { "app info \($0)" } ?? "volume delete \(name)", afterReading: true)
    }
}
