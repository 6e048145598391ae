// SPDX-License-Identifier: Apache-2.0
internal import Dispatch

/// Runs work that blocks (file trees, archives, logs) on Dispatch's threads instead of the cooperative pool's.
enum Blocking {
    private static let queue = DispatchQueue(label: "hivemind.blocking", qos: .utility, attributes: .concurrent)

    static func run<Value: Sendable>(_ work: @escaping @Sendable () -> Value) async -> Value {
        await withCheckedContinuation { continuation in
            queue.async { continuation.resume(returning: work()) }
        }
    }
}
