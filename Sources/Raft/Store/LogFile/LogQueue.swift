// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Raft

/// Bounded queue between many callers and the log thread, and that thread's start and end.
///
/// `@unchecked Sendable`: every mutable property is read and written only while `mutex` is held; mutex and condition live
/// at fixed addresses from `init` to `deinit`.
final class LogQueue: @unchecked Sendable {
    enum Job: Sendable {
        case write(Write, bytes: Int)
        case read(Range<UInt64>, bytesMax: Int, @Sendable (Result<[Entry], LogError>) -> Void)
        case compact(UInt64)
        case reset(LogPosition, @Sendable (Result<Void, LogError>) -> Void)
        case giveUpBallast
    }

    /// Jobs waiting at once.
    static let jobsMax = 65_536

    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let bytesMax: Int
    private var jobs: [Job] = []
    /// Of writes queued or being written.
    private var bytes = 0
    private var refusal: LogError?
    private var isClosed = false
    private var isRunning = false

    init(bytesMax: Int) {
        self.bytesMax = bytesMax
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(changed, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(changed)
        pthread_mutex_destroy(mutex)
        changed.deallocate()
        mutex.deallocate()
    }

    /// Runs `body` on a thread of its own; it ends when `take` returns nil.
    func start(_ body: @escaping @Sendable () -> Void) throws(LogError) {
        isRunning = true
        let work = Unmanaged.passRetained(
            ThreadBody { [self] in
                body()
                locked { isRunning = false }
            })
        var thread = pthread_t()
        let status = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                Unmanaged<ThreadBody>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, work.toOpaque())
        guard status == 0 else {
            work.release()
            isRunning = false
            throw LogError(.failed, "cannot start the log thread", hint: "raise the limit on threads", status: status)
        }
        pthread_detach(thread)
    }

    func put(_ job: Job) throws(LogError) {
        try locked { () throws(LogError) in
            if let refusal { throw refusal }
            if isClosed { throw LogError(.closed, "the log is shut down") }
            var size = 0
            if case .write(_, let bytes) = job { size = bytes }
            // One write is always let in, whatever its size.
            guard jobs.count < Self.jobsMax, bytes == 0 || bytes + size <= bytesMax else {
                throw LogError(.queueFull, "\(bytes) bytes in \(jobs.count) jobs wait for the log")
            }
            bytes += size
            jobs.append(job)
        }
    }

    /// All jobs that came since the last time; waits for one, or for that long (nil: for ever) and then gives none. Nil
    /// when closed and empty.
    /// - Parameter idle: called without the lock before each wait, and between batches; true asks to be called again.
    func take(milliseconds: Int?, idle: () -> Bool) -> [Job]? {
        var more = idle()
        let until = milliseconds.map { Self.time(in: $0) }
        while true {
            var isLate = false
            let taken = locked { () -> [Job]? in
                while jobs.isEmpty, !isClosed, !more, !isLate {
                    guard var until else {
                        pthread_cond_wait(changed, mutex)
                        continue
                    }
                    isLate = pthread_cond_timedwait(changed, mutex, &until) == ETIMEDOUT
                }
                defer { jobs = [] }
                return jobs.isEmpty && isClosed ? nil : jobs
            }
            guard let taken else { return nil }
            if !taken.isEmpty || isLate { return taken }
            more = idle()
        }
    }

    private static func time(in milliseconds: Int) -> timespec {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        let nanoseconds = time.tv_nsec + milliseconds % 1_000 * 1_000_000
        time.tv_sec += milliseconds / 1_000 + nanoseconds / 1_000_000_000
        time.tv_nsec = nanoseconds % 1_000_000_000
        return time
    }

    static var nowMilliseconds: Int { nowMicroseconds / 1_000 }

    static var nowMicroseconds: Int {
        let now = time(in: 0)
        return now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
    }

    func release(_ count: Int) {
        locked { bytes -= count }
    }

    /// From now on every `put` throws this.
    func refuse(_ error: LogError) {
        locked { refusal = error }
    }

    /// Lets the thread finish what is queued and waits for its end.
    func close() {
        locked {
            isClosed = true
            pthread_cond_broadcast(changed)
            while isRunning { pthread_cond_wait(changed, mutex) }
        }
    }

    /// Lets the thread finish what is queued; does not wait.
    func end() {
        locked { isClosed = true }
    }

    private func locked<Value, Failure: Error>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value {
        pthread_mutex_lock(mutex)
        defer {
            pthread_cond_broadcast(changed)
            pthread_mutex_unlock(mutex)
        }
        return try body()
    }
}

private final class ThreadBody: Sendable {
    let run: @Sendable () -> Void

    init(_ run: @escaping @Sendable () -> Void) {
        self.run = run
    }
}
