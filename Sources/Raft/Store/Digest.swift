// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import GRDB
internal import GRDBSQLite

/// SHA-256 over everything replicated, at one applied index: equal on members that applied the same entries.
///
/// Independent of how SQLite lays out the file: tables in the order of the schema, rows in the order of their keys, each
/// value with its type and length.
public struct StateDigest: Hashable, Sendable, CustomStringConvertible {
    /// Applied index it stands for.
    public var index: UInt64
    /// 32 bytes.
    public var bytes: [UInt8]

    public init(index: UInt64, bytes: [UInt8]) {
        self.index = index
        self.bytes = bytes
    }

    public var description: String { "\(hexText(bytes)) at \(index)" }
}

/// The state as it was right after one entry, whatever is applied since: what `compareState` is for.
///
/// Costs: the transaction of the batch ends at that entry, and a connection of its own holds the picture, which keeps the
/// write-ahead log from being emptied. Ask for the digest soon, on a thread that may take its time, and let go.
public struct StatePicture: Sendable {
    public let index: UInt64
    private let content: Content

    private enum Content: Sendable {
        /// In memory there is one connection: the digest was made at once.
        case made(StateDigest)
        case held(DatabaseSnapshot)
    }

    init(index: UInt64, of database: any DatabaseWriter) throws {
        self.index = index
        if let pool = database as? DatabasePool {
            content = .held(try pool.makeSnapshot())
        } else {
            content = .made(try database.read { try StateDigest(of: $0) })
        }
    }

    /// Blocks while the whole state is read.
    public func digest() throws -> StateDigest {
        switch content {
        case .made(let digest): digest
        case .held(let snapshot): try snapshot.read { try StateDigest(of: $0) }
        }
    }
}

extension StateMachine {
    /// Of the state as it is now; reads all of it in one transaction, beside which commands go on.
    public func digest() throws -> StateDigest {
        try database.read { try StateDigest(of: $0) }
    }
}

extension StateDigest {
    init(of db: Database) throws {
        var hash = SHA256()
        var buffer = ValueBuffer()
        for table in Schema.tables {
            buffer.put(text: table.name)
            let statement = try db.makeStatement(sql: "SELECT * FROM \(table.name) ORDER BY \(table.key)")
            let handle = statement.sqliteStatement
            defer { sqlite3_reset(handle) }
            let columns = sqlite3_column_count(handle)
            var status = sqlite3_step(handle)
            while status == SQLITE_ROW {
                buffer.put(rowOf: columns)
                for column in 0..<columns { buffer.put(handle, column) }
                if buffer.isLarge { buffer.drain(into: &hash) }
                status = sqlite3_step(handle)
            }
            guard status == SQLITE_DONE else {
                throw DatabaseError(resultCode: ResultCode(rawValue: status), message: "cannot read \(table.name)")
            }
        }
        buffer.drain(into: &hash)
        guard let meta = try db.row("SELECT applied_index FROM meta") else { throw CorruptRow("meta", "no row") }
        self.init(index: meta.index("applied_index"), bytes: Array(hash.finalize()))
    }
}

/// Values as bytes that no other sequence of values has.
private struct ValueBuffer {
    private var bytes: [UInt8] = []

    var isLarge: Bool { bytes.count >= 64 << 10 }

    mutating func drain(into hash: inout SHA256) {
        bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
        bytes.removeAll(keepingCapacity: true)
    }

    mutating func put(rowOf columns: Int32) {
        bytes.append(1)
        put(Int64(columns))
    }

    mutating func put(text: String) {
        bytes.append(2)
        put(Int64(text.utf8.count))
        bytes.append(contentsOf: text.utf8)
    }

    mutating func put(_ statement: OpaquePointer, _ column: Int32) {
        let type = sqlite3_column_type(statement, column)
        switch type {
        case SQLITE_NULL: bytes.append(3)
        case SQLITE_INTEGER:
            bytes.append(4)
            put(sqlite3_column_int64(statement, column))
        case SQLITE_FLOAT:
            bytes.append(5)
            put(Int64(bitPattern: sqlite3_column_double(statement, column).bitPattern))
        default:
            // As SQLite stores it: text in UTF-8, which is this database's encoding, or a blob.
            bytes.append(type == SQLITE_TEXT ? 6 : 7)
            let start =
                type == SQLITE_TEXT
                ? UnsafeRawPointer(sqlite3_column_text(statement, column)) : sqlite3_column_blob(statement, column)
            let count = Int(sqlite3_column_bytes(statement, column))
            put(Int64(count))
            if let start, count > 0 { bytes.append(contentsOf: UnsafeRawBufferPointer(start: start, count: count)) }
        }
    }

    private mutating func put(_ number: Int64) {
        withUnsafeBytes(of: number.littleEndian) { bytes.append(contentsOf: $0) }
    }
}

func hexText(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    for byte in bytes {
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
}
