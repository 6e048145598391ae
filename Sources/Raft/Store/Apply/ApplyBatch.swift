// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model
public import Raft

extension StateMachine {
    /// One committed entry, with what it means for the state.
    public struct Input: Sendable {
        public enum Content: Sendable {
            /// A leader's first entry: changes nothing but the index.
            case none
            case command(Command)
            case configuration(Membership)
        }

        public var index: UInt64
        public var term: UInt64
        public var content: Content

        public init(index: UInt64, term: UInt64, content: Content) {
            self.index = index
            self.term = term
            self.content = content
        }

        public init(index: UInt64, term: UInt64, command: Command?) {
            self.init(index: index, term: term, content: command.map(Content.command) ?? .none)
        }

        /// - Throws: `Unknown` when this build cannot read the entry: stop applying then.
        public init(_ entry: Entry) throws(Command.Unknown) {
            switch entry.kind {
            case .noop: self.init(index: entry.index, term: entry.term, content: .none)
            case .command:
                let command = try Command(decoding: entry.payload)
                self.init(index: entry.index, term: entry.term, content: .command(command))
            case .configuration:
                guard let membership = Membership(decoding: entry.payload) else {
                    throw Command.Unknown(version: 0, kind: 0, detail: "membership")
                }
                self.init(index: entry.index, term: entry.term, content: .configuration(membership))
            }
        }

        var comparesState: Bool {
            if case .command(let command) = content, command.change == .compareState { return true }
            return false
        }
    }

    /// How many of these entries, from the first and at most `max`, to apply at once, so that all of them are applied or
    /// none: a comparison of the state ends a transaction.
    public static func batch(of entries: some Sequence<Entry>, max: Int) -> Int {
        var count = 0
        for entry in entries {
            if count == max { break }
            count += 1
            if entry.kind == .command, Command.isComparison(entry.payload) { break }
        }
        return count
    }

    /// Applies committed entries, all in one transaction but for `compareState`, which ends one.
    ///
    /// Entries at or below the applied index are skipped, so that replay after a crash is harmless.
    /// - Returns: one result per command, in order, and what was touched.
    /// - Throws: `NoSpace` when the disk is full: of a batch as `batch(of:max:)` cuts them nothing was applied then.
    ///   Anything else: the state cannot be written, stop applying.
    public func apply(_ inputs: [Input]) throws -> (results: [Applied], touched: Touched) {
        var results: [Applied] = []
        var touched = Touched()
        var rest = inputs[...]
        while !rest.isEmpty {
            let compared = rest.firstIndex { $0.comparesState }
            let end = compared.map { $0 + 1 } ?? rest.endIndex
            let applied: UInt64
            do {
                applied = try database.write { db in
                    var batch = try ApplyBatch(db)
                    try batch.apply(rest[..<end], &results, &touched)
                    return batch.applied
                }
            } catch let error as DatabaseError where error.isNoSpace {
                throw NoSpace(description: "no room for the state: \(error.message ?? "the disk is full")")
            }
            // Not for one met again after a crash: the state is further already.
            if let compared, rest[compared].index == applied {
                touched.pictures.append(try StatePicture(index: applied, of: database))
            }
            rest = rest[end...]
        }
        return (results, touched)
    }
}

extension DatabaseError {
    /// The disk is full. SQLite names it otherwise when it is the index of its write-ahead log that cannot grow.
    fileprivate var isNoSpace: Bool {
        resultCode == .SQLITE_FULL || extendedResultCode == .SQLITE_IOERR_SHMSIZE
    }
}

/// The work of one transaction.
private struct ApplyBatch {
    private let db: Database
    private let applier: Applier
    private(set) var applied: UInt64
    private var term: UInt64
    private var logTime: Timestamp
    private var eventsCompacted: UInt64

    /// Old events and requests go at every index divisible by this: at the same indexes on every replica, whatever its
    /// batches are, and not with every command.
    private static let trimIndexes: UInt64 = 64

    init(_ db: Database) throws {
        self.db = db
        applier = Applier(db: db)
        let statement = try HotStatement(
            db, "SELECT applied_index, applied_term, log_time, events_compacted FROM meta WHERE id = 1")
        guard let row = try statement.firstRow(integers: 4) else { throw CorruptRow("meta", "no row") }
        applied = UInt64(bitPattern: row[0])
        term = UInt64(bitPattern: row[1])
        logTime = Timestamp(milliseconds: row[2])
        eventsCompacted = UInt64(bitPattern: row[3])
    }

