// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import GRDB
internal import Model
public import Raft

/// The applied state: one SQLite file, changed only by committed commands, in log order.
///
/// Rows and the applied index move in one transaction, so a crash never applies a command twice or half. Everything
/// here is a function of the commands: no clock, no randomness, every SELECT that feeds a decision is ordered.
public final class StateMachine: Sendable {
    /// Nil in memory.
    let path: String?
    /// Readers may use it at any time; only `apply` writes.
    let database: any DatabaseWriter
    /// For SQL of people, so that a slow question holds up nobody but the next one; nil when all is in memory.
    let questions: DatabaseQueue?

    /// A write cannot be taken because the disk or the file is at its end; says which file.
    public struct Failure: Error, Sendable, CustomStringConvertible {
        public var description: String
    }

    /// The disk is full; the state is as it was and can be read.
    public struct NoSpace: Error, Sendable, CustomStringConvertible {
        public var description: String
    }

    /// Opens or creates the file at `path`; nil keeps the state in memory (simulation, tests).
    ///
    /// - Parameter initialMembership: stands at index 0 of a cluster made new. A state that holds any entry or membership
    ///   keeps its own; a node that joins begins with none and learns it from the log.
    /// - Throws: `Failure` when the file is damaged or was written by a newer version.
    public init(path: String?, initialMembership: Membership = Membership(voters: [])) throws {
        self.path = path
        var configuration = Configuration()
        configuration.prepareDatabase { db in
            // Readers keep the upper pages of a few tables; the kernel has the rest. Each of them may fill its cache.
            let kibibytes = db.configuration.readonly ? 512 : 4_096
            try db.execute(
                sql: "PRAGMA foreign_keys = ON; PRAGMA cache_size = -\(kibibytes); PRAGMA secure_delete = OFF")
        }
        configuration.maximumReaderCount = 4
        if let path {
            database = try DatabasePool(path: path, configuration: configuration)
        } else {
            database = try DatabaseQueue(configuration: configuration)
        }
        try database.write { db in
            let exists = try Bool.fetchOne(
                db, sql: "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta')")
            if exists != true {
                try db.execute(sql: Schema.statements)
                try db.execute(
                    sql: "INSERT INTO meta VALUES (1, ?, '', '', 0, ?, ?, 0, 0, 0, 0, ?, 0, ?)",
                    arguments: [
                        Schema.version, AddressRanges.standard.containers.description,
                        AddressRanges.standard.virtual.description, Data(Membership(voters: []).encoded()),
                        MetaRow.downAfterStandard,
                    ])
            }
            let version = try Int.fetchOne(db, sql: "SELECT schema_version FROM meta") ?? 0
            guard version == Schema.version else {
                throw Failure(
                    description: "the state was written with schema \(version), this build reads \(Schema.version); "
                        + "install the version that wrote it")
            }
            let meta = try StateMachine.meta(db)
            if meta.appliedIndex == 0, meta.configuration.membership.members.isEmpty {
                try StateMachine.write(ConfigurationPoint(index: 0, membership: initialMembership), db)
            }
        }
        if let path {
            var reading = Configuration()
            reading.readonly = true
            reading.prepareDatabase { db in try db.execute(sql: "PRAGMA cache_size = -512") }
            questions = try DatabaseQueue(path: path, configuration: reading)
        } else {
            questions = nil
        }
    }

    /// Reads on the calling thread: for the owner of the core, which may block.
    public func read<Value>(_ body: (StateView) throws -> Value) throws -> Value {
        // In memory there is one connection, and telling it each time that it only reads makes SQLite compile every
        // statement anew.
        if path == nil { return try database.unsafeRead { db in try body(StateView(db: db)) } }
        return try database.read { db in try body(StateView(db: db)) }
    }

    static func meta(_ db: Database) throws -> MetaRow {
        guard let row = try db.row("SELECT * FROM meta"),
            let containers = IPv4Subnet(row.text("container_range")),
            let virtual = IPv4Subnet(row.text("virtual_range")),
            let membership = Membership(decoding: Array(row["membership"] as Data))
        else { throw CorruptRow("meta", "no row, ranges or membership") }
        return MetaRow(
            clusterID: row.text("cluster_id"), previousClusterID: row.text("previous_cluster_id"),
            succeededAt: row.time("succeeded_at"),
            ranges: AddressRanges(containers: containers, virtual: virtual),
            appliedIndex: row.index("applied_index"), appliedTerm: row.index("applied_term"),
            logTime: row.time("log_time"),
            configuration: ConfigurationPoint(index: row.index("configuration_index"), membership: membership),
            eventsCompacted: row.index("events_compacted"),
            downAfterMilliseconds: Int64(row.integer("down_after_ms")))
    }

    /// Makes the applied index durable on disk, so that the log below it may be cut.
    /// - Returns: false when readers were in the way: try again later, cut nothing now.
    public func checkpoint() throws -> Bool {
        guard let pool = database as? DatabasePool else { return true }
        do {
            try pool.writeWithoutTransaction { db in _ = try db.checkpoint(.truncate) }
            return true
        } catch let error as DatabaseError
            where error.resultCode == .SQLITE_BUSY || error.resultCode == .SQLITE_LOCKED
        {
            return false
        }
    }

    // MARK: - Membership

    static func write(_ point: ConfigurationPoint, _ db: Database) throws {
        try db.run(
            "UPDATE meta SET configuration_index = ?, membership = ? WHERE id = 1",
            [Int64(bitPattern: point.index), Data(point.membership.encoded())])
    }
}

extension Database {
    /// A statement compiled once per connection.
    func run(_ sql: String, _ arguments: StatementArguments = []) throws {
        try cachedStatement(sql: sql).execute(arguments: arguments)
    }
    func rows(_ sql: String, _ arguments: StatementArguments = []) throws -> [Row] {
        try Row.fetchAll(try cachedStatement(sql: sql), arguments: arguments)
    }
    func row(_ sql: String, _ arguments: StatementArguments = []) throws -> Row? {
        try Row.fetchOne(try cachedStatement(sql: sql), arguments: arguments)
    }
}
