// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// A flag one thread raises and another waits for, with a deadline.
///
/// `@unchecked Sendable`: every access to `raised` is under the pthread mutex, both of which live as long as the object.
final class Signal: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var raised = false

    init() {
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func raise() {
        pthread_mutex_lock(mutex)
        raised = true
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
    }

    /// Returns when raised, and lowers the flag, or when the time is over.
    func wait(milliseconds: Int64) {
        var until = timespec()
        clock_gettime(CLOCK_MONOTONIC, &until)
        let nanoseconds = Int64(until.tv_nsec) + milliseconds % 1000 * 1_000_000
        until.tv_sec += Int(milliseconds / 1000 + nanoseconds / 1_000_000_000)
        until.tv_nsec = Int(nanoseconds % 1_000_000_000)
        pthread_mutex_lock(mutex)
        while !raised, pthread_cond_timedwait(condition, mutex, &until) == 0 {}
        raised = false
        pthread_mutex_unlock(mutex)
    }

    func wait(seconds: Int64) { wait(milliseconds: seconds * 1000) }
}

/// A thread for work that blocks.
enum Thread {
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    static func spawn(_ run: @escaping @Sendable () -> Void) {
        let box = Unmanaged.passRetained(Body(run)).toOpaque()
        var thread = pthread_t()
        let status = pthread_create(
            &thread, nil,
            { pointer in
                guard let pointer else { return nil }
                let body = Unmanaged<Body>.fromOpaque(pointer).takeRetainedValue()
                body.run()
                return nil
            }, box)
        precondition(status == 0, "no thread: errno \(status)")
        pthread_detach(thread)
    }
}
