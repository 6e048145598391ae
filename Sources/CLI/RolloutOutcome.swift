// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model

/// The end of a waiting change of an app: what it says and which exit code it has.
struct RolloutOutcome: Sendable {
    let client: Client
    let output: Output
    let app: String
    /// `deploy`, `scale`, `restart`.
    let verb: String
    static let tailLines = 20

    private var terminal: Terminal { output.terminal }

    /// Waits as the options say and shows the result.
    /// - Parameter answer: of the write; without an operation nothing had to change, or the app is watched instead.
    func finish(_ answer: Answer<AppView>, wait: WaitOptions, started: Duration) async throws {
        let operation =
            answer.operation
            ?? answer.value.rollout.flatMap { $0.state == .running && answer.status == 202 ? $0.id : nil }
        if wait.isNotWaiting { return try await showOperation(operation, answer) }
        let watch = RolloutWatch(
            client: client, app: app, terminal: terminal, timeout: try wait.deadline(), started: started)
        let isUnchanged = answer.status == 200 && operation == nil
        let rollout: RolloutView?? = try await terminal.untilInterrupted {
            if let operation { return try await watch.operation(operation) }
            if !isUnchanged { _ = try await watch.settled() }
            return nil
        }
        guard let ended = rollout else {
            throw CLIError(
                .interrupted, "stopped waiting; the \(verb) of `\(app)` goes on",
                hint: "watch it with `hivemind app info \(app)\(output.context)`")
        }
        if let ended { try await check(ended) }
        let view: Answer<AppView> = try await client.get("/v1/apps/\(Client.escape(app))")
        if isUnchanged { output.note("`\(app)` is as asked for already: nothing to change") }
        try output.show(json: view.body, names: [app]) { AppText.summary(view.value).rendered($0) }
        output.next("app logs \(app) -f", "ps \(app)")
    }

    private func showOperation(_ operation: String?, _ answer: Answer<AppView>) async throws {
        guard let operation else {
            try output.show(json: answer.body, names: [app]) { AppText.summary(answer.value).rendered($0) }
            return output.next("app info \(app)")
        }
        let view: Answer<OperationView> = try await client.get("/v1/operations/\(Client.escape(operation))")
        try output.show(json: view.body, names: [operation]) { style in
            var block = Block()
            block.add("operation", view.value.id)
            block.add("kind", view.value.kind)
            block.add("app", view.value.app)
            block.add("state", view.value.rollout.state.rawValue, .state(view.value.rollout.state.rawValue))
            block.add("updated", "\(view.value.rollout.updated)/\(view.value.rollout.total)")
            return block.rendered(style)
        }
        output.next("app info \(app)", "ps \(app)")
    }

    /// Nothing when it went well, else the error with its exit code, after the log of the task that failed.
    private func check(_ rollout: RolloutView) async throws {
        let cause = rollout.reason?.message ?? "no reason was given"
        let hint = rollout.reason?.hint
        switch rollout.state {
        case .succeeded, .running: return
        case .superseded:
            throw CLIError(
                .conflict, "the \(verb) of `\(app)` was overtaken by a newer one",
                hint: "see what runs now: `hivemind app info \(app)\(output.context)`")
        case .rolledBack:
            await showLog(of: rollout.failedTask)
            throw CLIError(
                .rolledBack, "the \(verb) of `\(app)` failed and was rolled back: \(cause)",
                hint: hint ?? "the previous release runs; mend the cause and deploy again")
        case .failed:
            await showLog(of: rollout.failedTask)
            throw CLIError(
                .deployFailed, "the \(verb) of `\(app)` failed: \(cause)",
                hint: hint ?? "see `hivemind app info \(app)\(output.context)`, mend the cause and deploy again")
        }
    }

    private func showLog(of task: TaskID?) async {
        guard let task else { return }
        var lines: [String] = []
        do {
            try await client.logs(
                app: app, [("task", task.raw), ("tail", String(Self.tailLines))], timeout: .seconds(5)
            ) { line, _ in lines.append("  | \(line.text.printable)") }
        } catch let error as CLIError where error.exit == .notFound {
            // A task that never had a container has no log.
        } catch {
            let text = (error as? CLIError)?.message ?? "\(error)"
            return terminal.note("failed task \(task); its log cannot be read: \(text)")
        }
        if lines.isEmpty { return terminal.note("failed task \(task) wrote no log") }
        terminal.note("failed task \(task), the end of its log:")
        for line in lines.suffix(Self.tailLines) { terminal.note(line) }
    }
}

/// Problems of the image: the daemon refuses them before anything changes.
enum ImageProblem {
    static let codes: Set<String> = Set(
        [Problem.Code.imageNotFound, .imageInvalid, .registryUnreachable, .registryDenied].map(\.rawValue))

    /// A deploy refused for its image leaves an app that existed as it was.
    static func deployError(_ refusal: CLIError, app: String, client: Client) async -> CLIError {
        guard let code = refusal.code, codes.contains(code) else { return refusal }
        do {
            let _: Answer<AppView> = try await client.get("/v1/apps/\(Client.escape(app))")
            return CLIError(
                .rolledBack, "the deploy of `\(app)` was refused, the previous release runs on: \(refusal.message)",
                hint: refusal.hint, code: code)
        } catch {
            // Absent, or nobody can tell: no earlier release can be promised.
            return CLIError(
                .deployFailed, "the deploy of `\(app)` was refused: \(refusal.message)", hint: refusal.hint, code: code)
        }
    }
}
