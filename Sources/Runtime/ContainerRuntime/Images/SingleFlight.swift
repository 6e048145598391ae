// SPDX-License-Identifier: Apache-2.0

/// Runs one piece of work per key at a time; who asks while it runs gets its result. The work is cancelled when
/// everybody who waits for it was.
actor SingleFlight {
    private struct Flight {
        var task: Task<Void, any Error>
        var waiters: Int
        var number: Int
    }

    private var flights: [String: Flight] = [:]
    private var count = 0

    func run(_ key: String, _ work: @escaping @Sendable () async throws -> Void) async throws {
        let task: Task<Void, any Error>
        let number: Int
        if let flight = flights[key], !flight.task.isCancelled {
            flights[key]?.waiters += 1
            (task, number) = (flight.task, flight.number)
        } else {
            count += 1
            (task, number) = (Task { try await work() }, count)
            flights[key] = Flight(task: task, waiters: 1, number: number)
        }
        defer { if flights[key]?.number == number { flights[key] = nil } }
        try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            Task { await self.leave(key, number) }
        }
    }

    private func leave(_ key: String, _ number: Int) {
        guard var flight = flights[key], flight.number == number else { return }
        flight.waiters -= 1
        if flight.waiters == 0 { flight.task.cancel() }
        flights[key] = flight
    }
}

/// Runs `work`, cancelling it and throwing `error` when it takes longer than `limit`.
func withDeadline<Value: Sendable>(
    _ limit: Duration,
    _ error: @autoclosure () -> any Error,
    _ work: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    try await withThrowingTaskGroup(of: Value?.self) { group in
        group.addTask { try await work() }
        group.addTask {
            try await Task.sleep(for: limit)
            return nil
        }
        defer { group.cancelAll() }
        guard let first = try await group.next(), let value = first else { throw error() }
        return value
    }
}
