// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NodeLabel: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "label", abstract: "Set labels of a node, or take them away.",
        discussion: """
            Tasks are spread over the label `zone`; constraints name any of them (`--constraint 'node.labels.disk == ssd'`).

            Examples:
              hivemind node label alpha zone=eu disk=ssd
              hivemind node label alpha disk-
            """)

    @Argument(help: "Node.") var node: String
    @Argument(help: ArgumentHelp("Labels to set, or with - behind to take away.", valueName: "name=value"))
    var labels: [String]
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        var changes: [String: String?] = [:]
        for text in labels {
            if let equals = text.firstIndex(of: "=") {
                changes[String(text[..<equals])] = .some(String(text[text.index(after: equals)...]))
            } else if text.hasSuffix("-"), text.count > 1 {
                changes[String(text.dropLast())] = .some(nil)
            } else {
                throw CLIError.usage(
                    "`\(text)` is no label", hint: "write NAME=VALUE to set one, NAME- to take it away")
            }
        }
        let view = try await NodeChange.apply(PatchNodeRequest(labels: changes), to: node, global) { node in
            let all = node.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            return
                "node `\(node.name)` has \(all.isEmpty ? "no labels" : "the labels \(all.joined(separator: ", "))")\n"
        }
        try global.result().next("node info \(view.name)")
    }
}

struct NodeTaint: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "taint", abstract: "Keep tasks away from a node that do not tolerate it.",
        discussion: """
            What runs there already stays.

            Examples:
              hivemind node taint alpha gpu
              hivemind app deploy train --image train:1 --toleration gpu
              hivemind node taint alpha gpu-
            """)

    @Argument(help: "Node.") var node: String
    @Argument(help: ArgumentHelp("Taints to add, or with - behind to take away.", valueName: "taint"))
    var taints: [String]
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let gone = taints.filter { $0.hasSuffix("-") && $0.count > 1 }.map { String($0.dropLast()) }
        let new = taints.filter { !$0.hasSuffix("-") || $0.count == 1 }
        let change = PatchNodeRequest(addTaints: new, removeTaints: gone)
        let view = try await NodeChange.apply(change, to: node, global) { node in
            let all = node.taints ?? []
            return
                "node `\(node.name)` has \(all.isEmpty ? "no taints" : "the taints \(all.joined(separator: ", "))")\n"
        }
        try global.result().next("node info \(view.name)")
    }
}

struct NodeCordon: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cordon", abstract: "Give a node no new tasks; those there go on.",
        discussion: "Example:\n  hivemind node cordon alpha")

    @OptionGroup var node: NameArgument
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let change = PatchNodeRequest(availability: "cordoned")
        let view = try await NodeChange.apply(change, to: try node.required("node"), global) {
            "node `\($0.name)` gets no new tasks\n"
        }
        try global.result().next("node uncordon \(view.name)", "node drain \(view.name)")
    }
}

struct NodeUncordon: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uncordon", abstract: "Let a cordoned or drained node have tasks again.",
        discussion: "Example:\n  hivemind node uncordon alpha")

    @OptionGroup var node: NameArgument
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let change = PatchNodeRequest(availability: "active")
        let view = try await NodeChange.apply(change, to: try node.required("node"), global) {
            "node `\($0.name)` takes tasks\n"
        }
        try global.result().next("node info \(view.name)")
    }
}

struct NodeDrain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain", abstract: "Move every task away from a node.",
        discussion: """
            Each replacement is ready before the task it replaces stops. Tasks that write a volume or a path of the node \
            stay with it.

            Example:
              hivemind node drain alpha
            """)

    @OptionGroup var node: NameArgument
    @OptionGroup(title: "Waiting") var wait: WaitOptions
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let terminal = Terminal.current
        let timeout = try wait.deadline()
        let deadline = terminal.elapsed() + timeout
        let output = try global.result()
        let client = global.client()
        let name = try node.required("node")
        let answer: Answer<NodeView> = try await client.send(
            "PATCH", "/v1/nodes/\(Client.escape(name))", body: PatchNodeRequest(availability: "drained"))
        if !wait.isNotWaiting {
            try await Self.empty(answer.value.name, client: client, terminal: terminal, deadline: deadline)
        }
        let told = wait.isNotWaiting ? "is being emptied" : "has no tasks"
        try output.show(json: answer.body, names: [answer.value.name]) { _ in "node `\(answer.value.name)` \(told)\n" }
        output.next("node uncordon \(answer.value.name)", "node remove \(answer.value.name)")
    }

    /// - Throws: `CLIError` with `.conflict` when tasks are left that never move, `.timeout` when it takes too long.
    private static func empty(_ node: String, client: Client, terminal: Terminal, deadline: Duration) async throws {
        var progress = Progress(terminal: terminal)
        while true {
            // Its own tasks follow as items that name what each waits for.
            let why: Answer<WhyView> = try await client.get("/v1/why/node/\(Client.escape(node))")
            let left = why.value.items.dropFirst()
            guard !left.isEmpty else { return progress.clear() }
            progress.update(
                [("", "\(node): \(left.count) tasks left")]
                    + left.map { ($0.about, "  \($0.about) \($0.reason?.message ?? "")") })
            let stay = left.filter { $0.reason?.code == .volumeElsewhere }
            if stay.count == left.count, let first = stay.first {
                progress.clear()
                throw CLIError(
                    .conflict, "node `\(node)` keeps \(stay.count) tasks that write a volume there: \(first.about)",
                    hint: first.reason?.hint)
            }
            guard terminal.elapsed() < deadline else {
                progress.clear()
                throw CLIError(
                    .timeout, "node `\(node)` has \(left.count) tasks left",
                    hint: "it goes on by itself; what they wait for: hivemind why node \(node)")
            }
            try await terminal.sleep(.milliseconds(300))
        }
    }
}

/// What the small verbs have in common.
enum NodeChange {
    static func apply(
        _ change: PatchNodeRequest, to name: String, _ global: GlobalOptions, text: (NodeView) -> String
    ) async throws -> NodeView {
        let output = try global.result()
        let answer: Answer<NodeView> = try await global.client().send(
            "PATCH", "/v1/nodes/\(Client.escape(name))", body: change)
        try output.show(json: answer.body, names: [answer.value.name]) { _ in text(answer.value) }
        return answer.value
    }
}
