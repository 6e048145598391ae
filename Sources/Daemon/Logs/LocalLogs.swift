// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Store

/// What the tasks of one app wrote on this node.
struct LocalLogs: Sendable {
    let own: NodeID
    let state: StateMachine
    let runtime: any Runtime

    /// - Parameter resume: tasks of which everything before that time is known to the reader; `tail` is not for them.
    func read(
        _ key: ObjectKey, _ filter: LogFilter, resume: [TaskID: Timestamp] = [:]
    ) async throws -> AsyncThrowingStream<AppLogLine, any Error> {
        let now = try await sources(key, filter, tail: filter.tail, resume: resume) ?? []
        // Tasks that replace these are followed, too; of them everything is new.
        let later: @Sendable () async throws -> [LogSource]? = {
            try await sources(key, filter, tail: nil, resume: resume)
        }
        return LogMerger.merge(now, follow: filter.follow, later: filter.task == nil ? later : nil)
    }

    /// Nil when the app is not there any more.
    func sources(
        _ key: ObjectKey, _ filter: LogFilter, tail: Int?, resume: [TaskID: Timestamp] = [:]
    ) async throws -> [LogSource]? {
        try await state.read { view in
            guard try view.app(key) != nil else { return nil }
            return try view.tasks(app: key)
                .filter { $0.node == own && filter.matches(task: $0.id, service: $0.service) }
                .map { task in
                    let known = resume[task.id]
                    return source(
                        LogQuery(
                            task: task.id, tail: known == nil ? tail : nil, since: known ?? filter.since,
                            follow: filter.follow),
                        service: task.service)
                }
        }
    }

    private func source(_ query: LogQuery, service: String) -> LogSource {
        LogSource(id: query.task.raw) {
            let lines = Lines(runtime.logs(query))
            return AsyncThrowingStream {
                try await lines.next().map {
                    AppLogLine(task: query.task, service: service, at: $0.at, stream: $0.stream, text: $0.text)
                }
            }
        }
    }

    private actor Lines {
        private var iterator: AsyncThrowingStream<LogLine, any Error>.AsyncIterator

        init(_ stream: AsyncThrowingStream<LogLine, any Error>) { iterator = stream.makeAsyncIterator() }

        func next() async throws -> LogLine? {
            var current = iterator
            defer { iterator = current }
            return try await current.next(isolation: self)
        }
    }
}
