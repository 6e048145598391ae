// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// A fixed number of places, handed out in the order asked for.
final class Slots: Sendable {
    private struct State {
        var free: Int
        var next: UInt64 = 0
        var waiters: [(ticket: UInt64, continuation: CheckedContinuation<Bool, Never>)] = []
        /// Tickets whose wait ended before it began.
        var givenUp: Set<UInt64> = []
    }

    private let waitersMax: Int
    private let state: Mutex<State>

    init(limit: Int, waitersMax: Int) {
        self.waitersMax = waitersMax
        state = Mutex(State(free: limit))
    }

    /// True with a place, which `release` gives back; false after `timeout` or when too many wait already.
    /// - Throws: `CancellationError`.
    func acquire(timeout: Duration) async throws -> Bool {
        let immediate: Bool? = state.withLock { state in
            if state.free > 0 {
                state.free -= 1
                return true
            }
            return state.waiters.count >= waitersMax ? false : nil
        }
        if let immediate { return immediate }

        let ticket = state.withLock { state in
            state.next += 1
            return state.next
        }
        let clock = Task {
            try await Task.sleep(for: timeout)
            self.giveUp(ticket)
        }
        defer { clock.cancel() }
        let granted = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let answer: Bool? = state.withLock { state in
                    if state.givenUp.remove(ticket) != nil { return false }
                    if state.free > 0 {
                        state.free -= 1
                        return true
                    }
                    state.waiters.append((ticket, continuation))
                    return nil
                }
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            giveUp(ticket)
        }
        state.withLock { _ = $0.givenUp.remove(ticket) }
        if Task.isCancelled {
            if granted { release() }
            throw CancellationError()
        }
        return granted
    }

    func release() {
        let waiter = state.withLock { state -> CheckedContinuation<Bool, Never>? in
            guard !state.waiters.isEmpty else {
                state.free += 1
                return nil
            }
            return state.waiters.removeFirst().continuation
        }
        waiter?.resume(returning: true)
    }

    private func giveUp(_ ticket: UInt64) {
        let waiter = state.withLock { state -> CheckedContinuation<Bool, Never>? in
            guard let index = state.waiters.firstIndex(where: { $0.ticket == ticket }) else {
                state.givenUp.insert(ticket)
                return nil
            }
            return state.waiters.remove(at: index).continuation
        }
        waiter?.resume(returning: false)
    }
}
