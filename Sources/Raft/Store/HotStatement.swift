// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import GRDBSQLite

/// A statement run thousands of times a second: bound and stepped by SQLite itself.
///
/// GRDB makes an array of values, checks it against the statement and copies each text twice, which takes longer than
/// SQLite needs. Of GRDB's own the connection, the transaction and the cache of compiled statements stay.
struct HotStatement: ~Copyable {
    private let db: Database
    private let sql: String
    private let handle: SQLiteStatement
    private var bound: Int32 = 0
    private var status = SQLITE_OK

    /// - Parameter sql: belongs to one place of the code alone, as its statement is shared by all who name it.
    init(_ db: Database, _ sql: String) throws {
        self.db = db
        self.sql = sql
        handle = try db.cachedStatement(sql: sql).sqliteStatement
    }

    /// Values are bound in the order of the statement's question marks.
    mutating func bind(_ number: Int64) {
        bound += 1
        note(sqlite3_bind_int64(handle, bound, number))
    }

    mutating func bind(_ text: String) {
        bound += 1
        var text = text
        let result = text.withUTF8 { utf8 in
            // Without an address SQLite would bind NULL.
            guard let start = utf8.baseAddress else { return sqlite3_bind_text(handle, bound, "", 0, Self.copied) }
            return start.withMemoryRebound(to: CChar.self, capacity: utf8.count) {
                sqlite3_bind_text(handle, bound, $0, Int32(utf8.count), Self.copied)
            }
        }
        note(result)
    }

    /// For a statement that writes.
    /// - Returns: rows changed.
    /// - Throws: `DatabaseError`.
    consuming func run() throws -> Int {
        let (connection, sql) = (db.sqliteConnection, sql)
        guard try step({ _ in }) == SQLITE_DONE else {
            throw DatabaseError(resultCode: .SQLITE_MISUSE, message: "it gives rows", sql: sql)
        }
        return Int(sqlite3_changes(connection))
    }

    /// For a statement that reads.
    /// - Parameter count: of the first columns, all of them integers.
    /// - Returns: nil when there is no row.
    /// - Throws: `DatabaseError`.
    consuming func firstRow(integers count: Int32) throws -> [Int64]? {
        var row: [Int64]?
        _ = try step { handle in row = (0..<count).map { sqlite3_column_int64(handle, $0) } }
        return row
    }

    /// - Parameter read: called with a row, if there is one.
    private consuming func step(_ read: (SQLiteStatement) -> Void) throws -> Int32 {
        precondition(bound == sqlite3_bind_parameter_count(handle), "\(bound) values for: \(sql)")
        var result = SQLITE_DONE
        if status == SQLITE_OK {
            result = sqlite3_step(handle)
            if result == SQLITE_ROW { read(handle) }
            // The reset repeats the step's error with its details.
            status = sqlite3_reset(handle)
        }
        // What was bound is not kept for the next to use.
        sqlite3_clear_bindings(handle)
        guard status == SQLITE_OK else {
            throw DatabaseError(
                resultCode: ResultCode(rawValue: status), message: db.lastErrorMessage, sql: sql)
        }
        return result
    }

    private mutating func note(_ result: Int32) {
        if status == SQLITE_OK { status = result }
    }

    /// SQLITE_TRANSIENT: SQLite takes a copy at once. The macro is a cast that Swift does not import.
    private static var copied: sqlite3_destructor_type { unsafeBitCast(-1, to: sqlite3_destructor_type.self) }
}
