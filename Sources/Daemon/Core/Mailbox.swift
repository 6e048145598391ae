// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// What others ask of one thread: many put, one takes everything at once, in order.
///
/// Unbounded by itself; whoever lets the outside fill it looks at `count` first.
final class Mailbox<Item: Sendable>: Sendable {
    private struct Contents {
        var items: [Item] = []
        var isClosed = false
        /// The thread is awake or about to be, and looks again before it sleeps.
        var isSignalled = false
        /// The thread sleeps and does not want to be woken for what can wait.
        var isPatient = false
    }

    private let contents = Mutex(Contents())
    private let signal = Signal()

    var count: Int { contents.withLock { $0.items.count } }

    /// - Parameter canWait: wakes nobody who asked to be left alone; taken with whatever comes next.
    func put(_ item: Item, canWait: Bool = false) {
        let wakes = contents.withLock { contents in
            contents.items.append(item)
            // Whoever comes first wakes the thread; the others ride along.
            guard !contents.isSignalled, !(canWait && contents.isPatient) else { return false }
            contents.isSignalled = true
            return true
        }
        if wakes { signal.raise() }
    }

    /// No more waiting: `take` returns at once from here on.
    func close() {
        contents.withLock { $0.isClosed = true }
        signal.raise()
    }

    /// Everything there is; waits that long for the first. `isClosed` with no items: nothing more comes.
    /// - Parameter isPatient: what can wait does not end the waiting.
    func take(waitMilliseconds: Int64, isPatient: Bool = false) -> (items: [Item], isClosed: Bool) {
        let first = takeNow(isPatient: isPatient)
        guard first.items.isEmpty, !first.isClosed, waitMilliseconds > 0 else { return first }
        signal.wait(milliseconds: waitMilliseconds)
        return takeNow(isPatient: false)
    }

    private func takeNow(isPatient: Bool) -> (items: [Item], isClosed: Bool) {
        contents.withLock { contents in
            defer {
                contents.items = []
                contents.isSignalled = false
                contents.isPatient = isPatient
            }
            return (contents.items, contents.isClosed)
        }
    }
}
