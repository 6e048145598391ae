// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import GRDB
internal import Model

/// The applied state: one SQLite file, changed only by committed commands, in log order.
///
/// Rows and the applied index move in one transaction, so a crash never applies a command twice or half. Everything
/// here is a function of the commands: no clock, no randomness, every SELECT that feeds a decision is ordered.
public final class StateMachine: Sendable {
    /// Readers may use it at any time; only `apply` writes.
    let database: any DatabaseWriter
    /// For SQL of people, so that a slow question holds up nobody but the next one; nil when all is in memory.
    let questions: DatabaseQueue?

    /// A write cannot be taken because the disk or the file is at its end; says which file.
    public struct Failure: Error, Sendable, CustomStringConvertible {
        public var description: String
    }

    /// Opens or creates the file at `path`; nil keeps the state in memory (simulation, tests).
    ///
    /// - Throws: `Failure` when the file is damaged or was written by a newer version.
    public init(path: String?) throws {
        var configuration = Configuration()
        configuration.prepareDatabase { db in
            try db.execute(sql: "PRAGMA foreign_keys = ON; PRAGMA cache_size = -4096; PRAGMA secure_delete = OFF")
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
                    sql: "INSERT INTO meta VALUES (1, ?, '', ?, ?, 0, 0, 0)",
                    arguments: [
                        Schema.version, AddressRanges.standard.containers.description,
                        AddressRanges.standard.virtual.description,
                    ])
            }
            let version = try Int.fetchOne(db, sql: "SELECT schema_version FROM meta") ?? 0
            guard version == Schema.version else {
                throw Failure(
                    description: "the state was written with schema \(version), this build reads \(Schema.version); "
                        + "install the version that wrote it")
            }
        }
        if let path {
            var reading = Configuration()
            reading.readonly = true
            questions = try DatabaseQueue(path: path, configuration: reading)
        } else {
            questions = nil
        }
    }

    /// Reads on the calling thread: for the owner of the core, which may block.
    public func read<Value>(_ body: (StateView) throws -> Value) throws -> Value {
        try database.read { db in try body(StateView(db: db)) }
    }

    static func meta(_ db: Database) throws -> MetaRow {
        guard let row = try Row.fetchOne(db, sql: "SELECT * FROM meta"),
            let containers = IPv4Subnet(row.text("container_range")),
            let virtual = IPv4Subnet(row.text("virtual_range"))
        else { throw CorruptRow("meta", "no row") }
        return MetaRow(
            clusterID: row.text("cluster_id"), ranges: AddressRanges(containers: containers, virtual: virtual),
            appliedIndex: row.index("applied_index"), appliedTerm: row.index("applied_term"),
            logTime: row.time("log_time"))
    }

    /// One committed entry: nil for entries that carry no command (a leader's no-op).
    public struct Input: Sendable {
        public var index: UInt64
        public var term: UInt64
        public var command: Command?

        public init(index: UInt64, term: UInt64, command: Command?) {
            self.index = index
            self.term = term
            self.command = command
        }
    }

    /// Applies committed entries in one transaction.
    ///
    /// Entries at or below the applied index are skipped, so that replay after a crash is harmless.
    /// - Returns: one result per command, in order, and what was touched.
    public func apply(_ inputs: [Input]) throws -> (results: [Applied], touched: Touched) {
        try database.write { db in
            var results: [Applied] = []
            var touched = Touched()
            let meta = try StateMachine.meta(db)
            var applied = meta.appliedIndex
            var term = meta.appliedTerm
            var logTime = meta.logTime
            for input in inputs where input.index > applied {
                precondition(input.index == applied + 1, "entry \(input.index) after \(applied)")
                applied = input.index
                term = input.term
                guard let command = input.command else { continue }
                logTime = max(logTime, command.at)
                var outcome: Applied.Outcome?
                if let request = command.request {
                    outcome = try StateMachine.repeated(db, request: request)
                }
                if outcome == nil {
                    let applier = Applier(db: db, index: input.index, now: logTime)
                    var result = Applied.Outcome.done(.unchanged)
                    // A command that fails half way leaves nothing; a refusal is a value, an error stops the node.
                    do {
                        try db.inSavepoint {
                            result = try applier.apply(command.change)
                            if case .refused = result { return .rollback }
                            return .commit
                        }
                    } catch let error as DatabaseError where error.resultCode == .SQLITE_CONSTRAINT {
                        // Every replica meets the same rows and refuses alike: better than never applying again.
                        result = .refused(
                            Problem(
                                .internal, "the change contradicts the state: \(error.message ?? "constraint failed")",
                                hint: "this is a defect; please report it"))
                    }
                    if case .done = result { touched.formUnion(applier.touched) }
                    outcome = result
                    if let request = command.request {
                        try StateMachine.remember(db, request: request, index: input.index, at: logTime, result)
                    }
                }
                if let outcome { results.append(Applied(index: input.index, outcome: outcome)) }
            }
            try db.cachedStatement(
                sql: "UPDATE meta SET applied_index = ?, applied_term = ?, log_time = ? WHERE id = 1"
            ).execute(arguments: [Int64(bitPattern: applied), Int64(bitPattern: term), logTime.milliseconds])
            return (results, touched)
        }
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

    // MARK: - Exactly once

    /// How long the answer of a request id is kept, in log time.
    static let requestsKeptMilliseconds: Int64 = 3_600_000

    private struct Remembered: Codable {
        var problem: Problem?
        var rollout: String?
        var created: Bool?
        var unchanged: Bool?
    }

    private static func repeated(_ db: Database, request: String) throws -> Applied.Outcome? {
        let statement = try db.cachedStatement(sql: "SELECT result FROM requests WHERE id = ?")
        guard let text = try String.fetchOne(statement, arguments: [request]) else { return nil }
        let remembered = try JSON.decode(Remembered.self, from: Data(text.utf8))
        if let problem = remembered.problem { return .refused(problem) }
        if let rollout = remembered.rollout {
            return .done(.rollout(id: rollout, created: remembered.created ?? false))
        }
        if remembered.unchanged == true { return .done(.unchanged) }
        return .done(remembered.created == true ? .created : .changed)
    }

    private static func remember(
        _ db: Database, request: String, index: UInt64, at: Timestamp, _ outcome: Applied.Outcome
    ) throws {
        let remembered: Remembered =
            switch outcome {
            case .refused(let problem): Remembered(problem: problem)
            case .done(.rollout(let id, let created)): Remembered(rollout: id, created: created)
            case .done(.created): Remembered(created: true)
            case .done(.unchanged): Remembered(unchanged: true)
            case .done(.changed): Remembered()
            }
        try db.run(
            "INSERT INTO requests (id, applied_index, result, at) VALUES (?, ?, ?, ?)",
            [request, Int64(bitPattern: index), try encodeText(remembered), at.milliseconds])
        try db.run("DELETE FROM requests WHERE at < ?", [at.milliseconds - requestsKeptMilliseconds])
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
