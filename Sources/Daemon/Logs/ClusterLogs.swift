// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Store

/// What the tasks of one app wrote, wherever they run: the lines of this node's from its files, of the others' from the
/// nodes that have them.
struct ClusterLogs: Sendable {
    let own: NodeID
    let state: StateMachine
    let local: LocalLogs
    let calls: NodeCalls

    func read(_ key: ObjectKey, _ filter: LogFilter) async throws -> AsyncThrowingStream<AppLogLine, any Error> {
        let now = try await sources(key, filter, tail: filter.tail) ?? []
        let later: @Sendable () async throws -> [LogSource]? = { try await sources(key, filter, tail: nil) }
        return LogMerger.merge(now, follow: filter.follow, later: filter.task == nil ? later : nil)
    }

    /// A source for each task here, and one for each other node that has some. Nil when the app is not there any more.
    private func sources(_ key: ObjectKey, _ filter: LogFilter, tail: Int?) async throws -> [LogSource]? {
        guard var sources = try await local.sources(key, filter, tail: tail) else { return nil }
        let (tasks, nodes) = try await state.read { (try $0.tasks(app: key), try $0.nodes()) }
        let elsewhere = Set(tasks.filter { filter.matches(task: $0.id, service: $0.service) }.map(\.node))
            .subtracting([own]).sorted()
        var wanted = filter
        wanted.tail = tail
        for id in elsewhere {
            if let node = nodes.first(where: { $0.id == id }) {
                sources.append(
                    LogSource(id: "node \(id.raw)") { [wanted] in
                        RemoteLogs(node: node, key: key, filter: wanted, calls: calls).stream()
                    })
            } else {
                sources.append(
                    LogSource(id: "node \(id.raw)") {
                        Self.notice("node \(id.raw) was removed from the cluster, and its logs with it")
                    })
            }
        }
        return sources
    }

    private static func notice(_ text: String) -> AsyncThrowingStream<AppLogLine, any Error> {
        AsyncThrowingStream { output in
            output.yield(AppLogLine(notice: text, at: Clock.now()))
            output.finish()
        }
    }
}
