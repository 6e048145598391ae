// SPDX-License-Identifier: Apache-2.0

/// A task as `hivemind ps` lists it.
public struct TestTask: Sendable, Hashable {
    public var id: String
    public var state: String
    public var address: String
    public var pid: Int32
    public var restarts: Int
    public var image: String
    public var reason: String
    public var exitCode: Int?

    init(_ value: JSONValue) {
        id = value["id"].string ?? ""
        state = value["state"].string ?? ""
        address = value["address"].string ?? ""
        pid = Int32(value["pid"].int ?? 0)
        restarts = value["restarts"].int ?? 0
        image = value["image"].string ?? ""
        reason = value["reason"]["code"].string ?? ""
        exitCode = value["exit_code"].int
    }
}

extension TestDaemon {
    /// Sorted by id.
    public func tasks(_ app: String, all: Bool = false) async throws -> [TestTask] {
        let list = try await api("GET", "/v1/tasks?app=\(app)\(all ? "&all=true" : "")").json()
        return list.items.map(TestTask.init).sorted { $0.id < $1.id }
    }

    public func runningTasks(_ app: String) async throws -> [TestTask] {
        try await tasks(app).filter { $0.state == "running" && $0.pid > 0 }
    }

    /// Waits until exactly `count` tasks run and nothing else is left of the app.
    @discardableResult
    public func waitRunning(
        _ app: String, _ count: Int, within limit: Duration = .seconds(60)
    ) async throws -> [TestTask] {
        try await eventually("\(count) tasks of \(app) run", within: limit, every: .milliseconds(100)) {
            let tasks = try await self.tasks(app)
            guard tasks.count == count, tasks.allSatisfy({ $0.state == "running" && $0.pid > 0 }) else {
                throw TestFailure("\(tasks.map { "\($0.id) \($0.state) \($0.reason)" })")
            }
            return tasks
        }
    }

    /// Deletes the app and waits until it is not listed any more.
    public func delete(_ app: String) async throws {
        try await cli("app", "delete", app, "--yes").checked()
        try await eventually("\(app) is gone", within: .seconds(60)) {
            try await self.api("GET", "/v1/apps/\(app)").status == 404
        }
    }

    /// Runs a program in the network namespace of a container, with the programs of the test machine.
    public func onNetwork(of task: TestTask, _ arguments: [String]) async throws -> ShellOutput {
        try await Shell.run(["nsenter", "--target", "\(task.pid)", "--net", "--"] + arguments, timeout: .seconds(30))
    }

    /// Runs a program of the image inside a container: its files, its resolv.conf, its network.
    public func inContainer(_ task: TestTask, _ arguments: String...) async throws -> ShellOutput {
        let enter = ["nsenter", "--target", "\(task.pid)", "--net", "--mount", "--uts", "--pid", "--root", "--wd"]
        return try await Shell.run(enter + ["--", "/bin/busybox"] + arguments, timeout: .seconds(30))
    }

    /// Names of the replicas that `count` requests from `side` were answered by.
    public func answers(_ url: String, from side: TestNamespace, count: Int) async throws -> [String] {
        var names: [String] = []
        for _ in 0..<count {
            let first = try await side.get(url).split(separator: "\n").first.map(String.init) ?? ""
            names.append(first.split(separator: " ").last.map(String.init) ?? "")
        }
        return names
    }
}
