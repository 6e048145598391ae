// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NodeCordon: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cordon", abstract: "Place no new tasks on a node; those there go on.",
        discussion: "Example:\n  hivemind node cordon beta")

    @OptionGroup var node: NameArgument
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws { try await setAvailability("cordoned", of: node, global) }
}

struct NodeUncordon: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uncordon", abstract: "Place tasks on a node again, after `cordon` or `drain`.",
        discussion: "Example:\n  hivemind node uncordon beta")

    @OptionGroup var node: NameArgument
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws { try await setAvailability("active", of: node, global) }
}

private func setAvailability(_ availability: String, of node: NameArgument, _ global: GlobalOptions) async throws {
    let name = try node.required("node")
    let output = try global.result()
    let view: Answer<NodeView> = try await global.client().send(
        "PATCH", "/v1/nodes/\(Client.escape(name))", body: NodePatch(availability: availability))
    try output.show(json: view.body, names: [view.value.name]) { _ in
        "node `\(view.value.name)` is \(availability)\n"
    }
    output.next("node ls")
}

struct NodeLabel: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "label", abstract: "Set labels of a node, or take them away.",
        discussion: """
            Tasks are spread over the values of the label `zone` first.

            Examples:
              hivemind node label beta zone=b disk=fast
              hivemind node label beta disk-
            """)

    @Argument(help: "Name of the node.") var name: String
    @Argument(help: "`name=value` sets a label, `name-` takes it away.") var labels: [String]
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        var wanted: [String: String?] = [:]
        for text in labels {
            if let equals = text.firstIndex(of: "=") {
                wanted[String(text[..<equals])] = .some(String(text[text.index(after: equals)...]))
            } else if text.hasSuffix("-") {
                wanted[String(text.dropLast())] = .some(nil)
            } else {
                throw CLIError.usage("`\(text)` is neither name=value nor name-", hint: "for example zone=a")
            }
        }
        let view: Answer<NodeView> = try await global.client().send(
            "PATCH", "/v1/nodes/\(Client.escape(name))", body: NodePatch(labels: wanted))
        try output.show(json: view.body, names: [view.value.name]) { _ in
            let shown = view.value.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            return "node `\(view.value.name)`: \(shown.isEmpty ? "no labels" : shown.joined(separator: " "))\n"
        }
        output.next("node info \(view.value.name)")
    }
}

struct NodeDrain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain", abstract: "Move a node's tasks elsewhere and place none there.",
        discussion: """
            A replacement runs before what it replaces is stopped. Tasks that write a volume of the node stay: their data
            is there. It waits until the others are gone; Ctrl-C ends the waiting, not the moving.

            Example:
              hivemind node drain beta
            """)

    @OptionGroup var node: NameArgument
    @Flag(help: "Do not wait.") var noWait = false
    @Option(help: ArgumentHelp("Give up waiting after this long (10m).", valueName: "time")) var timeout = "10m"
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let name = try node.required("node")
        let output = try global.result()
        let client = global.client()
        let end = ContinuousClock.now + .milliseconds(try DurationParser.milliseconds(timeout, flag: "--timeout"))
        let view: Answer<NodeView> = try await client.send(
            "PATCH", "/v1/nodes/\(Client.escape(name))", body: NodePatch(availability: "drained"))
        var left = Int.max
        while !noWait {
            let tasks: Answer<ItemList<TaskView>> = try await client.get("/v1/tasks")
            let mine = tasks.value.items.filter { $0.node == view.value.name }
            if mine.isEmpty { break }
            if mine.count != left {
                left = mine.count
                output.terminal.note("\(left) tasks are still on `\(view.value.name)`")
            }
            guard ContinuousClock.now < end else {
                let first = mine[0]
                throw CLIError(
                    .timeout,
                    "\(left) tasks are still on `\(view.value.name)`, \(first.id) of app `\(first.app)` among them",
                    hint: "what each waits for: hivemind why node \(view.value.name)")
            }
            try await Task.sleep(for: .milliseconds(200))
        }
        try output.show(json: view.body, names: [view.value.name]) { _ in "node `\(view.value.name)` is drained\n" }
        output.next("node uncordon \(view.value.name)", "node ls")
    }
}
