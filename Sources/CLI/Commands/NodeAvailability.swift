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
            is there. It waits until the others are gone; Ctrl-C ends the waiting, not the moving. When only tasks are
            left that stay, it ends with 7 and says which and why.

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
        var staying = Staying()
        while !noWait {
            let tasks: Answer<ItemList<TaskView>> = try await client.get("/v1/tasks")
            let mine = tasks.value.items.filter { $0.node == view.value.name }
            if mine.isEmpty { break }
            if mine.count != left {
                left = mine.count
                output.terminal.note("\(left) tasks are still on `\(view.value.name)`")
            }
            if try await Self.stays(mine, on: view.value.name, client, &staying) { break }
            guard ContinuousClock.now < end else {
                let first = mine[0]
                throw CLIError(
                    .timeout,
                    "\(left) tasks are still on `\(view.value.name)`, \(first.id) of app `\(first.app)` among them",
                    hint: "what each waits for: hivemind why node \(view.value.name)")
            }
            try await Task.sleep(for: .milliseconds(200))
        }
        if !staying.items.isEmpty {
            let told = staying.items.prefix(8).map { "\($0.about): \($0.reason?.message ?? "")" }
            let rest = staying.items.count > 8 ? "; and \(staying.items.count - 8) more" : ""
            throw CLIError(
                .conflict,
                "`\(view.value.name)` takes no tasks any more, but \(staying.items.count) of its own stay: "
                    + told.joined(separator: "; ") + rest,
                hint: staying.items.lazy.compactMap { $0.reason?.hint }.first
                    ?? "hivemind why node \(view.value.name)")
        }
        try output.show(json: view.body, names: [view.value.name]) { _ in "node `\(view.value.name)` is drained\n" }
        output.next("node uncordon \(view.value.name)", "node ls")
    }

    /// What does not go, and since when nothing else is left.
    private struct Staying {
        var items: [WhyView.Item] = []
        var since: ContinuousClock.Instant?
    }

    /// Nodes may come back in a moment, so that no place is final only after a while.
    private static let stayingFor = Duration.seconds(5)

    /// Whether nothing is left to wait for: all tasks stay, as the node says.
    private static func stays(
        _ tasks: [TaskView], on node: String, _ client: Client, _ staying: inout Staying
    ) async throws -> Bool {
        let why: Answer<WhyView> = try await client.get("/v1/why/node/\(Client.escape(node))")
        let items = why.value.items.filter { $0.about.hasPrefix("task ") }
        let kept = items.filter { $0.reason.map { $0.code != .nodeDrained } ?? false }
        guard !items.isEmpty, kept.count == items.count else {
            staying = Staying()
            return false
        }
        let now = ContinuousClock.now
        let since = staying.since ?? now
        staying.since = since
        guard kept.allSatisfy({ $0.reason?.code == .volumeElsewhere }) || now - since >= stayingFor else {
            return false
        }
        staying.items = kept
        return true
    }
}
