// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model

extension Applier {
    func configVersion(_ key: ObjectKey) throws -> UInt64? {
        try db.row("SELECT version FROM configs WHERE namespace = ? AND name = ?", [key.namespace, key.name])?
            .index("version")
    }

    func putConfig(_ change: PutConfig) throws -> Applied.Outcome {
        // The row need not be read when nothing is asked of it.
        if change.condition == .none, try updateConfig(change) {
            note(.config, change.config, .updated)
            return .done(.changed)
        }
        let existing = try configVersion(change.config)
        if let problem = check(change.condition, version: existing, what: "config `\(change.config)`") {
            return .refused(problem)
        }
        if existing == nil { try insertConfig(change) } else { _ = try updateConfig(change) }
        note(.config, change.config, existing == nil ? .created : .updated)
        return .done(existing == nil ? .created : .changed)
    }

    /// - Returns: false when there is none.
    private func updateConfig(_ change: PutConfig) throws -> Bool {
        var statement = try HotStatement(
            db, "UPDATE configs SET data = ?, version = ?, updated_at = ? WHERE namespace = ? AND name = ?")
        statement.bind(change.data)
        statement.bind(version)
        statement.bind(now.milliseconds)
        statement.bind(change.config.namespace)
        statement.bind(change.config.name)
        return try statement.run() > 0
    }

    private func insertConfig(_ change: PutConfig) throws {
        var statement = try HotStatement(db, "INSERT INTO configs VALUES (?, ?, ?, ?, ?)")
        statement.bind(change.config.namespace)
        statement.bind(change.config.name)
        statement.bind(change.data)
        statement.bind(version)
        statement.bind(now.milliseconds)
        _ = try statement.run()
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
