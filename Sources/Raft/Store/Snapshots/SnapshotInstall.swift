// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import GRDBSQLite
public import Raft

extension StateMachine {
    /// Bytes of the state as SQLite counts its pages: no copy of it is larger.
    func fileBytes() throws -> UInt64 {
        try database.read { db in
            let pages = try Int64.fetchOne(db, sql: "PRAGMA page_count") ?? 0
            let size = try Int64.fetchOne(db, sql: "PRAGMA page_size") ?? 0
            return UInt64(pages * size)
        }
    }

    /// A packed copy at one applied index, on a connection of its own beside which commands go on.
    func writeCopy(to target: String) throws {
        let copy: (Database) throws -> Void = { db in try db.execute(sql: "VACUUM INTO ?", arguments: [target]) }
        guard let path else { return try database.writeWithoutTransaction(copy) }
        try SnapshotFile.open(path).writeWithoutTransaction(copy)
    }

    /// Puts the state of a snapshot in the place of the state, durably, in one transaction: readers see the old state or
    /// the new one, and a crash leaves the old one or the new one. Every connection stays valid; SQLite copies the pages
    /// through its write-ahead log, so none of the old state's can ever be replayed onto the new one.
    ///
    /// Blocks apply for as long as the snapshot is written.
    /// - Returns: where the state stands.
    /// - Throws: `SnapshotError`; the state is as it was then.
    @discardableResult
    public func install(_ snapshot: SnapshotManifest, from store: SnapshotStore) throws(SnapshotError) -> SnapshotMeta {
        try store.verifyOnce(snapshot)
        return try snapshotCall(snapshot.name) { try install(file: store.file(of: snapshot)) }
    }

    func install(file: String) throws -> SnapshotMeta {
        try install(from: SnapshotFile.open(file))
    }

    private func install(from source: DatabaseQueue) throws -> SnapshotMeta {
        try database.writeWithoutTransaction { db in
            // What the log may be reset to must survive a power cut.
            try db.execute(sql: "PRAGMA synchronous = FULL")
            defer { db.restoreSynchronous() }
            try source.read { try $0.backup(to: db) }
            return try StateMachine.meta(db).snapshotMeta
        }
    }

    // MARK: - In memory

    /// The whole state as bytes: equal for equal states, whatever their history. For states in memory.
    public func serialized() throws -> [UInt8] {
        let packed = try DatabaseQueue()
        return try database.read { db in
            try packed.writeWithoutTransaction { target in
                try db.backup(to: target)
                try target.execute(sql: "VACUUM")
                var count: sqlite3_int64 = 0
                guard let start = sqlite3_serialize(target.sqliteConnection, "main", &count, 0) else {
                    throw DatabaseError(resultCode: .SQLITE_NOMEM, message: "no memory for the state")
                }
                defer { sqlite3_free(start) }
                return Array(UnsafeBufferPointer(start: start, count: Int(count)))
            }
        }
    }

    /// As `install(_:from:)`, from `serialized()`.
    @discardableResult
    public func install(serialized bytes: [UInt8]) throws -> SnapshotMeta {
        let source = try DatabaseQueue()
        try source.writeWithoutTransaction { db in
            let count = sqlite3_int64(bytes.count)
            // SQLite frees it, also when it refuses it.
            guard let start = sqlite3_malloc64(sqlite3_uint64(bytes.count))?.assumingMemoryBound(to: UInt8.self) else {
                throw DatabaseError(resultCode: .SQLITE_NOMEM, message: "no memory for the state")
            }
            bytes.withUnsafeBufferPointer { buffer in
                if let first = buffer.baseAddress { start.update(from: first, count: buffer.count) }
            }
            let status = sqlite3_deserialize(
                db.sqliteConnection, "main", start, count, count, UInt32(SQLITE_DESERIALIZE_FREEONCLOSE))
            guard status == SQLITE_OK else { throw DatabaseError(resultCode: ResultCode(rawValue: status)) }
        }
        return try install(from: source)
    }
}

extension Database {
    /// Back to what every other transaction is written with: the log is what makes those durable.
    fileprivate func restoreSynchronous() {
        sqlite3_exec(sqliteConnection, "PRAGMA synchronous = NORMAL", nil, nil, nil)
    }
}
