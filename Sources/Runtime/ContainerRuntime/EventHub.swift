// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Synchronization

/// Hands exits to everyone who listens, and remembers them while a container's record stands.
final class EventHub: Sendable {
    private struct Subscriber {
        var continuation: AsyncStream<RuntimeEvent>.Continuation
        /// Something did not fit: it has to list again.
        var hasLost = false
    }

    private struct State {
        var nextToken: UInt64 = 0
        var subscribers: [UInt64: Subscriber] = [:]
        var waiters: [UInt64: (id: ContainerID, continuation: CheckedContinuation<Void, Never>)] = [:]
        var outOfMemory: Set<ContainerID> = []
        var exits: [ContainerID: ExitStatus] = [:]
        var isFinished = false
    }

    /// Events a slow listener may be behind.
    private static let bufferEventsMax = 1024
    /// Containers remembered; older knowledge is in containerd.
    private static let rememberedMax = 8192

    private let state = Mutex(State())

    func subscribe() -> AsyncStream<RuntimeEvent> {
        AsyncStream(bufferingPolicy: .bufferingOldest(Self.bufferEventsMax)) { continuation in
            let token: UInt64? = state.withLock { state in
                guard !state.isFinished else { return nil }
                state.nextToken += 1
                state.subscribers[state.nextToken] = Subscriber(continuation: continuation)
                return state.nextToken
            }
            guard let token else { return continuation.finish() }
            continuation.onTermination = { [weak self] _ in
                _ = self?.state.withLock { $0.subscribers.removeValue(forKey: token) }
            }
        }
    }

    func resync() { publish(.resync) }

    func noteOutOfMemory(_ id: ContainerID) {
        state.withLock { state in
            if state.outOfMemory.count >= Self.rememberedMax { state.outOfMemory = [] }
            state.outOfMemory.insert(id)
        }
    }

    func noteExit(_ id: ContainerID, _ status: ExitStatus) {
        let waiters = state.withLock { state in
            if state.exits.count >= Self.rememberedMax { state.exits = [:] }
            state.exits[id] = status
            let found = state.waiters.filter { $0.value.id == id }
            for token in found.keys { state.waiters[token] = nil }
            return found.values.map(\.continuation)
        }
        for waiter in waiters { waiter.resume() }
        publish(.exited(id, status))
    }

    func wasOutOfMemory(_ id: ContainerID) -> Bool { state.withLock { $0.outOfMemory.contains(id) } }

    func forget(_ id: ContainerID) {
        state.withLock { state in
            state.exits[id] = nil
            state.outOfMemory.remove(id)
        }
    }

    /// Returns at the exit of `id`, at once when it was seen already, or after `limit`.
    func waitForExit(_ id: ContainerID, atMost limit: Duration) async {
        let token = state.withLock { state in
            state.nextToken += 1
            return state.nextToken
        }
        let clock = Task {
            try? await Task.sleep(for: limit)
            self.wake(token)
        }
        defer { clock.cancel() }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state in
                    if state.exits[id] != nil || state.isFinished || Task.isCancelled { return true }
                    state.waiters[token] = (id, continuation)
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            wake(token)
        }
    }

    func finish() {
        let (subscribers, waiters) = state.withLock { state in
            state.isFinished = true
            defer {
                state.subscribers = [:]
                state.waiters = [:]
            }
            return (state.subscribers.values.map(\.continuation), state.waiters.values.map(\.continuation))
        }
        for waiter in waiters { waiter.resume() }
        for subscriber in subscribers { subscriber.finish() }
    }

    private func wake(_ token: UInt64) {
        state.withLock { $0.waiters.removeValue(forKey: token) }?.continuation.resume()
    }

    private func publish(_ event: RuntimeEvent) {
        // Yielding outside the lock: a terminated stream calls back into it.
        for (token, subscriber) in state.withLock({ $0.subscribers }) {
            var hasLost = subscriber.hasLost
            if hasLost, case .enqueued = subscriber.continuation.yield(.resync) { hasLost = false }
            if case .dropped = subscriber.continuation.yield(event) { hasLost = true }
            if hasLost != subscriber.hasLost { state.withLock { $0.subscribers[token]?.hasLost = hasLost } }
        }
    }
}
