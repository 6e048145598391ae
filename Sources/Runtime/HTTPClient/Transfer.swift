// SPDX-License-Identifier: Apache-2.0
internal import CCurl
internal import Synchronization

/// What a worker thread and a waiting task share about one request.
///
/// The worker delivers head, bytes and the end; the task takes them. Between them wait at most `bufferBytesMax` bytes
/// plus one callback's worth: above it the worker pauses libcurl until the task has taken what is there.
final class Transfer: Sendable {
    struct Head: Sendable {
        var status: Int
        var headers: HTTPHeaders
        var url: String
    }

    private struct State {
        /// The libcurl handle of the worker while it works on this transfer; only ever used to wake it up.
        nonisolated(unsafe) var multi: UnsafeMutableRawPointer?
        var head: Head?
        var buffer: [UInt8] = []
        var isPaused = false
        var wantsResume = false
        var isAborted = false
        var end: Result<Void, HTTPError>?
        var waiter: CheckedContinuation<Void, Never>?

        mutating func takeWaiter() -> CheckedContinuation<Void, Never>? {
            defer { waiter = nil }
            return waiter
        }
    }

    static let bufferBytesMax = 1 << 20

    let request: HTTPRequest
    private let state = Mutex(State())

    init(_ request: HTTPRequest) { self.request = request }

    // MARK: The consuming task

    func waitForHead() async throws(HTTPError) -> Head {
        while true {
            let found: Result<Head, HTTPError>? = state.withLock { state in
                if state.isAborted { return .failure(.cancelled) }
                if let head = state.head { return .success(head) }
                if case .failure(let error) = state.end { return .failure(error) }
                return nil
            }
            if let found { return try found.get() }
            await change { $0.head != nil }
        }
    }

    /// The next bytes, or nil at the end.
    func next() async throws(HTTPError) -> [UInt8]? {
        while true {
            let found: Result<[UInt8]?, HTTPError>? = state.withLock { state in
                if state.isAborted { return .failure(.cancelled) }
                if !state.buffer.isEmpty {
                    let bytes = state.buffer
                    state.buffer = []
                    if state.isPaused {
                        state.isPaused = false
                        state.wantsResume = true
                        if let multi = state.multi { _ = hm_multi_wakeup(multi) }
                    }
                    return .success(bytes)
                }
                return state.end.map { $0.map { nil } }
            }
            if let found { return try found.get() }
            await change { !$0.buffer.isEmpty }
        }
    }

    /// Ends the transfer; a waiting task gets `.cancelled` without waiting for the worker.
    func abort() {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard state.end == nil, !state.isAborted else { return nil }
            state.isAborted = true
            if let multi = state.multi { _ = hm_multi_wakeup(multi) }
            return state.takeWaiter()
        }
        waiter?.resume()
    }

    private func change(_ isThere: @Sendable (borrowing State) -> Bool) async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isDue = state.withLock { state in
                    if state.isAborted || state.end != nil || isThere(state) { return true }
                    state.waiter = continuation
                    return false
                }
                if isDue { continuation.resume() }
            }
        } onCancel: {
            abort()
        }
    }

    // MARK: The worker

    /// False when the transfer was aborted before it began.
    func attach(_ multi: UnsafeMutableRawPointer) -> Bool {
        nonisolated(unsafe) let multi = multi
        return state.withLock { state in
            guard !state.isAborted else { return false }
            state.multi = multi
            return true
        }
    }

    var isAborted: Bool { state.withLock { $0.isAborted } }
    var isPaused: Bool { state.withLock { $0.isPaused } }

    func takeResume() -> Bool {
        state.withLock { state in
            defer { state.wantsResume = false }
            return state.wantsResume
        }
    }

    func deliver(_ head: Head) {
        state.withLock { state in
            state.head = head
            return state.takeWaiter()
        }?.resume()
    }

    /// False when the buffer is full: the same bytes have to be offered again.
    func deliver(_ bytes: UnsafeRawBufferPointer) -> Bool {
        nonisolated(unsafe) let bytes = bytes
        let (taken, waiter) = state.withLock { state -> (Bool, CheckedContinuation<Void, Never>?) in
            if state.buffer.count >= Self.bufferBytesMax {
                state.isPaused = true
                return (false, nil)
            }
            state.buffer.append(contentsOf: bytes)
            return (true, state.takeWaiter())
        }
        waiter?.resume()
        return taken
    }

    /// The last call of the worker.
    func finish(_ result: Result<Void, HTTPError>) {
        state.withLock { state in
            state.multi = nil
            if state.end == nil { state.end = result }
            return state.takeWaiter()
        }?.resume()
    }
}

/// Aborts the transfer when nobody can read it any more.
final class TransferGuard: Sendable {
    let transfer: Transfer
    init(_ transfer: Transfer) { self.transfer = transfer }
    deinit { transfer.abort() }
}
