// SPDX-License-Identifier: Apache-2.0
import Foundation

/// One daemon with its private containerd, driven as a user's program would drive it.
final class Node {
    let directory: String
    let binaries: String
    let image = "hivemind/hello:1.0"
    private var daemon: Program?
    private var connection: Connection?

    var socket: String { "\(directory)/s" }
    var data: String { "\(directory)/d" }
    var containerdSocket: String { "\(data)/containerd/containerd.sock" }
    var hivemind: String { "\(binaries)/hivemind" }
    var daemonPID: pid_t { daemon?.pid ?? 0 }

    init(directory: String, binaries: String) {
        self.directory = directory
        self.binaries = binaries
    }

    // MARK: Life

    /// - Returns: milliseconds until `/ready` says so.
    @discardableResult
    func start() throws -> Double {
        let began = now()
        daemon = try Program(
            [hivemind, "daemon", "--data-dir", data, "--socket", socket, "--node-name", "bench"],
            output: "\(directory)/daemon.log")
        return try eventually("the daemon is ready (its log: \(directory)/daemon.log)", everyMicroseconds: 500) {
            guard let connection = Connection(socket), let reply = try? connection.exchange("GET", "/ready"),
                reply.status == 200
            else { return nil }
            self.connection = connection
            return now() - began
        }
    }

    /// As a crash would end it; containers and containerd go on.
    func kill9() {
        connection = nil
        daemon?.kill(SIGKILL)
        daemon?.wait()
        daemon = nil
    }

    var containerdPID: pid_t? {
        guard let text = try? String(contentsOfFile: "\(data)/containerd/containerd.pid", encoding: .utf8) else {
            return nil
        }
        return text.split(whereSeparator: \.isWhitespace).first.flatMap { pid_t($0) }
    }

    /// Ends containerd too. Only for a node without containers.
    func kill9WithContainerd() throws {
        let pid = containerdPID
        kill9()
        guard let pid else { return }
        try Self.end(pid)
    }

    static func end(_ pid: pid_t) throws {
        kill(pid, SIGKILL)
        _ = try eventually("process \(pid) ends") { kill(pid, 0) == 0 ? nil : true }
    }

    // MARK: API

    @discardableResult
    func call(_ method: String, _ path: String, _ body: String? = nil) throws -> Any {
        guard let connection = connection ?? Connection(socket) else { throw BenchError("no daemon at \(socket)") }
        self.connection = connection
        let reply = try connection.exchange(method, path, body)
        guard (200..<300).contains(reply.status) else {
            throw BenchError("\(method) \(path): \(reply.status) \(String(decoding: reply.body, as: UTF8.self))")
        }
        return reply.body.isEmpty ? [:] : try JSONSerialization.jsonObject(with: reply.body)
    }

    /// An app whose services each run `command`; a list of mounts as JSON.
    func put(_ app: String, services: [String], replicas: Int, command: [String], mounts: String = "[]") throws {
        let words = String(decoding: try JSONSerialization.data(withJSONObject: command), as: UTF8.self)
        let list = services.map { name in
            """
            {"name":"\(name)","image":"\(image)","replicas":\(replicas),"command":\(words),"entrypoint":[],\
            "mounts":\(mounts),"stop_signal":"SIGKILL"}
            """
        }
        try call("PUT", "/v1/apps/\(app)", "{\"services\":[\(list.joined(separator: ","))]}")
    }

    func scale(_ app: String, to replicas: Int) throws {
        try call("POST", "/v1/apps/\(app)/scale", "{\"replicas\":\(replicas)}")
    }

    struct TaskState {
        var id: String
        var state: String
        var pid: pid_t
        var address: String
        var milliseconds: Double?
    }

    func tasks(_ app: String) throws -> [TaskState] {
        let list = try call("GET", "/v1/tasks?app=\(app)") as? [String: Any]
        return (list?["items"] as? [[String: Any]] ?? []).map { item in
            let times = ["created_at", "started_at"].map { Self.milliseconds(item[$0] as? String) }
            let took: Double? = if let created = times[0], let started = times[1] { started - created } else { nil }
            return TaskState(
                id: item["id"] as? String ?? "", state: item["state"] as? String ?? "",
                pid: (item["pid"] as? NSNumber)?.int32Value ?? 0, address: item["address"] as? String ?? "",
                milliseconds: took)
        }
    }

    @discardableResult
    func waitRunning(_ app: String, _ count: Int) throws -> [TaskState] {
        try eventually("\(count) tasks of \(app) run", seconds: 120) {
            let running = try tasks(app).filter { $0.state == "running" }
            return running.count == count ? running : nil
        }
    }

    func delete(_ app: String) throws {
        try call("DELETE", "/v1/apps/\(app)")
        _ = try eventually("app \(app) is gone", seconds: 120, everyMicroseconds: 20_000) {
            let list = try call("GET", "/v1/apps") as? [String: Any]
            return (list?["items"] as? [[String: Any]] ?? []).contains { $0["name"] as? String == app } ? nil : true
        }
    }

    private static func milliseconds(_ text: String?) -> Double? {
        let formatter = ISO8601DateFormatter()
        formatter.formatOptions = [.withInternetDateTime, .withFractionalSeconds]
        return text.flatMap { formatter.date(from: $0) }.map { $0.timeIntervalSince1970 * 1000 }
    }
}
