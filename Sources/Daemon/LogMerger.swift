// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Lines of several tasks as one stream.
enum LogMerger {
    /// Stored lines come in order of time over all tasks; when following, new lines come as they arrive.
    ///
    /// Reads at most one line ahead per task, so that a slow reader holds back the files, not memory.
    /// - Parameter later: asked twice a second while following: what there is to follow by then, nil when nothing will
    ///   be added any more.
    static func merge(
        _ queries: [(service: String, query: LogQuery)],
        follow: Bool,
        later: (@Sendable () async throws -> [(service: String, query: LogQuery)]?)? = nil,
        open: @escaping @Sendable (LogQuery) -> AsyncThrowingStream<LogLine, any Error>
    ) -> AsyncThrowingStream<AppLogLine, any Error> {
        if follow { return following(queries, later: later, open: open) }
        let merger = Merge(queries, open: open)
        return AsyncThrowingStream { try await merger.next() }
    }

    private actor Merge {
        private struct Source {
            var service: String
            var task: TaskID
            var iterator: AsyncThrowingStream<LogLine, any Error>.AsyncIterator
            var head: LogLine?
        }

        private let queries: [(service: String, query: LogQuery)]
        private let open: @Sendable (LogQuery) -> AsyncThrowingStream<LogLine, any Error>
        private var sources: [Source]?

        init(
            _ queries: [(service: String, query: LogQuery)],
            open: @escaping @Sendable (LogQuery) -> AsyncThrowingStream<LogLine, any Error>
        ) {
            self.queries = queries
            self.open = open
        }

        func next() async throws -> AppLogLine? {
            var current: [Source]
            if let sources {
                current = sources
            } else {
                current = []
                for (service, query) in queries {
                    var iterator = open(query).makeAsyncIterator()
                    let head = try await iterator.next(isolation: self)
                    current.append(Source(service: service, task: query.task, iterator: iterator, head: head))
                }
            }
            var oldest: Int?
            for index in current.indices {
                guard let head = current[index].head else { continue }
                if let best = oldest, let other = current[best].head, other.at <= head.at { continue }
                oldest = index
            }
            guard let index = oldest, let line = current[index].head else { return nil }
            let result = AppLogLine(
                task: current[index].task, service: current[index].service, at: line.at, stream: line.stream,
                text: line.text)
            var iterator = current[index].iterator
            current[index].head = try await iterator.next(isolation: self)
            current[index].iterator = iterator
            sources = current
            return result
        }
    }

    private static func following(
        _ queries: [(service: String, query: LogQuery)],
        later: (@Sendable () async throws -> [(service: String, query: LogQuery)]?)?,
        open: @escaping @Sendable (LogQuery) -> AsyncThrowingStream<LogLine, any Error>
    ) -> AsyncThrowingStream<AppLogLine, any Error> {
        let (stream, output) = AsyncThrowingStream.makeStream(
            of: AppLogLine.self, throwing: (any Error).self, bufferingPolicy: .bufferingOldest(4096))
        @Sendable func follow(_ service: String, _ query: LogQuery) async {
            do {
                for try await line in open(query) {
                    let item = AppLogLine(
                        task: query.task, service: service, at: line.at, stream: line.stream, text: line.text)
                    // A slow reader holds the file back: nothing is dropped and memory stays bounded.
                    while case .dropped = output.yield(item) { try await Task.sleep(for: .milliseconds(20)) }
                    if Task.isCancelled { return }
                }
            } catch is CancellationError {
            } catch {
                output.finish(throwing: error)
            }
        }
        let work = Task {
            await withDiscardingTaskGroup { group in
                for (service, query) in queries { group.addTask { await follow(service, query) } }
                var known = Set(queries.map(\.query.task))
                do {
                    while let later, !Task.isCancelled {
                        try await Task.sleep(for: .milliseconds(500))
                        guard let current = try await later() else { break }
                        for (service, query) in current where !known.contains(query.task) {
                            group.addTask { await follow(service, query) }
                        }
                        known = Set(current.map(\.query.task))
                    }
                } catch is CancellationError {
                } catch {
                    output.finish(throwing: error)
                }
            }
            output.finish()
        }
        output.onTermination = { _ in work.cancel() }
        return stream
    }
}
