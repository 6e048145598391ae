// SPDX-License-Identifier: Apache-2.0

internal import TestSupport
internal import Testing

private typealias Operation = HistoryOperation<String>

private func write(_ value: String?, _ called: UInt64, _ returned: UInt64?, key: String = "k") -> Operation {
    Operation(
        client: 1, key: key, action: .write(value), called: called, returned: returned,
        result: returned == nil ? .unknown : .written)
}

private func read(_ value: String?, _ called: UInt64, _ returned: UInt64, key: String = "k") -> Operation {
    Operation(client: 2, key: key, action: .read, called: called, returned: returned, result: .read(value))
}

private func swap(_ expected: String?, _ new: String?, _ result: Bool?, _ called: UInt64, _ end: UInt64?) -> Operation {
    Operation(
        client: 3, key: "k", action: .swap(expected: expected, new: new), called: called, returned: end,
        result: result.map { .swapped($0) } ?? .unknown)
}

@Suite struct LinearizabilityTests {
    @Test(
        arguments: [
            [],
            [read(nil, 1, 2), write("a", 3, 4), read("a", 5, 6)],
            // Concurrent: either order.
            [write("a", 1, 10), read(nil, 2, 3), read("a", 4, 5)],
            [write("a", 1, 10), write("b", 1, 10), read("a", 11, 12)],
            // Of unknown outcome: late, or never.
            [write("a", 1, nil), read(nil, 2, 3), read("a", 50, 60)],
            [write("a", 1, nil), read(nil, 50, 60)],
            [write("a", 1, 2), swap("a", "b", true, 3, 4), swap("a", "c", false, 5, 6), read("b", 7, 8)],
            [write("a", 1, 2), swap("a", "b", nil, 3, nil), read("a", 4, 5), read("b", 6, 7)],
            [write("a", 1, 2), write(nil, 3, 4), read(nil, 5, 6)],
            // A failed swap is explained by a write nobody read.
            [write("a", 1, 2), write("b", 3, nil), swap("a", "c", false, 4, 5)],
            [write("a", 1, 2, key: "x"), read(nil, 3, 4, key: "y")],
        ] as [[HistoryOperation<String>]])
    func `a history some order explains is linearizable`(history: [HistoryOperation<String>]) {
        #expect(Linearizability.check(history) == .linearizable)
    }

    @Test(
        arguments: [
            // A lost acknowledged write.
            [write("a", 1, 2), read(nil, 3, 4)],
            // A stale read after a newer one.
            [write("a", 1, 2), write("b", 3, 10), read("b", 4, 5), read("a", 6, 7)],
            // A value nobody wrote.
            [read("ghost", 1, 2)],
            // Two swaps from one value.
            [write("a", 1, 2), swap("a", "b", true, 3, 9), swap("a", "c", true, 3, 9)],
            // A swap that failed although it must have met what it expected.
            [write("a", 1, 2), swap("a", "b", false, 3, 4)],
            // Applied twice: the second application undid a later write.
            [write("a", 1, 2), write("b", 3, 4), read("b", 5, 6), read("a", 7, 8)],
            // Seen before it was called.
            [read("a", 1, 2), write("a", 3, nil)],
        ] as [[HistoryOperation<String>]])
    func `a history no order explains is not`(history: [HistoryOperation<String>]) {
        guard case .violated(let key, _) = Linearizability.check(history) else {
            Issue.record("taken for linearizable")
            return
        }
        #expect(key == "k")
    }

    @Test func `random histories of a true register pass, and fail when one read is made stale`() throws {
        for seed in UInt64(1)...60 {
            var random = SeededRandom(seed: seed)
            var history: [Operation] = []
            var values: [String] = []
            // A write nobody saw the end of may take effect late: reading its value late is no fault.
            var completed: [String] = []
            // Each operation takes effect at its middle; spans overlap.
            for number in 0..<120 {
                let point = UInt64(number) * 10 + 100
                let before = UInt64.random(in: 1...40, using: &random)
                let after = UInt64.random(in: 1...40, using: &random)
                if Bool.random(using: &random) {
                    values.append("\(number)")
                    let isOpen = random.oneIn(10)
                    if !isOpen { completed.append("\(number)") }
                    history.append(write("\(number)", point - before, isOpen ? nil : point + after))
                } else {
                    history.append(read(values.last, point - before, point + after))
                }
            }
            #expect(Linearizability.check(history) == .linearizable, "seed \(seed)")
            // Of an operation that ended long before two others.
            guard completed.count > 20, let first = completed.first else { continue }
            history.append(read(first, 5_000, 5_001))
            #expect(Linearizability.check(history) != .linearizable, "seed \(seed)")
        }
    }

    @Test func `a search beyond its bound says so`() {
        let history = (0..<30).flatMap { number in
            [write("\(number)", 1, nil), read("\(number)", UInt64(number) * 2 + 2, UInt64(number) * 2 + 3)]
        }
        #expect(Linearizability.check(history, stepsMax: 10) == .undecided(key: "k"))
    }
}
