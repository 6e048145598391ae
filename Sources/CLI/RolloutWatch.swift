// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Follows a change of an app to its end.
///
/// Polls from 100 ms to 500 ms apart. The daemon may be away for ten seconds meanwhile: a rollout survives its restart.
struct RolloutWatch: Sendable {
    let client: Client
    let app: String
    let terminal: Terminal
    /// On `terminal.elapsed`.
    let deadline: Duration
    /// Started with, for messages.
    let timeout: Duration

    static let toleratedAbsence = Duration.seconds(10)

    init(client: Client, app: String, terminal: Terminal, timeout: Duration, started: Duration) {
        self.client = client
        self.app = app
        self.terminal = terminal
        self.timeout = timeout
        deadline = started + timeout
    }

    /// Until the operation is not `running` any more.
    /// - Throws: `CLIError` with `.timeout` when the time is over.
    func operation(_ id: String) async throws -> RolloutView {
        var progress = Progress(terminal: terminal)
        var tasks = TaskLines()
        return try await poll(&progress) { progress in
            let view: Answer<OperationView> = try await client.get("/v1/operations/\(Client.escape(id))")
            let rollout = view.value.rollout
            let listed: Answer<ItemList<TaskView>> = try await client.get(
                "/v1/tasks", [("app", app), ("all", "true")])
            let title = "\(app): release \(rollout.release), \(rollout.updated)/\(rollout.total) updated"
            progress.update([("", title)] + tasks.changes(listed.value.items, rollout: rollout))
            return rollout.state == .running ? nil : rollout
        }
    }

    /// For a change that started no rollout: until as many replicas run as are wanted, or none will.
    func settled() async throws -> AppView {
        var progress = Progress(terminal: terminal)
        return try await poll(&progress) { progress in
            let view: Answer<AppView> = try await client.get("/v1/apps/\(Client.escape(app))")
            let counts = view.value.replicas
            progress.update([("", "\(app): \(counts.running)/\(counts.desired) running")])
            let isThere = counts.running == counts.desired && view.value.status != .deploying
            return isThere || view.value.status == .failed || view.value.status == .completed ? view.value : nil
        }
    }

    /// Until the app is not found any more.
    func gone() async throws {
        var progress = Progress(terminal: terminal)
        let _: Bool = try await poll(&progress) { progress in
            do {
                let view: Answer<AppView> = try await client.get("/v1/apps/\(Client.escape(app))")
                let count = view.value.replicas.running
                progress.update([("", "\(app): \(view.value.status.rawValue), \(count) running")])
                return nil
            } catch let error as CLIError where error.exit == .notFound {
                return true
            }
        }
    }

    /// What the app waits for, when that is known.
    private func reason() async -> String? {
        do {
            let view: Answer<AppView> = try await client.get("/v1/apps/\(Client.escape(app))")
            return view.value.reason?.message.printable
        } catch {
            // That the time is over is what has to be said.
            return nil
        }
    }

    private func poll<Value>(
        _ progress: inout Progress, _ step: (inout Progress) async throws -> Value?
    ) async throws -> Value {
        defer { progress.clear() }
        var pause = Duration.milliseconds(100)
        var absentSince: Duration?
        while true {
            do {
                if let value = try await step(&progress) { return value }
                absentSince = nil
            } catch let error as CLIError where error.exit == .connection {
                let since = absentSince ?? terminal.elapsed()
                absentSince = since
                guard terminal.elapsed() - since < Self.toleratedAbsence else { throw error }
            }
            guard terminal.elapsed() < deadline else {
                throw CLIError(
                    .timeout,
                    "`\(app)` was not done within \(Format.duration(seconds: timeout.components.seconds))"
                        + (await reason().map { ": \($0)" } ?? ""),
                    hint: "the change goes on; watch it with `hivemind app info \(app)` and `hivemind ps \(app)`")
            }
            try await terminal.sleep(min(pause, max(.milliseconds(1), deadline - terminal.elapsed())))
            pause = min(pause * 3 / 2, .milliseconds(500))
        }
    }
}

/// Which tasks are worth a line while a rollout goes on: those of the new release, and old ones that change.
struct TaskLines {
    private var firstSeen: [TaskID: String] = [:]
    private var lively: Set<TaskID> = []

    mutating func changes(_ tasks: [TaskView], rollout: RolloutView) -> [(key: String, text: String)] {
        var lines: [(key: String, text: String)] = []
        for task in tasks.sorted(by: { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }) {
            if firstSeen[task.id] == nil { firstSeen[task.id] = task.state }
            let isNew = task.createdAt >= rollout.startedAt
            if isNew || firstSeen[task.id] != task.state { lively.insert(task.id) }
            guard lively.contains(task.id) else { continue }
            let reason = task.reason.map { ": \($0.message.printable)" } ?? ""
            lines.append((task.id.raw, "  \(task.id) on \(task.node) \(task.state)\(reason)"))
        }
        return lines
    }
}
