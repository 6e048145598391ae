// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import GRDB
internal import Model

/// Exactly once: the answer of each request id, kept for an hour of log time and over so many entries of the log, as part
/// of the state and so of every snapshot.
enum Requests {
    static let keptMilliseconds: Int64 = 3_600_000
    /// An entry has one request at most: this bounds the rows, too.
    static let keptIndexes: UInt64 = 100_000

    private struct Answer: Codable {
        var problem: Problem?
        var rollout: String?
        var created: Bool?
    }

    /// The answer to an earlier command with this id and the index of its entry.
    static func repeated(_ db: Database, request: String) throws -> (index: UInt64, outcome: Applied.Outcome)? {
        guard let row = try db.row("SELECT applied_index, result FROM requests WHERE id = ?", [request]) else {
            return nil
        }
        return (row.index("applied_index"), try outcome(row.text("result")))
    }

    private static func outcome(_ text: String) throws -> Applied.Outcome {
        switch text {
        case "changed": return .done(.changed)
        case "created": return .done(.created)
        case "unchanged": return .done(.unchanged)
        default:
            let answer = try JSON.decode(Answer.self, from: Data(text.utf8))
            if let problem = answer.problem { return .refused(problem) }
            guard let rollout = answer.rollout else { throw CorruptRow("requests", text) }
            return .done(.rollout(id: rollout, created: answer.created ?? false))
        }
    }

    static func remember(
        _ db: Database, request: String, index: UInt64, at: Timestamp, _ outcome: Applied.Outcome
    ) throws {
        let result =
            switch outcome {
            case .refused(let problem): try encodeText(Answer(problem: problem))
            case .done(.rollout(let id, let created)): try encodeText(Answer(rollout: id, created: created))
            case .done(.created): "created"
            case .done(.unchanged): "unchanged"
            case .done(.changed): "changed"
            }
        try db.run(
            "INSERT INTO requests VALUES (?, ?, ?, ?)",
            [Int64(bitPattern: index), request, result, at.milliseconds])
    }

    /// Forgets what is too old, in steps: at most so many for their age at once, which is more than come between two
    /// calls. Times never go back along the log, so the oldest rows are those of the lowest indexes.
    static func trim(_ db: Database, index: UInt64, now: Timestamp) throws {
        let row = try db.row(
            """
            SELECT max(applied_index) AS through
            FROM (SELECT applied_index, at FROM requests ORDER BY applied_index LIMIT 256) WHERE at < ?
            """, [now.milliseconds - keptMilliseconds])
        let aged = (row?["through"] as Int64?).map(UInt64.init(bitPattern:)) ?? 0
        let pushedOut = index > keptIndexes ? index - keptIndexes : 0
        let through = max(aged, pushedOut)
        guard through > 0 else { return }
        try db.run("DELETE FROM requests WHERE applied_index <= ?", [Int64(bitPattern: through)])
    }
}