    mutating func apply(
        _ inputs: ArraySlice<StateMachine.Input>, _ results: inout [Applied], _ touched: inout Touched
    ) throws {
        let before = applied
        for input in inputs where input.index > applied {
            precondition(input.index == applied + 1, "entry \(input.index) after \(applied)")
            applied = input.index
            term = input.term
            switch input.content {
            case .none: break
            case .configuration(let membership): try adopt(membership, &touched)
            case .command(let command): results.append(try apply(command, &touched))
            }
            if applied % Self.trimIndexes == 0 { try trim() }
        }
        guard applied > before else { return }
        var statement = try HotStatement(
            db, "UPDATE meta SET applied_index = ?, applied_term = ?, log_time = ?, events_compacted = ? WHERE id = 1")
        statement.bind(Int64(bitPattern: applied))
        statement.bind(Int64(bitPattern: term))
        statement.bind(logTime.milliseconds)
        statement.bind(Int64(bitPattern: eventsCompacted))
        _ = try statement.run()
    }

    private mutating func apply(_ command: Command, _ touched: inout Touched) throws -> Applied {
        logTime = max(logTime, command.at)
        if let request = command.request, let (index, outcome) = try Requests.repeated(db, request: request) {
            return Applied(index: applied, version: index, outcome: outcome)
        }
        applier.begin(index: applied, now: logTime)
        let outcome = try outcome(of: command.change)
        if case .done = outcome {
            let events = applier.events.take()
            for event in events { try event.insert(into: db) }
            touched.formUnion(applier.touched)
            touched.events += events
        }
        if let request = command.request {
            try Requests.remember(db, request: request, index: applied, at: logTime, outcome)
        }
        return Applied(index: applied, outcome: outcome)
    }

    /// A command that fails half way leaves nothing; a refusal is a value, an error stops the node.
    private func outcome(of change: Change) throws -> Applied.Outcome {
        do {
            guard change.mayUndo else { return try applier.apply(change) }
            var outcome = Applied.Outcome.done(.unchanged)
            try db.inSavepoint {
                outcome = try applier.apply(change)
                if case .refused = outcome { return .rollback }
                return .commit
            }
            return outcome
        } catch let error as DatabaseError where error.resultCode == .SQLITE_CONSTRAINT {
            // Every replica meets the same rows and refuses alike: better than never applying again.
            return .refused(
                Problem(
                    .internal, "the change contradicts the state: \(error.message ?? "constraint failed")",
                    hint: "this is a defect; please report it"))
        }
    }

    private mutating func adopt(_ membership: Membership, _ touched: inout Touched) throws {
        let point = ConfigurationPoint(index: applied, membership: membership)
        try StateMachine.write(point, db)
        let event = StateEvent(
            index: applied, sub: 0, kind: .cluster, namespace: "", name: "membership", change: .updated,
            version: applied)
        try event.insert(into: db)
        touched.configuration = point
        touched.events.append(event)
        // Roles are what the log's membership says; people and queries find them with the nodes.
        try db.run("UPDATE nodes SET role = 'observer' WHERE role != 'observer'")
        for (role, members) in [("voter", membership.voters), ("standby", membership.learners)] {
            for member in members {
                try db.run("UPDATE nodes SET role = ? WHERE member = ?", [role, Int64(bitPattern: member)])
            }
        }
        touched.nodes = true
    }

    private mutating func trim() throws {
        try Requests.trim(db, index: applied, now: logTime)
        guard applied > StateMachine.eventIndexesKept else { return }
        let through = applied - StateMachine.eventIndexesKept
        guard through > eventsCompacted else { return }
        try db.run("DELETE FROM events WHERE log_index <= ?", [Int64(bitPattern: through)])
        eventsCompacted = through
    }
}

extension Change {
    /// Whether it may be refused, or meet a row that contradicts it, after its first write. The others need no savepoint.
    fileprivate var mayUndo: Bool {
        switch self {
        case .putConfig, .deleteConfig, .compareState: false
        default: true
        }
    }
}
