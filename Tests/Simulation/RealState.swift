// SPDX-License-Identifier: Apache-2.0

internal import Model
internal import Raft
internal import Store

/// The product's state machine on SQLite in memory, fed with the same entries as the model beside it.
///
/// The registers of the model are configs: `put` and `swap` put them, the latter on a version, 0 deletes. Reads and
/// snapshots are this state's; what it answers, what happened in it and its digest are compared between members and with
/// the model.
final class RealState {
    private var machine: StateMachine

    init(founding: Membership) throws {
        machine = try StateMachine(path: nil, initialMembership: founding)
    }

    /// What one entry did.
    struct Step: Equatable {
        var applied: Applied?
        var events: [StateEvent] = []
    }

    /// Applies entries in transactions as the product cuts them.
    /// - Returns: what each did, in order, and digests where members compare their states.
    func apply(_ entries: [Entry]) throws -> (steps: [Step], digests: [StateDigest]) {
        var steps: [Step] = []
        var digests: [StateDigest] = []
        var rest = entries[...]
        while !rest.isEmpty {
            let batch = rest.prefix(StateMachine.batch(of: rest, max: 64))
            rest = rest.dropFirst(batch.count)
            let (results, touched) = try machine.apply(try batch.map { try StateMachine.Input($0) })
            var result = results[...]
            for entry in batch {
                steps.append(
                    Step(
                        applied: entry.kind == .command ? result.popFirst() : nil,
                        events: touched.events.filter { $0.index == entry.index }))
            }
            for picture in touched.pictures { digests.append(try picture.digest()) }
        }
        return (steps, digests)
    }

    func image() throws -> [UInt8] { try machine.serialized() }

    /// As a member does with a snapshot: into the state there is.
    func install(_ image: [UInt8]) throws { _ = try machine.install(serialized: image) }

    /// What a power cut left.
    func reopen(_ image: [UInt8]) throws {
        machine = try StateMachine(path: nil)
        try install(image)
    }

    func value(of key: Int) throws -> (value: UInt64, index: UInt64) {
        try machine.read { view in
            let config = try view.config(ModelCommand.config(key))
            return (config.map { ModelCommand.values($0.data).value } ?? 0, try view.meta().appliedIndex)
        }
    }

    /// Nil when some of them are gone.
    func events(after index: UInt64) throws -> (events: [StateEvent], through: UInt64)? {
        switch try machine.read({ try $0.events(after: index, limit: 64) }) {
        case .events(let events, let through): (events, through)
        case .compacted: nil
        }
    }

    func digest() throws -> StateDigest { try machine.digest() }
}

// The model's commands as the product's.
extension ModelCommand {
    static func config(_ key: Int) -> ObjectKey { ObjectKey(name: "key-\(key)") }

    static func values(_ data: String) -> (value: UInt64, expected: UInt64) {
        let words = data.split(separator: " ").prefix(2).compactMap { UInt64($0) }
        return words.count == 2 ? (words[0], words[1]) : (0, 0)
    }

    /// - Parameters:
    ///   - version: index at which `expected` was put, where the register held it.
    ///   - at: the clock of the member that proposes, in milliseconds.
    func real(version: UInt64, at: UInt64, padding: Int) throws -> [UInt8] {
        let config = Self.config(key)
        let condition: Precondition = kind == .put ? .none : expected == 0 ? .absent : .version(version)
        let data = "\(value) \(expected) " + String(repeating: "x", count: padding)
        let change: Change =
            value == 0
            ? .deleteConfig(DeleteConfig(config: config, condition: condition))
            : .putConfig(PutConfig(config: config, data: data, condition: condition))
        return try Command(request: "\(request)", at: Timestamp(milliseconds: Int64(at)), change: change).encoded()
    }

    /// Nil for a command that is none of the model's.
    init?(real payload: [UInt8]) throws {
        let command = try Command(decoding: payload)
        guard let request = command.request.flatMap({ UInt64($0) }) else { return nil }
        switch command.change {
        case .putConfig(let put):
            guard let key = Int(put.config.name.dropFirst("key-".count)) else { return nil }
            let (value, expected) = Self.values(put.data)
            self.init(
                kind: put.condition == .none ? .put : .swap, request: request, key: key, value: value,
                expected: expected)
        case .deleteConfig(let delete):
            guard let key = Int(delete.config.name.dropFirst("key-".count)) else { return nil }
            self.init(kind: .put, request: request, key: key, value: 0)
        default: return nil
        }
    }

    static func comparison(at: UInt64) throws -> [UInt8] {
        try Command(at: Timestamp(milliseconds: Int64(at)), change: .compareState).encoded()
    }
}
