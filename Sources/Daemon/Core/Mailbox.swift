// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// What others ask of one thread: many put, one waits, whoever takes gets everything at once, in order.
///
/// Unbounded by itself; whoever lets the outside fill it looks at `count` first.
final class Mailbox<Item: Sendable>: Sendable {
    private struct Contents {
        var items: [Item] = []
        var isClosed = false
        /// Something among the items cannot wait.
        var isUrgent = false
        /// The thread is to look around, whatever there is.
        var isNudged = false
        /// The thread sleeps, or is about to.
        var isAwaited = false
        /// It does not want to be woken for what can wait.
        var isPatient = false

        func endsWait(_ isPatient: Bool) -> Bool {
            isClosed || isNudged || (isPatient ? isUrgent : !items.isEmpty)
        }

        /// Whether the thread has to be woken: whoever is first does, the others ride along.
        mutating func wakes() -> Bool {
            guard isAwaited, endsWait(isPatient) else { return false }
            isAwaited = false
            return true
        }
    }

    private let contents = Mutex(Contents())
    private let signal = Signal()

    var count: Int { contents.withLock { $0.items.count } }

    /// - Parameter canWait: wakes nobody who asked to be left alone; taken with whatever comes next.
    func put(_ item: Item, canWait: Bool = false) {
        change { contents in
            contents.items.append(item)
            if !canWait { contents.isUrgent = true }
        }
    }

    /// Ends a wait, now or the next.
    func nudge() { change { $0.isNudged = true } }

    /// No more waiting from here on.
    func close() { change { $0.isClosed = true } }

    private func change(_ body: (inout Contents) -> Void) {
        let wakes = contents.withLock { contents in
            body(&contents)
            return contents.wakes()
        }
        if wakes { signal.raise() }
    }

    /// Returns when there is something to take, or nothing more will come, or the time is over; sometimes for nothing.
    /// - Parameter isPatient: what can wait does not end the waiting.
    func wait(milliseconds: Int64, isPatient: Bool = false) {
        let sleeps = contents.withLock { contents in
            guard milliseconds > 0, !contents.endsWait(isPatient) else {
                contents.isNudged = false
                return false
            }
            contents.isAwaited = true
            contents.isPatient = isPatient
            return true
        }
        guard sleeps else { return }
        signal.wait(milliseconds: milliseconds)
        contents.withLock { contents in
            contents.isAwaited = false
            contents.isNudged = false
        }
    }

    /// Everything there is. `isClosed` with no items: nothing more comes.
    func takeAll() -> (items: [Item], isClosed: Bool) {
        contents.withLock { contents in
            defer {
                contents.items = []
                contents.isUrgent = false
            }
            return (contents.items, contents.isClosed)
        }
    }

    /// `takeAll` after `wait`.
    func take(waitMilliseconds: Int64) -> (items: [Item], isClosed: Bool) {
        wait(milliseconds: waitMilliseconds)
        return takeAll()
    }
}
