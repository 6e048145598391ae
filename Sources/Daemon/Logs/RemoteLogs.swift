// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Store

/// Lines another node has, fetched page by page. Never throws: a node that does not answer is told of in a line of its
/// own, the others' lines still come.
struct RemoteLogs: Sendable {
    /// For one page, the waiting of the other node included.
    static let pageDeadline = Duration.seconds(4)
    /// Between attempts to reach a node that is followed.
    static let retryInterval = Duration.seconds(1)
    /// Lines waiting here for the reader.
    static let linesMax = 256

    let node: NodeRow
    let key: ObjectKey
    let filter: LogFilter
    let calls: NodeCalls

    func stream() -> AsyncThrowingStream<AppLogLine, any Error> {
        let (stream, output) = AsyncThrowingStream.makeStream(
            of: AppLogLine.self, throwing: (any Error).self, bufferingPolicy: .bufferingOldest(Self.linesMax))
        let work = Task {
            var place = Place()
            var isTold = false
            while !Task.isCancelled {
                do {
                    if try await follow(&place, output, { isTold = false }) { break }
                } catch is CancellationError {
                    break
                } catch {
                    if !isTold {
                        let rest = filter.follow ? "they follow when it does" : "its lines are missing"
                        output.yield(
                            AppLogLine(
                                notice: "node `\(node.name)` does not give its logs, \(rest): \(Self.why(error))",
                                at: Clock.now()))
                    }
                    isTold = true
                    guard filter.follow else { break }
                    do { try await Task.sleep(for: Self.retryInterval) } catch { break }
                }
            }
            output.finish()
        }
        output.onTermination = { _ in work.cancel() }
        return stream
    }

    private static func why(_ error: any Error) -> String {
        (error as? Problem)?.detail ?? (error as? PeerError)?.message ?? "\(error)"
    }

    /// What was read, so that a lost connection neither repeats lines nor loses some.
    private struct Place {
        private var last: [TaskID: (at: Timestamp, lines: [AppLogLine])] = [:]

        var resume: [TaskID: Timestamp] { last.mapValues(\.at) }

        mutating func take(_ line: AppLogLine) {
            if last[line.task]?.at == line.at {
                last[line.task]?.lines.append(line)
            } else {
                last[line.task] = (line.at, [line])
            }
        }

        /// Lines that come again after `resume`: those of its very millisecond.
        var repeated: [TaskID: [AppLogLine]] { last.mapValues(\.lines) }
    }

    /// - Returns: whether the node has said everything.
    private func follow(
        _ place: inout Place, _ output: AsyncThrowingStream<AppLogLine, any Error>.Continuation, _ heard: () -> Void
    ) async throws -> Bool {
        var repeated = place.repeated
        let opened = try await calls.ask(
            .openLogs(LogsCall(key: key, filter: filter, resume: place.resume)), of: node,
            // Who is known not to answer is asked all the same, but not waited for long.
            deadline: node.liveness == .down ? .seconds(1) : Self.pageDeadline)
        guard let session = opened.session else { throw Problem(.internal, "it answers without a session") }
        do {
            while true {
                let page = try await calls.ask(.nextLogs(session: session), of: node, deadline: Self.pageDeadline)
                heard()
                for line in page.lines ?? [] {
                    if let found = repeated[line.task]?.firstIndex(of: line) {
                        repeated[line.task]?.remove(at: found)
                        continue
                    }
                    while case .dropped = output.yield(line) { try await Task.sleep(for: .milliseconds(20)) }
                    place.take(line)
                }
                if page.isEnd == true { return true }
                try Task.checkCancellation()
            }
        } catch {
            // Best effort: without it the session ends by itself, soon.
            Task { try? await calls.ask(.closeLogs(session: session), of: node, deadline: .seconds(1)) }
            throw error
        }
    }
}
