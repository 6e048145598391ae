// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Raft
internal import Synchronization

/// This data directory's incarnation, and those seen of other members: `peers.json`.
///
/// A member whose directory was lost comes back with another incarnation under its old id. It has forgotten whom it voted
/// for and what it acknowledged: taking it back could undo what was agreed.
final class KnownIncarnations: Sendable {
    /// Ids remembered, at most; removed members stay, ids are never used again.
    static let knownMax = 8_192

    private struct File: Codable {
        struct Known: Codable {
            var id: MemberID
            var incarnation: UInt64
        }

        var incarnation: UInt64
        var known: [Known]
    }

    let own: UInt64
    private let path: String
    private let known: Mutex<[MemberID: UInt64]>

    static func path(_ dataDirectory: String) -> String { dataDirectory + "/peers.json" }

    /// Reads the file or makes it, durably, with a fresh incarnation.
    init(dataDirectory: String) throws(DaemonError) {
        path = Self.path(dataDirectory)
        if FileManager.default.fileExists(atPath: path) {
            do {
                guard let data = FileManager.default.contents(atPath: path) else { throw CocoaError(.fileReadUnknown) }
                let file = try JSON.decode(File.self, from: data)
                own = file.incarnation
                known = Mutex(
                    Dictionary(file.known.map { ($0.id, $0.incarnation) }, uniquingKeysWith: { first, _ in first }))
                return
            } catch {
                throw DaemonError(
                    "`\(path)` cannot be read: \(error)",
                    hint: "restore it from a backup; without it this member counts as a new one")
            }
        }
        var generator = SystemRandomNumberGenerator()
        own = UInt64.random(in: 1...UInt64.max, using: &generator)
        known = Mutex([:])
        try write([:])
    }

    /// Whether this is the incarnation known of `member`; the first one seen becomes the known one, durably.
    /// Blocks for a write to disk when a member is seen for the first time.
    func admit(_ member: MemberID, incarnation: UInt64) throws(DaemonError) -> Bool {
        // Under the lock: of two connections with different incarnations only one may be the first.
        try known.withLock { (table) throws(DaemonError) -> Bool in
            if let seen = table[member] { return seen == incarnation }
            guard table.count < Self.knownMax else {
                throw DaemonError("`\(path)` already names \(Self.knownMax) members, member id \(member) has no place")
            }
            var next = table
            next[member] = incarnation
            try write(next)
            table = next
            return true
        }
    }

    /// The same without a write: nil when the member was never seen.
    func isKnown(_ member: MemberID, incarnation: UInt64) -> Bool? {
        known.withLock { $0[member].map { $0 == incarnation } }
    }

    private func write(_ table: [MemberID: UInt64]) throws(DaemonError) {
        let known = table.sorted { $0.key < $1.key }.map { File.Known(id: $0.key, incarnation: $0.value) }
        do {
            try DurableFile.write(try JSON.encode(File(incarnation: own, known: known), pretty: true), to: path)
        } catch {
            throw DaemonError("cannot record who the members are in `\(path)`: \(error)")
        }
    }
}
