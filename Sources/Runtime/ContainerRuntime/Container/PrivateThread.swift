// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import Glibc
internal import Model

/// Runs blocking work on a thread of its own, with a mount table, root and working directory of its own: what is
/// mounted there nobody else sees, and it is gone when the thread ends, whatever happens.
enum PrivateThread {
    static func run<Value: Sendable>(
        _ work: @escaping @Sendable () throws(RuntimeError) -> Value
    ) async throws(RuntimeError) -> Value {
        let result: Result<Value, RuntimeError> = await withCheckedContinuation { continuation in
            start {
                let status = hm_unshare_mounts()
                guard status == 0 else {
                    let text = String(cString: strerror(-status))
                    return continuation.resume(
                        returning: .failure(
                            RuntimeError(
                                .internal, "cannot make a mount namespace: \(text)", hint: "run the daemon as root")))
                }
                continuation.resume(returning: Result { () throws(RuntimeError) in try work() })
            } failed: { status in
                continuation.resume(
                    returning: .failure(
                        RuntimeError(.internal, "cannot start a thread: \(String(cString: strerror(status)))")))
            }
        }
        return try result.get()
    }

    private final class Box {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    private static func start(_ body: @escaping @Sendable () -> Void, failed: (Int32) -> Void) {
        let box = Unmanaged.passRetained(Box(body))
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        defer { pthread_attr_destroy(&attributes) }
        var thread = pthread_t()
        let status = pthread_create(
            &thread, &attributes,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body()
                return nil
            }, box.toOpaque())
        if status != 0 {
            box.release()
            failed(status)
        }
    }
}
