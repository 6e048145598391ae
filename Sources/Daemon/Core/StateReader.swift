// SPDX-License-Identifier: Apache-2.0
internal import Store

/// Short reads of the state, many at a time: a thread that answers everything that came while it was busy from one
/// transaction.
///
/// A read of one row costs less than the transaction around it and the way to a thread and back; the reads of many clients
/// share them. Long reads (lists, pictures of apps) go through `StateMachine.read`, so that they hold up nobody here.
final class StateReader: Sendable {
    private typealias Job = @Sendable (Result<StateView, any Error>) -> Void

    private let mailbox = Mailbox<Job>()

    /// The thread ends with the reader, after what was asked.
    init(_ state: StateMachine) {
        let mailbox = mailbox
        Thread.spawn {
            while true {
                let (jobs, isClosed) = mailbox.take(waitMilliseconds: 60_000)
                if isClosed, jobs.isEmpty { return }
                var waiting = jobs[...]
                do {
                    if !jobs.isEmpty {
                        try state.read { view in while let job = waiting.popFirst() { job(.success(view)) } }
                    }
                } catch {
                    // No transaction could be opened; one that ends badly has answered everybody before.
                    for job in waiting { job(.failure(error)) }
                }
            }
        }
    }

    deinit { mailbox.close() }

    /// - Parameter body: reads a few rows.
    func read<Value: Sendable>(_ body: @escaping @Sendable (StateView) throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            mailbox.put { view in continuation.resume(with: Result { try body(view.get()) }) }
        }
    }
}
