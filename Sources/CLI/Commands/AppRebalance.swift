// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct AppRebalance: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rebalance", abstract: "Move replicas to where there are fewer, after nodes came.",
        discussion: """
            A task moves only where nodes, zones or the labels of --spread differ by two or more; five move at a time, each
            when another runs in its place. What writes a volume stays, as do global services.

            Examples:
              hivemind app rebalance --dry-run
              hivemind app rebalance web
            """)

    @OptionGroup var app: AppNameArgument
    @Flag(help: "Show what would move and why, and change nothing.") var dryRun = false
    @OptionGroup(title: "Waiting") var wait: WaitOptions
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let output = try global.result(namespace: scope.namespace)
        let client = global.client(namespace: scope.namespace)
        let query = [("app", app.name ?? app.nameOption)]
        let end = ContinuousClock.now + (try wait.deadline())
        let plan: Answer<RebalanceView> =
            dryRun
            ? try await client.get("/v1/rebalance", query)
            : try client.decode(try await client.call("POST", "/v1/rebalance", query))
        let moves = plan.value.moves
        var left = plan.value.underWay
        var said = Int.max
        while !dryRun, !wait.isNotWaiting, left > 0 {
            if left < said {
                said = left
                output.terminal.note("\(left) \(left == 1 ? "task" : "tasks") to move")
            }
            guard ContinuousClock.now < end else {
                throw CLIError(
                    .timeout, "\(left) tasks have not moved yet",
                    hint: "they go on moving; what each waits for: hivemind why app NAME")
            }
            try await Task.sleep(for: .milliseconds(300))
            let now: Answer<RebalanceView> = try await client.get("/v1/rebalance", query)
            left = now.value.underWay
        }
        try output.show(json: plan.body, names: moves.map(\.task.raw)) { style in
            guard !moves.isEmpty else { return "nothing to move: no difference is two or more\n" }
            var table = Table(["TASK", "APP", "SERVICE", "FROM", "TO", "WHY"])
            table.rows = moves.map {
                [Cell($0.task.raw), Cell($0.app), Cell($0.service), Cell($0.from), Cell($0.to), Cell($0.why)]
            }
            return table.rendered(style)
        }
        if dryRun, !moves.isEmpty {
            output.next((["app rebalance", app.name ?? app.nameOption].compactMap { $0 }).joined(separator: " "))
        } else {
            output.next("ps")
        }
    }
}
