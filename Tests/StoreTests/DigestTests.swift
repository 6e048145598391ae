// SPDX-License-Identifier: Apache-2.0
import Foundation
import GRDB
import Model
import Raft
import Store
import TestSupport
import Testing

/// Two members that applied the same entries have the same digest, and others have another.
@Suite struct DigestTests {
    typealias F = StateFixture

    private func history() throws -> [StateMachine.Input] {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("a", volumes: ["v"]), F.service("b", ports: [F.port(nil)])]))
        try fixture.assign("x", "a", id: "a1", offset: 2)
        try fixture.record("a1", TaskStatus(state: .running, ready: true, container: "a1.0", pid: 3))
        for number in 0..<150 {
            try fixture.apply(
                .putConfig(
                    PutConfig(config: ObjectKey(name: "c\(number % 9)"), data: "\(number)", condition: .none)),
                request: number % 2 == 0 ? "r\(number)" : nil, after: 100_000)
        }
        try fixture.fail("x")
        return fixture.log
    }

    @Test func `batches, restarts and the kind of file make no difference`() throws {
        let log = try history()
        let directory = try TemporaryDirectory("digest")
        defer { directory.remove() }
        let memory = try StateMachine(path: nil)
        _ = try memory.apply(log)
        let expected = try memory.digest()
        #expect(expected.index == UInt64(log.count))
        for size in [1, 7, 64] {
            let path = directory.file("s\(size)")
            for start in stride(from: 0, to: log.count, by: size) {
                // Opened anew now and then, and a part is applied twice.
                let state = try StateMachine(path: path)
                for part in stride(from: start, to: min(start + size, log.count), by: max(1, size / 3)) {
                    _ = try state.apply(Array(log[max(0, part - 2)..<min(part + size, log.count)]))
                }
            }
            #expect(try StateMachine(path: path).digest() == expected, "batches of \(size)")
        }
    }

    @Test func `every table and every column counts`() async throws {
        let log = try history()
        let directory = try TemporaryDirectory("digest")
        defer { directory.remove() }
        let path = directory.file("s")
        let original = try StateMachine(path: path)
        _ = try original.apply(log)
        #expect(try original.checkpoint())
        let digest = try original.digest()
        let columns = try await original.query(
            """
            SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c
            WHERE m.type = 'table' ORDER BY m.rowid, c.cid
            """)
        var compared: Set<String> = []
        for row in columns.rows {
            guard case .text(let table) = row[0], case .text(let column) = row[1], case .text(let type) = row[2] else {
                continue
            }
            let count = try await original.query("SELECT count(*) FROM \(table)")
            guard count.rows != [[.integer(0)]], "\(table).\(column)" != "meta.id" else { continue }
            let changed: String
            switch type {
            case "INTEGER": changed = "coalesce(\(column), 0) + 1000003"
            case "TEXT": changed = "coalesce(\(column), '') || 'x'"
            default: changed = "CAST(\(column) || x'00' AS BLOB)"
            }
            let copy = directory.file("\(table).\(column)")
            try FileManager.default.copyItem(atPath: path, toPath: copy)
            let replica = try StateMachine(path: copy)
            #expect(try replica.digest() == digest)
            try await DatabaseQueue(path: copy).write { db in
                try db.execute(sql: "UPDATE \(table) SET \(column) = \(changed)")
            }
            #expect(try replica.digest().bytes != digest.bytes, "\(table).\(column)")
            compared.insert(table)
        }
        #expect(compared.isSuperset(of: ["meta", "nodes", "apps", "tasks", "configs", "requests", "events"]))
    }

    @Test func `a comparison sees the state of its index although more is applied`() throws {
        for isFile in [true, false] {
            let directory = try TemporaryDirectory("digest")
            defer { directory.remove() }
            let state = try StateMachine(path: isFile ? directory.file("s") : nil)
            let other = try StateMachine(path: nil)
            func input(_ index: UInt64, _ change: Change) -> StateMachine.Input {
                .init(index: index, term: 1, command: Command(at: Timestamp(milliseconds: 1), change: change))
            }
            func put(_ data: String) -> Change {
                .putConfig(PutConfig(config: ObjectKey(name: "c"), data: data, condition: .none))
            }
            let inputs = [
                input(1, put("1")), input(2, .compareState), input(3, put("2")), input(4, .compareState),
                input(5, put("3")),
            ]
            let (results, touched) = try state.apply(inputs)
            #expect(results.map(\.index) == [1, 2, 3, 4, 5])
            #expect(touched.pictures.map(\.index) == [2, 4])
            _ = try state.apply([input(6, put("4"))])
            for picture in touched.pictures {
                _ = try other.apply(Array(inputs.prefix(Int(picture.index))))
                #expect(try picture.digest() == other.digest(), "file: \(isFile)")
            }
            // Met again after a crash they are no longer true.
            #expect(try state.apply(inputs).touched.pictures.isEmpty)
        }
    }
}
