// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ClusterSnapshotSave: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "save", abstract: "Take a snapshot of the whole state on the node that answers.",
        discussion: """
            Writes go on meanwhile. The newest two taken by hand are kept, whatever the schedule does: copy the file \
            away to keep it longer, together with the manifest beside it.

            Example:
              hivemind cluster snapshot save
            """)

    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let client = global.client()
        let reply = try await client.call("POST", "/v1/snapshots", timeout: .seconds(1800))
        let answer: Answer<SnapshotView> = try client.decode(reply)
        let snapshot = answer.value
        try output.show(json: answer.body, names: [snapshot.name]) { _ in
            "snapshot `\(snapshot.name)` of entry \(snapshot.index), \(Format.bytes(snapshot.bytes)), at \(snapshot.path)\n"
        }
        output.next("cluster snapshot ls")
    }
}

struct ClusterSnapshotList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List the snapshots of the node that answers.",
        discussion: """
            KIND says who wanted it: `scheduled` ones are taken daily and seven are kept, `manual` ones by `cluster \
            snapshot save`, `log` ones by the node itself so that its log can be cut.

            Example:
              hivemind cluster snapshot ls
            """, aliases: ["list"])

    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let list: Answer<ItemList<SnapshotView>> = try await global.client().get("/v1/snapshots")
        let now = output.terminal.now()
        let table = Table(
            [
                "NAME", "KIND", .init("INDEX", right: true), .init("TERM", right: true), .init("SIZE", right: true),
                "AGE",
                .wide("SHA256"), "PATH",
            ],
            list.value.items.map { snapshot in
                [
                    Cell(snapshot.name), Cell(snapshot.kind.rawValue), Cell(snapshot.index), Cell(snapshot.term),
                    Cell(Format.bytes(snapshot.bytes)),
                    Cell(Format.age(snapshot.createdAt, now: now)), Cell(snapshot.sha256), Cell(snapshot.path),
                ]
            })
        try output.show(json: list.body, names: list.value.items.map(\.name)) { table.rendered($0) }
        if list.value.items.isEmpty { output.next("cluster snapshot save") }
    }
}
