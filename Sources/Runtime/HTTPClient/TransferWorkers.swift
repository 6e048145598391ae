// SPDX-License-Identifier: Apache-2.0
internal import CCurl
internal import Glibc
internal import Synchronization

struct TransferSettings: Sendable {
    var caBundle: String?
    var userAgent: String
}

/// Threads that carry out transfers, one at a time each. An idle one waits in libcurl's poll, keeping its
/// connections, and ends after `idleMilliseconds`.
final class TransferWorkers: Sendable {
    private struct State {
        var pending: [Transfer] = []
        var workers = 0
        nonisolated(unsafe) var idle: [UnsafeMutableRawPointer] = []
    }

    private static let pendingMax = 1024
    private static let idleMilliseconds: Int32 = 10_000

    private let settings: TransferSettings
    private let workersMax: Int
    private let state = Mutex(State())

    init(settings: TransferSettings, workersMax: Int) {
        self.settings = settings
        self.workersMax = max(1, workersMax)
    }

    func submit(_ transfer: Transfer) {
        enum Step { case done, full, startWorker }
        let step = state.withLock { state -> Step in
            guard state.pending.count < Self.pendingMax else { return .full }
            state.pending.append(transfer)
            if let multi = state.idle.popLast() {
                _ = hm_multi_wakeup(multi)
                return .done
            }
            guard state.workers < workersMax else { return .done }
            state.workers += 1
            return .startWorker
        }
        switch step {
        case .done: break
        case .full:
            transfer.finish(
                .failure(
                    HTTPError(
                        code: .timeout, message: "\(Self.pendingMax) requests are waiting already",
                        hint: "try again when some of them have finished")))
        case .startWorker: startWorker()
        }
    }

    private func startWorker() {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self)
        let status = pthread_create(
            &thread, &attributes,
            { context in
                guard let context else { return nil }
                Unmanaged<TransferWorkers>.fromOpaque(context).takeRetainedValue().work()
                return nil
            }, context.toOpaque())
        guard status != 0 else { return }
        context.release()
        let message = "no thread for a request: \(String(cString: strerror(status)))"
        failAll(HTTPError(code: .couldNotConnect, message: message, hint: "raise the limit of processes"))
    }

    /// The whole life of one thread.
    private func work() {
        // Signals are for the main thread; a broken pipe shows as an error code.
        var all = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_BLOCK, &all, nil)
        if let reason = hm_curl_load() {
            failAll(CurlErrors.libraryMissing(String(cString: reason)))
            return
        }
        guard let multi = hm_multi_init(), let easy = hm_easy_init() else {
            failAll(HTTPError(code: .libraryMissing, message: "libcurl cannot start: out of memory"))
            return
        }
        defer {
            hm_easy_cleanup(easy)
            hm_multi_cleanup(multi)
        }
        while let transfer = takeNext(multi) {
            Exchange(transfer: transfer, settings: settings).run(easy: easy, multi: multi)
        }
    }

    /// The next transfer, or nil when none came for the idle time (the worker is then counted out).
    private func takeNext(_ multi: UnsafeMutableRawPointer) -> Transfer? {
        nonisolated(unsafe) let multi = multi
        let deadline = ContinuousClock.now + .milliseconds(Int64(Self.idleMilliseconds))
        while true {
            let isOver = ContinuousClock.now >= deadline
            let (next, isOut) = state.withLock { state -> (Transfer?, Bool) in
                state.idle.removeAll { $0 == multi }
                if !state.pending.isEmpty { return (state.pending.removeFirst(), false) }
                if isOver {
                    state.workers -= 1
                    return (nil, true)
                }
                state.idle.append(multi)
                return (nil, false)
            }
            if next != nil || isOut { return next }
            _ = hm_multi_poll(multi, Self.idleMilliseconds)
        }
    }

    private func failAll(_ error: HTTPError) {
        let pending = state.withLock { state in
            defer { state.pending = [] }
            state.workers -= 1
            return state.pending
        }
        for transfer in pending { transfer.finish(.failure(error)) }
    }
}
