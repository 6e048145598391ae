// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

private func nodes(_ count: Int, _ liveness: NodeRow.Liveness = .ready) -> [NodeRow] {
    (1...count).map { number in
        NodeRow(
            id: NodeID("n\(number)"), name: "node-\(number)", member: UInt64(number), address: "10.0.0.1",
            subnet: IPv4Subnet(IPv4Address(value: 10 << 24 | UInt32(number) << 8), prefix: 24), liveness: liveness,
            cpuMillis: 1000, memoryBytes: 1 << 30, version: "1")
    }
}

/// All nodes are heard at 1000 ms; from then on those in `silent` are not.
private func judged(_ rows: [NodeRow], silent: Set<Int>, at now: Int64) -> [String] {
    var detector = FailureDetector(since: 0)
    for (index, row) in rows.enumerated() {
        detector.heard(of: row.id, at: 1000)
        if !silent.contains(index + 1) { detector.heard(of: row.id, at: now) }
    }
    return detector.judge(rows, at: now).map { "\($0.node.raw) \($0.liveness.rawValue)" }
}

private let silences: [(now: Int64, changes: [String])] = [
    (2_999, []), (3_000, ["n2 suspect"]), (5_999, ["n2 suspect"]), (6_000, ["n2 down"]),
]

@Test(arguments: silences)
func `a silent node is suspect after two seconds and down after five`(now: Int64, expected: [String]) {
    #expect(judged(nodes(5), silent: [2], at: now) == expected)
}

@Test func `how long a node is waited for is what people say, how long traffic goes there is not`() {
    let long = FailureDetector.Limits(downMilliseconds: 60_000)
    #expect(long.suspectMilliseconds == 2_000 && long.downMilliseconds == 60_000 && long.massMilliseconds == 60_000)
    let short = FailureDetector.Limits(downMilliseconds: 3_000)
    #expect(short.suspectMilliseconds == 1_200 && short.downMilliseconds == 3_000 && short.massMilliseconds == 30_000)
    #expect(FailureDetector.Limits(downMilliseconds: 5_000) == FailureDetector.Limits())
}

@Test func `when many vanish together nobody is down for half a minute`() {
    #expect(judged(nodes(6), silent: [1, 2], at: 30_999) == ["n1 suspect", "n2 suspect"])
    #expect(judged(nodes(6), silent: [1, 2], at: 31_000) == ["n1 down", "n2 down"])
    // One of three is a third and still only a lost node.
    #expect(judged(nodes(3), silent: [3], at: 6_000) == ["n3 down"])
}

@Test func `nodes of a cluster that took another's place are waited for as long`() {
    var detector = FailureDetector(since: 0)
    let rows = nodes(2, .suspect)
    detector.heard(of: rows[0].id, at: 30_000)
    #expect(detector.judge(rows, isYoung: true, at: 30_000).map { "\($0.node.raw) \($0.liveness)" } == ["n1 ready"])
    #expect(detector.judge([rows[1]], isYoung: false, at: 30_000).map(\.liveness) == [.down])
}

@Test func `who was stopped itself does not judge by what it did not hear meanwhile`() {
    var detector = FailureDetector(since: 0)
    let rows = nodes(5)
    for row in rows { detector.heard(of: row.id, at: 1_000) }
    #expect(detector.judge(rows, at: 1_000).isEmpty)
    // Stopped for a minute: the others may have another leader by now.
    for now in stride(from: Int64(61_000), through: 64_500, by: 250) {
        #expect(detector.judge(rows, at: now).isEmpty, "\(now)")
    }
    // It leads still, and one does not answer.
    for row in rows.dropLast() { detector.heard(of: row.id, at: 65_000) }
    #expect(detector.judge(rows, at: 65_250).map { "\($0.node.raw) \($0.liveness.rawValue)" } == ["n5 suspect"])
}

@Test func `a report makes a node ready at once`() {
    #expect(judged(nodes(2, .down), silent: [2], at: 90_000) == ["n1 ready"])
}

@Test func `a new leader gives nodes it has not heard of yet more time`() {
    var detector = FailureDetector(since: 10_000)
    let rows = nodes(5)
    for row in rows.dropLast() { detector.heard(of: row.id, at: 16_900) }
    #expect(detector.judge(rows, at: 13_999).isEmpty)
    #expect(detector.judge(rows, at: 14_000).map(\.liveness) == [.suspect])
    #expect(detector.judge(rows, at: 16_999).map(\.liveness) == [.suspect])
    #expect(detector.judge(rows, at: 17_000).map(\.liveness) == [.down])
}

@Test func `what the leader before made of a silent node stays`() {
    var detector = FailureDetector(since: 0)
    #expect(detector.judge(nodes(3, .down), at: 100).isEmpty)
}
