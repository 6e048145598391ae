// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import GRDBSQLite
public import Model

extension StateMachine {
    public static let queryRowsMax = 10_000
    public static let queryBytesMax = 8 << 20
    public static let querySeconds = 5.0
    /// Hashes and sealed keys: what only admins may see by other ways, too.
    static let secretTables = ["api_tokens", "join_tokens", "authorities", "certificates"]

    /// One SELECT of a person over the state, on a connection of its own that cannot write.
    ///
    /// Rows, bytes and time are bounded; what is over the first two is cut off and said so.
    /// - Parameter withSecrets: whether tables about tokens, certificates and the authority may be asked.
    /// - Throws: `Problem` with SQLite's own words for a statement that is wrong, writes, or runs too long.
    public func query(_ sql: String, withSecrets: Bool = true) async throws -> QueryView {
        guard let word = Self.firstWord(of: sql) else {
            throw Problem(.badRequest, "the query is empty", hint: "for example: select name, release from apps")
        }
        // SQLite counts ATTACH, PRAGMA and COMMIT as reading, too.
        guard ["SELECT", "WITH", "VALUES", "EXPLAIN"].contains(word) else {
            throw Problem(.badRequest, "the state cannot be changed by SQL", hint: "use the commands; SELECT only here")
        }
        do {
            let answer: @Sendable (Database) throws -> QueryView = {
                try Self.answer(sql, withSecrets: withSecrets, $0)
            }
            if let questions { return try await questions.read(answer) }
            return try await database.read(answer)
        } catch let error as DatabaseError where error.resultCode == .SQLITE_INTERRUPT {
            throw Problem(.timeout, "the query ran longer than \(Int(Self.querySeconds)) s", hint: "narrow it")
        } catch let error as DatabaseError {
            throw Problem(.badRequest, "SQL: \(error.message ?? "\(error)")", hint: "tables: docs/reference/state.md")
        }
    }

    private final class Deadline {
        let at = ContinuousClock.now + .seconds(StateMachine.querySeconds)
    }

    private static func answer(_ sql: String, withSecrets: Bool, _ db: Database) throws -> QueryView {
        let statements = try db.allStatements(sql: sql)
        guard let statement = try statements.next(), try statements.next() == nil else {
            throw Problem(.badRequest, "one statement at a time")
        }
        guard statement.isReadonly else {
            throw Problem(.badRequest, "the state cannot be changed by SQL", hint: "use the commands; SELECT only here")
        }
        let region = statement.databaseRegion
        // A column that only joins, by USING, is not told of as read.
        let text = sql.lowercased()
        for table in secretTables
        where !withSecrets
            && (text.contains(table) || region.isModified(byEventsOfKind: .delete(tableName: table)))
        {
            throw Problem(
                .forbidden, "the table `\(table)` is for admins", hint: "leave it out, or ask with a token of an admin")
        }
        // A query may work for ever before its first row, so SQLite itself looks at the time.
        let deadline = Deadline()
        let connection = db.sqliteConnection
        let lengthMax = sqlite3_limit(connection, SQLITE_LIMIT_LENGTH, CInt(queryBytesMax))
        sqlite3_progress_handler(
            connection, 10_000,
            { pointer in
                guard let pointer else { return 0 }
                let deadline = Unmanaged<Deadline>.fromOpaque(pointer).takeUnretainedValue()
                return ContinuousClock.now > deadline.at ? 1 : 0
            }, Unmanaged.passUnretained(deadline).toOpaque())
        defer {
            sqlite3_progress_handler(connection, 0, nil, nil)
            sqlite3_limit(connection, SQLITE_LIMIT_LENGTH, lengthMax)
        }
        return try withExtendedLifetime(deadline) {
            var rows: [[QueryCell]] = []
            var bytes = 0
            var truncated = false
            let cursor = try Row.fetchCursor(statement)
            while let row = try cursor.next() {
                let cells = (0..<row.count).map { cell(row.databaseValue(atIndex: $0)) }
                bytes += cells.map { if case .text(let text) = $0 { text.utf8.count + 8 } else { 8 } }.reduce(0, +)
                if rows.count == queryRowsMax || bytes > queryBytesMax {
                    truncated = true
                    break
                }
                rows.append(cells)
            }
            return QueryView(columns: Array(statement.columnNames), rows: rows, truncated: truncated)
        }
    }

    private static func cell(_ value: DatabaseValue) -> QueryCell {
        switch value.storage {
        case .null: .null
        case .int64(let value): .integer(value)
        case .double(let value): .real(value)
        case .string(let value): .text(value)
        case .blob(let value): .text("x'\(value.map { hex($0) }.joined())'")
        }
    }

    private static func hex(_ byte: UInt8) -> String {
        let text = String(byte, radix: 16)
        return text.count == 1 ? "0" + text : text
    }

    /// The first word after white space and remarks, in capitals; nil when there is none.
    private static func firstWord(of sql: String) -> String? {
        var rest = Substring(sql)
        while true {
            rest = rest.drop { $0.isWhitespace }
            if rest.hasPrefix("--") {
                rest = rest.drop { !$0.isNewline }
            } else if rest.hasPrefix("/*") {
                rest = rest.dropFirst(2)
                while !rest.isEmpty, !rest.hasPrefix("*/") { rest = rest.dropFirst() }
                rest = rest.dropFirst(2)
            } else {
                return rest.isEmpty ? nil : rest.prefix { $0.isLetter }.uppercased()
            }
        }
    }
}

extension Row {
    fileprivate func databaseValue(atIndex index: Int) -> DatabaseValue { self[index] }
}
