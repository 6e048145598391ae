// SPDX-License-Identifier: Apache-2.0
internal import GRDB
public import Model

extension StateMachine {
    public static let queryRowsMax = 10_000
    public static let querySeconds = 5.0

    /// One SELECT of a person over the state, on a reader's connection that cannot write.
    ///
    /// - Throws: `Problem` with SQLite's own words for a statement that is wrong, writes, or runs too long.
    public func query(_ sql: String) async throws -> QueryView {
        guard sql.contains(where: { !$0.isWhitespace }) else {
            throw Problem(.badRequest, "the query is empty", hint: "for example: select name, release from apps")
        }
        do {
            return try await database.read { db in
                try db.execute(sql: "PRAGMA query_only = 1")
                defer { try? db.execute(sql: "PRAGMA query_only = 0") }
                let statements = try db.allStatements(sql: sql)
                guard let statement = try statements.next(), try statements.next() == nil else {
                    throw Problem(.badRequest, "one statement at a time")
                }
                guard statement.isReadonly else {
                    throw Problem(
                        .badRequest, "the state cannot be changed by SQL", hint: "use the commands; SELECT only here")
                }
                let deadline = ContinuousClock.now + .seconds(Self.querySeconds)
                var rows: [[QueryCell]] = []
                var truncated = false
                let cursor = try Row.fetchCursor(statement)
                while let row = try cursor.next() {
                    if rows.count == Self.queryRowsMax {
                        truncated = true
                        break
                    }
                    if ContinuousClock.now > deadline {
                        throw Problem(.timeout, "the query ran longer than \(Int(Self.querySeconds)) s", hint: "narrow it")
                    }
                    rows.append(
                        (0..<row.count).map { index in
                            switch row.databaseValue(atIndex: index).storage {
                            case .null: .null
                            case .int64(let value): .integer(value)
                            case .double(let value): .real(value)
                            case .string(let value): .text(value)
                            case .blob(let value): .text("x'\(value.map { Self.hex($0) }.joined())'")
                            }
                        })
                }
                return QueryView(columns: Array(statement.columnNames), rows: rows, truncated: truncated)
            }
        } catch let error as DatabaseError {
            throw Problem(.badRequest, "SQL: \(error.message ?? "\(error)")", hint: "tables: docs/reference/state.md")
        }
    }

    private static func hex(_ byte: UInt8) -> String {
        let text = String(byte, radix: 16)
        return text.count == 1 ? "0" + text : text
    }
}

extension Row {
    fileprivate func databaseValue(atIndex index: Int) -> DatabaseValue { self[index] }
}
