// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model

// Tokens of people and programs for the API.
extension Applier {
    static let apiTokensMax = 1_000
    /// For so long after its end a token is told that it expired; then it is as if it had never been.
    static let apiTokenRestMilliseconds: Int64 = 7 * 86_400_000

    func putAPIToken(_ token: APITokenRow) throws -> Applied.Outcome {
        try db.run(
            "DELETE FROM api_tokens WHERE expires_at <= ?", [now.milliseconds - Self.apiTokenRestMilliseconds])
        if try apiTokenCount() >= Self.apiTokensMax {
            try db.run("DELETE FROM api_tokens WHERE expires_at <= ?", [now.milliseconds])
        }
        let count = try apiTokenCount()
        guard count < Self.apiTokensMax else {
            return .refused(
                Problem(
                    .conflict, "there are \(count) API tokens already",
                    hint: "revoke some: hivemind auth token revoke ID"))
        }
        // Ids are random: whoever meets one that is there is to make another, not to replace it.
        guard try db.row("SELECT id FROM api_tokens WHERE id = ?", [token.id]) == nil else {
            return .refused(Problem(.conflict, "there is an API token \(token.id) already", hint: "try again"))
        }
        try db.run(
            "INSERT INTO api_tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                token.id, token.name, token.hash, token.role.rawValue, token.namespace, token.createdAt.milliseconds,
                token.expiresAt.milliseconds, version,
            ])
        return .done(.created)
    }

    func removeAPIToken(_ change: APITokenChange) throws -> Applied.Outcome {
        guard try db.row("SELECT id FROM api_tokens WHERE id = ?", [change.id]) != nil else {
            return .done(.unchanged)
        }
        try db.run("DELETE FROM api_tokens WHERE id = ?", [change.id])
        return .done(.changed)
    }

    private func apiTokenCount() throws -> Int {
        try db.row("SELECT count(*) AS n FROM api_tokens")?.integer("n") ?? 0
    }
}
