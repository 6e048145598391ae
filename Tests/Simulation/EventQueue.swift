// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// What happens next in a simulated cluster. Those that belong to one run of a member carry its `life` and are void when
/// it has ended.
enum Event {
    case tick(Member, life: Int)
    /// The member takes what is in its inbox.
    case run(Member, life: Int)
    /// The disk has done what it was busy with.
    case disk(Member, life: Int)
    case apply(Member, life: Int)
    case restart(Member)
    case deliver(Message)
    case chunk(stream: Int)
    case stall(stream: Int)
    /// A client has thought, or has waited long enough.
    case client(Int, attempt: Int)
    case request(Request)
    case reply(Request, Reply)
    case watch(Int)
    /// What one member's state was at an index reaches another.
    case digest(from: MemberID, to: MemberID, index: UInt64, [UInt8])
    /// A member that knows its state to be wrong asks for another.
    case replace(Member, life: Int)
    /// The leader proposes that all members compare their states.
    case compare
    /// A state goes wrong somewhere.
    case rotState
    /// One more proposal to whoever leads, until then.
    case load(until: UInt64)
    case operate
    case fault
    case fall(Member, life: Int)
    case silence(Member, partition: Int, until: UInt64)
    case heal(partition: Int)
}

/// Events by time; those of one moment in the order they were put.
struct EventQueue<Event> {
    private struct Item {
        var time: UInt64
        var sequence: UInt64
        var event: Event

        func isBefore(_ other: Item) -> Bool {
            time < other.time || time == other.time && sequence < other.sequence
        }
    }

    private var heap: [Item] = []
    private var sequence: UInt64 = 0

    mutating func put(_ event: Event, at time: UInt64) {
        sequence += 1
        heap.append(Item(time: time, sequence: sequence, event: event))
        var place = heap.count - 1
        while place > 0, heap[place].isBefore(heap[(place - 1) / 2]) {
            heap.swapAt(place, (place - 1) / 2)
            place = (place - 1) / 2
        }
    }

    var nextTime: UInt64? { heap.first?.time }

    mutating func take() -> (time: UInt64, event: Event)? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            sink()
        }
        return (first.time, first.event)
    }

    private mutating func sink() {
        var place = 0
        while true {
            var least = place
            for child in [2 * place + 1, 2 * place + 2] where child < heap.count {
                if heap[child].isBefore(heap[least]) { least = child }
            }
            guard least != place else { return }
            heap.swapAt(place, least)
            place = least
        }
    }
}
