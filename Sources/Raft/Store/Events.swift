// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model
internal import Raft

/// Something that happened to one object, derived from the command that did it: the same on every replica.
public struct StateEvent: Hashable, Sendable {
    /// Raw values are columns of the state and words of the API.
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        case app, service, task, node, volume, config, cluster
    }
    public enum Change: String, Hashable, Sendable, CaseIterable {
        case created, updated, deleted
    }

    /// Of the log entry.
    public var index: UInt64
    /// Order within the entry, from 0.
    public var sub: Int
    public var kind: Kind
    /// Empty for kinds without one: node and cluster.
    public var namespace: String
    /// A service is named `app/service`, a task by its id, the membership of the cluster `membership`.
    public var name: String
    public var change: Change
    /// Of the object after it; of a deleted one the index that deleted it.
    public var version: UInt64

    public init(
        index: UInt64, sub: Int, kind: Kind, namespace: String, name: String, change: Change, version: UInt64
    ) {
        self.index = index
        self.sub = sub
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.change = change
        self.version = version
    }
}

/// The answer to "what happened since": everything, or that it can no longer be told.
public enum EventPage: Hashable, Sendable {
    /// In order and without a gap up to the index `through`, from which the next page goes on. It is the applied index
    /// when there are no more now, also when the page is empty.
    case events([StateEvent], through: UInt64)
    /// Some of it is no longer kept: list the objects and go on after `applied`. `oldest` is the first index kept.
    case compacted(oldest: UInt64, applied: UInt64)
}

extension StateView {
    /// What happened after an index, or after one event of it (`sub`), in the order it happened.
    ///
    /// The events of one entry are never divided: a page may hold more than `limit` when one entry did more. An index in
    /// the future answers with an empty page.
    public func events(after index: UInt64, sub: Int? = nil, limit: Int) throws -> EventPage {
        let meta = try StateMachine.meta(db)
        // With a `sub` the rest of that very index is asked for.
        let isKept = sub == nil || index == 0 ? index >= meta.eventsCompacted : index > meta.eventsCompacted
        guard isKept else {
            return .compacted(oldest: meta.eventsCompacted + 1, applied: meta.appliedIndex)
        }
        guard index <= meta.appliedIndex else { return .events([], through: meta.appliedIndex) }
        let limit = max(1, limit)
        let from: StatementArguments = [Int64(bitPattern: index), sub ?? Int(Int32.max)]
        var found = try db.rows(
            "SELECT * FROM events WHERE (log_index, sub) > (?, ?) ORDER BY log_index, sub LIMIT ?",
            from + [limit + 1]
        ).map(StateEvent.init)
        guard found.count > limit, let cut = found.last?.index else {
            return .events(found, through: meta.appliedIndex)
        }
        if let first = found.first?.index, first == cut {
            found = try db.rows(
                "SELECT * FROM events WHERE (log_index, sub) > (?, ?) AND log_index <= ? ORDER BY log_index, sub",
                from + [Int64(bitPattern: cut)]
            ).map(StateEvent.init)
        } else {
            found.removeAll { $0.index == cut }
        }
        return .events(found, through: found.last?.index ?? index)
    }

    /// Version the object of an event has now; nil when it is gone. The view of an object belongs to an event only when
    /// this is still the event's version.
    public func version(of event: StateEvent) throws -> UInt64? {
        func version(_ sql: String, _ arguments: StatementArguments) throws -> UInt64? {
            try db.row(sql, arguments)?.index("version")
        }
        switch event.kind {
        case .app:
            return try version(
                "SELECT version FROM apps WHERE namespace = ? AND name = ?", [event.namespace, event.name])
        case .service:
            guard let slash = event.name.firstIndex(of: "/") else { return nil }
            return try version(
                "SELECT version FROM services WHERE namespace = ? AND app = ? AND name = ?",
                [
                    event.namespace, String(event.name[..<slash]),
                    String(event.name[event.name.index(after: slash)...]),
                ])
        case .task: return try version("SELECT version FROM tasks WHERE id = ?", [event.name])
        case .node: return try version("SELECT changed_index AS version FROM nodes WHERE name = ?", [event.name])
        case .volume:
            return try version(
                "SELECT version FROM volumes WHERE namespace = ? AND name = ?", [event.namespace, event.name])
        case .config:
            return try version(
                "SELECT version FROM configs WHERE namespace = ? AND name = ?", [event.namespace, event.name])
        case .cluster: return try meta().configuration.index
        }
    }
}

extension StateMachine {
    /// Indexes of which events are kept.
    public static let eventIndexesKept: UInt64 = 50_000

    /// `StateView.events` on the calling thread.
    public func events(after index: UInt64, sub: Int? = nil, limit: Int) throws -> EventPage {
        try read { try $0.events(after: index, sub: sub, limit: limit) }
    }
}

extension StateEvent {
    init(row: Row) throws {
        guard let kind = Kind(rawValue: row.text("kind")), let change = Change(rawValue: row.text("change")) else {
            throw CorruptRow("events", "\(row.text("kind")) \(row.text("change"))")
        }
        self.init(
            index: row.index("log_index"), sub: row.integer("sub"), kind: kind, namespace: row.text("namespace"),
            name: row.text("name"), change: change, version: row.index("version"))
    }

    func insert(into db: Database) throws {
        var statement = try HotStatement(db, "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)")
        statement.bind(Int64(bitPattern: index))
        statement.bind(Int64(sub))
        statement.bind(kind.rawValue)
        statement.bind(namespace)
        statement.bind(name)
        statement.bind(change.rawValue)
        statement.bind(Int64(bitPattern: version))
        _ = try statement.run()
    }
}

/// What one command did to each object, once an object, in the order it was first touched.
struct EventDraft {
    private(set) var events: [StateEvent] = []
    private var places: [Place: Int] = [:]

    private struct Place: Hashable {
        var kind: StateEvent.Kind
        var namespace: String
        var name: String
    }

    mutating func note(_ event: StateEvent) {
        let place = Place(kind: event.kind, namespace: event.namespace, name: event.name)
        guard let known = places[place] else {
            places[place] = events.count
            events.append(event)
            return
        }
        switch (events[known].change, event.change) {
        case (.deleted, .created), (.deleted, .updated): events[known].change = .updated
        case (.created, .deleted), (.updated, .deleted): events[known].change = .deleted
        case (.created, _), (.updated, _), (.deleted, .deleted): break
        }
        events[known].version = event.version
    }

    /// The events, numbered, and an empty draft.
    mutating func take() -> [StateEvent] {
        guard !events.isEmpty else { return [] }
        var taken = events
        for sub in taken.indices { taken[sub].sub = sub }
        events.removeAll(keepingCapacity: true)
        places.removeAll(keepingCapacity: true)
        return taken
    }

    mutating func clear() {
        _ = take()
    }
}
