// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model
internal import Synchronization

/// Runs work that waits for the disk on a thread that ends with it, so that a slow disk holds up nobody else.
enum BlockingThread {
    /// At once in the process; a disk that hangs must not eat all threads.
    static let threadsMax = 64
    private static let running = Mutex(0)

    /// - Parameter after: runs on the same thread when the caller has its answer already.
    /// - Throws: what `work` throws; `volumeFailed` with EAGAIN when there is no thread to be had.
    static func run<Value: Sendable>(
        _ work: @escaping @Sendable () throws(VolumeError) -> Value, after: @escaping @Sendable () -> Void = {}
    ) async throws(VolumeError) -> Value {
        let isFree = running.withLock { count in
            guard count < threadsMax else { return false }
            count += 1
            return true
        }
        guard isFree else {
            throw VolumeError(
                .volumeFailed, "\(threadsMax) operations on volumes wait for the disk already",
                hint: "check the disk, then try again", errno: EAGAIN)
        }
        let result: Result<Value, VolumeError> = await withCheckedContinuation { continuation in
            let status = start {
                continuation.resume(returning: Result { () throws(VolumeError) in try work() })
                after()
                running.withLock { $0 -= 1 }
            }
            guard status != 0 else { return }
            running.withLock { $0 -= 1 }
            continuation.resume(returning: .failure(VolumeError.system("start a thread for", "volumes", errno: status)))
        }
        return try result.get()
    }

    private final class Box {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// - Returns: 0, or the errno with which no thread was started.
    private static func start(_ body: @escaping @Sendable () -> Void) -> Int32 {
        let box = Unmanaged.passRetained(Box(body))
        var thread = pthread_t()
        let status = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body()
                return nil
            }, box.toOpaque())
        if status == 0 { pthread_detach(thread) } else { box.release() }
        return status
    }
}
