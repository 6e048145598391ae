// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Model
internal import Orchestrator
internal import ServiceLifecycle

/// Asks whoever leads whether every node that answers has taken out of service what this one is about to stop.
///
/// Without it a request that came in by a node that is behind would end at a container that has just been stopped.
final class EndpointRelease: Service {
    /// Between two questions: the first is answered with no as long as the slowest node is at it.
    static let pauses = [5, 10, 20, 40, 80, 160].map { Duration.milliseconds($0) }
    static let questionDeadline = Duration.seconds(1)

    /// Nil: there is nobody else.
    private let duties: LeaderDuties?
    private let released: @Sendable (UInt64) -> Void
    private let log: Logger
    private let wanted: AsyncStream<UInt64>
    private let wantedInput: AsyncStream<UInt64>.Continuation

    init(duties: LeaderDuties?, log: Logger, released: @escaping @Sendable (UInt64) -> Void) {
        self.duties = duties
        self.released = released
        self.log = log
        // A newer index includes the ones before.
        (wanted, wantedInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// Any thread; never blocks.
    func want(_ index: UInt64) {
        if duties == nil { released(index) } else { wantedInput.yield(index) }
    }

    func run() async throws {
        await cancelWhenGracefulShutdown { [self] in
            for await index in wanted {
                // Given up together with the tasks that wait for it: they are stopped after a bounded time all the same.
                let end = ContinuousClock.now + .milliseconds(NodeReconciler.drainMillisecondsMax)
                var pauses = Self.pauses[...]
                while !Task.isCancelled, ContinuousClock.now < end {
                    if await isReleased(index) {
                        released(index)
                        break
                    }
                    let pause = pauses.count > 1 ? pauses.removeFirst() : pauses.first
                    try? await Task.sleep(for: pause ?? .milliseconds(160))
                }
            }
        }
    }

    private func isReleased(_ index: UInt64) async -> Bool {
        do {
            return try await duties?.ask(.isReleased(index), deadline: Self.questionDeadline).isReleased ?? true
        } catch let problem as Problem where problem.code == .internal {
            // A leader of an earlier version does not know the question.
            log.warning("the leader cannot tell what is out of service", metadata: ["error": "\(problem.detail)"])
            return true
        } catch {
            log.debug("nobody tells what is out of service now", metadata: ["error": "\(error)"])
            return false
        }
    }
}
