// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model

extension Applier {
    func configVersion(_ key: ObjectKey) throws -> UInt64? {
        try db.row("SELECT version FROM configs WHERE namespace = ? AND name = ?", [key.namespace, key.name])?
            .index("version")
    }

    func putConfig(_ change: PutConfig) throws -> Applied.Outcome {
        let existing = try configVersion(change.config)
        if let problem = check(change.condition, version: existing, what: "config `\(change.config)`") {
            return .refused(problem)
        }
        try db.run(
            """
            INSERT INTO configs VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (namespace, name) DO UPDATE SET data = excluded.data, version = excluded.version,
                updated_at = excluded.updated_at
            """,
            [change.config.namespace, change.config.name, change.data, version, now.milliseconds])
        note(.config, change.config, existing == nil ? .created : .updated)
        return .done(existing == nil ? .created : .changed)
    }

    func deleteConfig(_ change: DeleteConfig) throws -> Applied.Outcome {
        let existing = try configVersion(change.config)
        if let problem = check(change.condition, version: existing, what: "config `\(change.config)`") {
            return .refused(problem)
        }
        guard existing != nil else {
            return .refused(
                Problem(.notFound, "no config `\(change.config)`", hint: "`hivemind config ls` shows what there is"))
        }
        try db.run(
            "DELETE FROM configs WHERE namespace = ? AND name = ?", [change.config.namespace, change.config.name])
        note(.config, change.config, .deleted)
        return .done(.changed)
    }
}
