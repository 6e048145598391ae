// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import FoundationEssentials
internal import Model

struct EventsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events", abstract: "Follow what changes, until Ctrl-C.",
        discussion: """
            A broken connection is taken up again where it ended: nothing is lost and nothing comes twice. With \
            --after events begin after that index, for instance the `index` of a list; without it with what is new. \
            With -o json each line is one JSON document.

            Examples:
              hivemind events
              hivemind events --kind app,task --after 1200 -o json
            """)

    @Option(help: ArgumentHelp("Begin after this index.", valueName: "index"))
    var after: String?
    @Option(
        help: ArgumentHelp(
            "Only these: app, service, task, node, volume, config, cluster.", valueName: "kind,…"))
    var kind: [String] = []
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption
    @OptionGroup(title: "Common") var read: ReadOption

    func run() async throws {
        let output = try global.result(namespace: scope.namespace)
        let kinds = kind.flatMap { $0.split(separator: ",").map(String.init) }
        let client = global.client(namespace: scope.namespace)
        let query = [("kind", kinds.isEmpty ? nil : kinds.joined(separator: ","))] + read.query
        let watch = EventWatch(client: client, query: query, terminal: output.terminal)
        let start = after
        // Ctrl-C is how this command is meant to end.
        _ = try await output.terminal.untilInterrupted {
            try await watch.follow(after: start) { event, bytes in try Self.show(event, bytes, output) }
        }
    }

    private static func show(_ event: EventView, _ bytes: [UInt8], _ output: Output) throws {
        switch output.format {
        case .json: output.terminal.write(bytes + [UInt8(ascii: "\n")])
        case .yaml: output.terminal.write(Array("---\n\(try JSONText.yaml(bytes))".utf8))
        case .name: output.terminal.print("\(event.kind)/\(event.name)")
        case .table, .wide:
            let isColored = output.terminal.usesColor
            let paint: Paint =
                switch event.change {
                case .created: .good
                case .updated: .plain
                case .deleted: .bad
                }
            let place = "\(event.index)".padded(to: 8)
            let change = paint.applied(to: event.change.rawValue.padded(to: 7), isColored)
            let name = event.namespace.map { $0 == "default" ? event.name : "\($0)/\(event.name)" } ?? event.name
            var line = "\(place)  \(change)  \(event.kind.padded(to: 7))  \(name.printable)"
            if let detail = detail(event, isWide: output.format == .wide) { line += "  \(detail.printable)" }
            output.terminal.print(line)
        }
    }

    /// What a person wants to see of the object without asking again.
    private static func detail(_ event: EventView, isWide: Bool) -> String? {
        switch event.object {
        case .app(let app): "\(app.status.rawValue) \(app.replicas.ready)/\(app.replicas.desired)"
        case .service(let service): "\(service.replicas.ready)/\(service.replicas.desired)"
        case .task(let task):
            "\(task.app) \(task.state)\(task.reason.map { ": \($0.message)" } ?? "")\(isWide ? " on \(task.node)" : "")"
        case .node(let node): node.state
        case .cluster(let cluster): "\(cluster.members.count) members"
        case .volume, .config, nil: nil
        }
    }
}
