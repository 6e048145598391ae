// SPDX-License-Identifier: Apache-2.0

/// One operation on one register as its client saw it.
public struct HistoryOperation<Value: Hashable & Sendable>: Sendable {
    /// Nil stands for "nothing there": writing it deletes.
    public enum Action: Hashable, Sendable {
        case read
        case write(Value?)
        /// Sets `new` if the register holds `expected`.
        case swap(expected: Value?, new: Value?)
    }

    public enum Result: Hashable, Sendable {
        /// The client never learnt how it ended: it may have taken effect at any time after the call, or never.
        case unknown
        case written
        case read(Value?)
        case swapped(Bool)
    }

    public var client: Int
    public var key: String
    public var action: Action
    /// In any unit, as long as it is one clock for all clients.
    public var called: UInt64
    /// Nil with `unknown`.
    public var returned: UInt64?
    public var result: Result

    public init(
        client: Int, key: String, action: Action, called: UInt64, returned: UInt64? = nil, result: Result = .unknown
    ) {
        self.client = client
        self.key = key
        self.action = action
        self.called = called
        self.returned = returned
        self.result = result
    }
}

/// Whether a history could have come from registers that do one operation at a time, each between call and return.
///
/// Sources: Wing and Gong, "Testing and Verifying Concurrent Objects", 1993; Lowe, "Testing for Linearizability", 2017
/// (memoised). Registers are independent of one another, so each key is checked alone.
public enum Linearizability {
    public enum Verdict: Hashable, Sendable {
        case linearizable
        /// No order explains the operations on this key; `detail` says how far the best one got.
        case violated(key: String, detail: String)
        /// Too many operations of unknown outcome to decide within the bound.
        case undecided(key: String)
    }

    /// - Parameter stepsMax: bound on the search for one key.
    public static func check<Value>(
        _ history: [HistoryOperation<Value>], initial: Value? = nil, stepsMax: Int = 2_000_000
    ) -> Verdict {
        var undecided: String?
        for (key, operations) in Dictionary(grouping: history, by: \.key).sorted(by: { $0.key < $1.key }) {
            var search = RegisterSearch(relevant(operations), initial: initial, stepsMax: stepsMax)
            switch search.run() {
            case .linearizable: break
            case .violated(let detail): return .violated(key: key, detail: detail)
            case .undecided: undecided = undecided ?? key
            }
        }
        return undecided.map { .undecided(key: $0) } ?? .linearizable
    }

    /// Leaves out what constrains nothing: reads nobody saw the answer of, and writes of unknown outcome whose value
    /// nobody saw, where no failed swap could be their doing. Each of them would double the search.
    private static func relevant<Value>(_ operations: [HistoryOperation<Value>]) -> [HistoryOperation<Value>] {
        var seen: Set<Value?> = []
        var failures = false
        for operation in operations {
            switch (operation.action, operation.result) {
            case (_, .read(let value)): seen.insert(value)
            case (.swap(let expected, _), .swapped(true)), (.swap(let expected, _), .unknown): seen.insert(expected)
            case (_, .swapped(false)): failures = true
            default: break
            }
        }
        return operations.filter { operation in
            guard operation.result == .unknown else { return true }
            switch operation.action {
            case .read: return false
            case .write(let value), .swap(_, let value): return failures || seen.contains(value)
            }
        }
    }
}

/// The search for an order on one register.
private struct RegisterSearch<Value: Hashable & Sendable> {
    enum Outcome {
        case linearizable
        case violated(String)
        case undecided
    }

    /// Calls and returns in a doubly linked list by time; place 0 is its head.
    private struct Node {
        var operation: Int
        var isCall: Bool
        var previous = 0
        var next = -1
        /// Of a call: where its return is.
        var partner = -1
    }

    private struct Visited: Hashable {
        var done: [UInt64]
        var value: Value?
    }

    private let operations: [HistoryOperation<Value>]
    private var nodes: [Node] = [Node(operation: -1, isCall: false)]
    private var value: Value?
    private var done: [UInt64]
    private var visited: Set<Visited> = []
    private let stepsMax: Int

    init(_ operations: [HistoryOperation<Value>], initial: Value?, stepsMax: Int) {
        self.operations = operations
        value = initial
        self.stepsMax = stepsMax
        done = [UInt64](repeating: 0, count: (operations.count + 63) / 64)
        var moments: [(time: UInt64, isReturn: Int, operation: Int)] = []
        for (number, operation) in operations.enumerated() {
            moments.append((operation.called, 0, number))
            let end = operation.result == .unknown ? UInt64.max : operation.returned ?? .max
            moments.append((end, 1, number))
        }
        moments.sort { ($0.time, $0.isReturn, $0.operation) < ($1.time, $1.isReturn, $1.operation) }
        var calls = [Int](repeating: 0, count: operations.count)
        for moment in moments {
            let place = nodes.count
            nodes.append(Node(operation: moment.operation, isCall: moment.isReturn == 0, previous: place - 1))
            nodes[place - 1].next = place
            if moment.isReturn == 0 {
                calls[moment.operation] = place
            } else {
                nodes[calls[moment.operation]].partner = place
            }
        }
    }

    mutating func run() -> Outcome {
        var path: [(call: Int, value: Value?)] = []
        var best = 0
        var stuck = -1
        var steps = 0
        var place = nodes[0].next
        while nodes[0].next >= 0 {
            steps += 1
            if steps > stepsMax { return .undecided }
            if nodes[place].isCall {
                let number = nodes[place].operation
                if let after = effect(of: operations[number]) {
                    done[number / 64] |= 1 << UInt64(number % 64)
                    if visited.insert(Visited(done: done, value: after.value)).inserted {
                        path.append((place, value))
                        value = after.value
                        lift(place)
                        place = nodes[0].next
                        continue
                    }
                    done[number / 64] &= ~(1 << UInt64(number % 64))
                }
                place = nodes[place].next
            } else {
                if path.count >= best {
                    best = path.count
                    stuck = nodes[place].operation
                }
                guard let last = path.popLast() else {
                    return .violated(
                        "\(best) of \(operations.count) operations can be put in order, then \(operations[stuck]) fits nowhere"
                    )
                }
                let number = nodes[last.call].operation
                done[number / 64] &= ~(1 << UInt64(number % 64))
                value = last.value
                unlift(last.call)
                place = nodes[last.call].next
            }
        }
        return .linearizable
    }

    /// What the register holds afterwards; nil when the operation cannot have ended so here.
    private func effect(of operation: HistoryOperation<Value>) -> (value: Value?, Void)? {
        switch (operation.action, operation.result) {
        case (.read, .read(let seen)): seen == value ? (value, ()) : nil
        case (.read, _): (value, ())
        case (.write(let new), _): (new, ())
        case (.swap(let expected, let new), .swapped(true)): expected == value ? (new, ()) : nil
        case (.swap(let expected, _), .swapped(false)): expected == value ? nil : (value, ())
        case (.swap(let expected, let new), _): (expected == value ? new : value, ())
        }
    }

    private mutating func lift(_ call: Int) {
        for place in [call, nodes[call].partner] {
            nodes[nodes[place].previous].next = nodes[place].next
            if nodes[place].next >= 0 { nodes[nodes[place].next].previous = nodes[place].previous }
        }
    }

    private mutating func unlift(_ call: Int) {
        for place in [nodes[call].partner, call] {
            nodes[nodes[place].previous].next = place
            if nodes[place].next >= 0 { nodes[nodes[place].next].previous = place }
        }
    }
}
