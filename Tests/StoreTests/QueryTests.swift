// SPDX-License-Identifier: Apache-2.0
import Model
import Store
import TestSupport
import Testing

/// SQL of people: it reads, and it ends.
@Suite struct QueryTests {
    private func refused(_ sql: String, path: String? = nil) async throws -> Problem? {
        let state = try StateMachine(path: path)
        do {
            _ = try await state.query(sql)
            return nil
        } catch let problem as Problem {
            return problem
        }
    }

    @Test(arguments: [
        "DELETE FROM apps", "INSERT INTO meta SELECT * FROM meta", "DROP TABLE apps", "SELECT 1; DELETE FROM apps",
        "PRAGMA query_only = 0", "ATTACH ':memory:' AS other", "COMMIT", "BEGIN", "VACUUM", "  ",
        "SELECT nope FROM apps",
        "-- only a remark", "WITH x AS (SELECT 1) DELETE FROM apps", "EXPLAIN DELETE FROM apps; DELETE FROM apps",
    ])
    func `what is not one reading statement is refused`(sql: String) async throws {
        for isFile in [false, true] {
            let directory = try TemporaryDirectory()
            defer { directory.remove() }
            #expect(
                try await refused(sql, path: isFile ? "\(directory.path)/s.sqlite" : nil)?.code == .badRequest, "\(sql)"
            )
        }
    }

    @Test(arguments: [
        "SELECT * FROM api_tokens", "SELECT a.name FROM apps a, \"AUTHORITIES\"", "SELECT count(*) FROM join_tokens",
        "WITH g(role) AS (VALUES ('admin')) SELECT count(*) FROM g JOIN api_tokens USING (role)",
    ])
    func `tables with secrets are for admins`(sql: String) async throws {
        let state = try StateMachine(path: nil)
        _ = try await state.query(sql)
        let problem = await #expect(throws: Problem.self) { try await state.query(sql, withSecrets: false) }
        #expect(problem?.code == .forbidden)
    }

    @Test(arguments: [
        "SELECT count(*) FROM apps", "select 1", "/* all */ -- of them\n select name from apps;",
        "WITH x(n) AS (SELECT 1) SELECT n FROM x", "VALUES (1), (2)", "EXPLAIN QUERY PLAN SELECT 1",
    ])
    func `reading is allowed`(sql: String) async throws {
        #expect(try await refused(sql) == nil, "\(sql)")
    }

    @Test func `a query that would never end is ended and leaves the state usable`() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let state = try StateMachine(path: "\(directory.path)/state.sqlite")
        let endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
        let began = ContinuousClock.now
        await #expect(throws: Problem.self) { try await state.query(endless) }
        // Its own limit is 5 s; the rest is for a machine whose cores other tests keep busy.
        #expect(ContinuousClock.now - began < .seconds(120))
        #expect(try await state.query("SELECT 1").rows == [[.integer(1)]])
        let apps = try await state.read { try $0.apps().count }
        #expect(apps == 0)
    }

    @Test func `rows and bytes of an answer are bounded`() async throws {
        let state = try StateMachine(path: nil)
        let many = try await state.query(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) SELECT n FROM c")
        #expect(many.rows.count == StateMachine.queryRowsMax)
        #expect(many.truncated)
        let large = try await state.query(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100) "
                + "SELECT hex(zeroblob(500000)) FROM c")
        #expect(large.truncated)
        #expect(large.rows.count < 20)
    }

    @Test func `the log may not be cut while a reader holds the state back, and the node goes on`() throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let state = try StateMachine(path: "\(directory.path)/state.sqlite")
        func put(_ index: UInt64) throws {
            _ = try state.apply([
                StateMachine.Input(
                    index: index, term: 1,
                    command: Command(
                        at: Timestamp(milliseconds: 1),
                        change: .putConfig(PutConfig(config: ObjectKey(name: "c"), data: "\(index)", condition: .none)))
                )
            ])
        }
        try put(1)
        #expect(try state.checkpoint())
        try state.read { view in
            _ = try view.apps()
            try put(2)
            #expect(try state.checkpoint() == false)
        }
        #expect(try state.checkpoint())
    }
}
