// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// What others ask of one thread: many put, one takes everything at once, in order.
///
/// Unbounded by itself; whoever lets the outside fill it looks at `count` first.
final class Mailbox<Item: Sendable>: Sendable {
    private struct Contents {
        var items: [Item] = []
        var isClosed = false
    }

    private let contents = Mutex(Contents())
    private let signal = Signal()

    var count: Int { contents.withLock { $0.items.count } }

    func put(_ item: Item) {
        let wasEmpty = contents.withLock { contents in
            defer { contents.items.append(item) }
            return contents.items.isEmpty
        }
        // Whoever finds it empty wakes the thread; the others ride along.
        if wasEmpty { signal.raise() }
    }

    /// No more waiting: `take` returns at once from here on.
    func close() {
        contents.withLock { $0.isClosed = true }
        signal.raise()
    }

    /// Everything there is; waits that long for the first. `isClosed` with no items: nothing more comes.
    func take(waitMilliseconds: Int64) -> (items: [Item], isClosed: Bool) {
        let first = takeNow()
        guard first.items.isEmpty, !first.isClosed, waitMilliseconds > 0 else { return first }
        signal.wait(milliseconds: waitMilliseconds)
        return takeNow()
    }

    private func takeNow() -> (items: [Item], isClosed: Bool) {
        contents.withLock { contents in
            defer { contents.items = [] }
            return (contents.items, contents.isClosed)
        }
    }
}
