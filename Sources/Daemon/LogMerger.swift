// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Where lines come from: a task of this node, or all tasks of another node.
struct LogSource: Sendable {
    /// The same source is opened once.
    var id: String
    /// Reads from the beginning of what is wanted; called once.
    var open: @Sendable () -> AsyncThrowingStream<AppLogLine, any Error>
}

/// Lines of several sources as one stream.
enum LogMerger {
    /// Stored lines come in order of time over all sources; when following, new lines come as they arrive.
    ///
    /// Reads at most one line ahead per source, so that a slow reader holds back the files, not memory.
    /// - Parameter later: asked twice a second while following: what there is to follow by then, nil when nothing will
    ///   be added any more.
    static func merge(
        _ sources: [LogSource], follow: Bool, later: (@Sendable () async throws -> [LogSource]?)? = nil
    ) -> AsyncThrowingStream<AppLogLine, any Error> {
        if follow { return following(sources, later: later) }
        let merger = Merge(sources)
        return AsyncThrowingStream { try await merger.next() }
    }

    private actor Merge {
        private struct Source {
            var iterator: AsyncThrowingStream<AppLogLine, any Error>.AsyncIterator
            var head: AppLogLine?
        }

        private let opened: [AsyncThrowingStream<AppLogLine, any Error>]
        private var sources: [Source]?

        init(_ sources: [LogSource]) {
            // All before the first is waited for: other nodes are asked at the same time.
            opened = sources.map { $0.open() }
        }

        func next() async throws -> AppLogLine? {
            var current: [Source]
            if let sources {
                current = sources
            } else {
                current = []
                for stream in opened {
                    var iterator = stream.makeAsyncIterator()
                    let head = try await iterator.next(isolation: self)
                    current.append(Source(iterator: iterator, head: head))
                }
            }
            var oldest: Int?
            for index in current.indices {
                guard let head = current[index].head else { continue }
                if let best = oldest, let other = current[best].head, other.at <= head.at { continue }
                oldest = index
            }
            guard let index = oldest, let line = current[index].head else { return nil }
            var iterator = current[index].iterator
            current[index].head = try await iterator.next(isolation: self)
            current[index].iterator = iterator
            sources = current
            return line
        }
    }

    private static func following(
        _ sources: [LogSource], later: (@Sendable () async throws -> [LogSource]?)?
    ) -> AsyncThrowingStream<AppLogLine, any Error> {
        let (stream, output) = AsyncThrowingStream.makeStream(
            of: AppLogLine.self, throwing: (any Error).self, bufferingPolicy: .bufferingOldest(4096))
        @Sendable func follow(_ source: LogSource) async {
            do {
                for try await line in source.open() {
                    // A slow reader holds the file back: nothing is dropped and memory stays bounded.
                    while case .dropped = output.yield(line) { try await Task.sleep(for: .milliseconds(20)) }
                    if Task.isCancelled { return }
                }
            } catch is CancellationError {
            } catch {
                output.finish(throwing: error)
            }
        }
        let work = Task {
            await withDiscardingTaskGroup { group in
                for source in sources { group.addTask { await follow(source) } }
                var known = Set(sources.map(\.id))
                do {
                    while let later, !Task.isCancelled {
                        try await Task.sleep(for: .milliseconds(500))
                        guard let current = try await later() else { break }
                        for source in current where !known.contains(source.id) {
                            group.addTask { await follow(source) }
                        }
                        known = Set(current.map(\.id))
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
