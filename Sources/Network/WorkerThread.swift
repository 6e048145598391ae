// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import Glibc
internal import Synchronization

/// Plain threads. `setns` and `unshare` change the thread they are called on, so they only ever happen on threads made
/// here: a pool's thread would carry the namespace into unrelated work.
enum Threads {
    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    private final class Outcome<Value: Sendable>: Sendable {
        let result = Mutex<Result<Value, NetworkError>?>(nil)
    }

    /// Starts a thread; the caller joins or detaches it.
    static func start(_ body: @escaping @Sendable () -> Void) throws(NetworkError) -> pthread_t {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(Body(body))
        let status = pthread_create(
            &thread,
            nil,
            { context in
                guard let context else { return nil }
                Unmanaged<Body>.fromOpaque(context).takeRetainedValue().run()
                return nil
            },
            context.toOpaque()
        )
        guard status == 0 else {
            context.release()
            throw .system("cannot start a thread", errno: status)
        }
        return thread
    }

    /// Runs `body` on a thread that ends with it, and waits. About 20 µs.
    static func run<Value: Sendable>(
        _ body: @escaping @Sendable () throws(NetworkError) -> Value
    ) throws(NetworkError) -> Value {
        let outcome = Outcome<Value>()
        let thread = try start {
            let result: Result<Value, NetworkError>
            do throws(NetworkError) { result = .success(try body()) } catch { result = .failure(error) }
            outcome.result.withLock { $0 = result }
        }
        pthread_join(thread, nil)
        guard let result = outcome.result.withLock({ $0 }) else {
            throw NetworkError(.kernel, "a thread ended without a result")
        }
        return try result.get()
    }
}

extension Threads {
    /// Runs `body`, which may block for as long as it likes, on a thread that ends with it.
    static func runAside<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            do { pthread_detach(try start { continuation.resume(returning: body()) }) } catch {
                continuation.resume(throwing: error)
            }
        }
    }
}

/// Executor of the engine: one thread for its whole life, so that netlink sockets and the rule context, which belong
/// to the namespace of the thread that made them and may not be used by two at once, have one owner.
final class WorkerThread: SerialExecutor {
    private let queue = JobQueue()

    /// - Parameter namespacePath: network namespace to work in; nil stays in the process's own.
    init(namespacePath: String?) throws(NetworkError) {
        let queue = queue
        let executor = UnownedSerialExecutor(ordinary: self)
        let thread = try Threads.start {
            if let namespacePath {
                do throws(NetworkError) { try NetworkNamespace.enter(namespacePath) } catch { queue.refuse(error) }
            }
            queue.run(on: executor)
        }
        pthread_detach(thread)
    }

    deinit { queue.stop() }

    func enqueue(_ job: consuming ExecutorJob) { queue.append(UnownedJob(job)) }
    func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

    /// Set when the thread could not enter its namespace: nothing may be done then, it would hit the wrong one.
    /// To be asked from a job of this executor.
    var refusal: NetworkError? { queue.refusal }
}

/// Jobs waiting for the worker. Bounded by the callers: each waits for its own job.
///
/// `@unchecked`: every access to `jobs`, `stopped` and `refusal` happens with `mutex` held.
private final class JobQueue: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let arrived = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var jobs: [UnownedJob] = []
    private var stopped = false
    private var failure: NetworkError?

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(arrived, nil)
    }

    deinit {
        pthread_cond_destroy(arrived)
        pthread_mutex_destroy(mutex)
        arrived.deallocate()
        mutex.deallocate()
    }

    private func locked<Value>(_ body: () -> Value) -> Value {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body()
    }

    var refusal: NetworkError? { locked { failure } }
    func refuse(_ error: NetworkError) { locked { failure = error } }

    func append(_ job: UnownedJob) {
        locked {
            jobs.append(job)
            pthread_cond_signal(arrived)
        }
    }

    func stop() {
        locked {
            stopped = true
            pthread_cond_signal(arrived)
        }
    }

    /// Until `stop`. A job keeps its actor and with it the executor alive, so none is left when `stop` is called.
    func run(on executor: UnownedSerialExecutor) {
        while true {
            let batch = locked { () -> [UnownedJob]? in
                while jobs.isEmpty && !stopped { pthread_cond_wait(arrived, mutex) }
                defer { jobs = [] }
                return jobs.isEmpty ? nil : jobs
            }
            guard let batch else { return }
            for job in batch { job.runSynchronously(on: executor) }
        }
    }
}
