// SPDX-License-Identifier: Apache-2.0
import GRDB
import Model
import TestSupport
import Testing

@testable import Store

/// A state whose file cannot grow is as it was, can be read, and goes on when there is room.
@Suite struct StateSpaceTests {
    private static func put(_ index: UInt64, bytes: Int) -> StateMachine.Input {
        let put = PutConfig(
            config: ObjectKey(name: "c\(index)"), data: String(repeating: "x", count: bytes), condition: .none)
        return .init(
            index: index, term: 1,
            command: Command(request: "r\(index)", at: Timestamp(milliseconds: Int64(index)), change: .putConfig(put)))
    }

    private func limit(_ state: StateMachine, spare pages: Int) throws {
        try state.database.writeWithoutTransaction { db in
            let count = try Int.fetchOne(db, sql: "PRAGMA page_count") ?? 0
            _ = try Int.fetchOne(db, sql: "PRAGMA max_page_count = \(count + pages)")
        }
    }

    @Test func `a batch that does not fit leaves no trace, and is applied once there is room`() throws {
        let directory = try TemporaryDirectory("full")
        defer { directory.remove() }
        let state = try StateMachine(path: directory.file("state"))
        _ = try state.apply((1...10).map { Self.put($0, bytes: 100) })
        let before = try state.digest()
        try limit(state, spare: 20)

        // The first two would fit.
        let batch = [Self.put(11, bytes: 100), Self.put(12, bytes: 100), Self.put(13, bytes: 500_000)]
        for _ in 0..<3 { #expect(throws: StateMachine.NoSpace.self) { try state.apply(batch) } }
        #expect(try state.digest() == before)
        #expect(try state.read { try $0.configs(namespace: nil, prefix: "c").count } == 10)
        // What needs no room is still taken.
        #expect(try state.apply([.init(index: 11, term: 1, content: .none)]).results.isEmpty)
        #expect(throws: StateMachine.NoSpace.self) { try state.apply([Self.put(12, bytes: 500_000)]) }

        try limit(state, spare: 100_000)
        _ = try state.apply([Self.put(12, bytes: 500_000), Self.put(13, bytes: 100)])
        // As one that always had room.
        let other = try StateMachine(path: nil)
        _ = try other.apply(
            (1...10).map { Self.put($0, bytes: 100) } + [.init(index: 11, term: 1, content: .none)]
                + [Self.put(12, bytes: 500_000), Self.put(13, bytes: 100)])
        #expect(try state.digest() == other.digest())
    }
}
