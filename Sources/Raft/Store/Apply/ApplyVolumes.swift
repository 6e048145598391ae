// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model

extension Applier {
    func putVolume(_ change: PutVolume) throws -> Applied.Outcome {
        if let row = try db.row(
            "SELECT deleting FROM volumes WHERE namespace = ? AND name = ?",
            [change.volume.namespace, change.volume.name])
        {
            if row.flag("deleting") {
                return .refused(
                    Problem(.conflict, "volume `\(change.volume)` is being deleted", hint: "try again in a moment"))
            }
            return .done(.unchanged)
        }
        try db.run(
            "INSERT INTO volumes VALUES (?, ?, 'local', ?, 0, ?, ?)",
            [change.volume.namespace, change.volume.name, change.node?.raw, version, now.milliseconds])
        touched.volumes.insert(change.volume)
        note(.volume, change.volume, .created)
        return .done(.created)
    }

    /// Marks the volume; its node deletes the data and then asks for `removeVolume`. A node that was removed never will.
    func deleteVolume(_ change: VolumeChange) throws -> Applied.Outcome {
        let key = change.volume
        guard
            let row = try db.row(
                """
                SELECT deleting, coalesce(node IN (SELECT id FROM removed_nodes), 0) AS lost FROM volumes
                WHERE namespace = ? AND name = ?
                """, [key.namespace, key.name])
        else {
            return .refused(
                Problem(.notFound, "no volume `\(key)`", hint: "`hivemind volume ls` shows what there is"))
        }
        let users = try volumeUsers(key)
        guard users.isEmpty else {
            return .refused(
                Problem(
                    .volumeInUse,
                    "volume `\(key)` is used by \(users.map { "app `\($0)`" }.joined(separator: ", "))",
                    hint: "delete or change \(users.count == 1 ? "that app" : "those apps") first"))
        }
        if row.flag("deleting"), !row.flag("lost") { return .done(.unchanged) }
        try db.run(
            "UPDATE volumes SET deleting = 1, version = ? WHERE namespace = ? AND name = ?",
            [version, key.namespace, key.name])
        if row.flag("lost") { return try removeVolume(change) }
        note(.volume, key, .updated)
        touched.volumes.insert(key)
        return .done(.changed)
    }

    func removeVolume(_ change: VolumeChange) throws -> Applied.Outcome {
        try db.run(
            "DELETE FROM volumes WHERE namespace = ? AND name = ? AND deleting = 1",
            [change.volume.namespace, change.volume.name])
        if db.changesCount > 0 { note(.volume, change.volume, .deleted) }
        touched.volumes.insert(change.volume)
        return .done(.changed)
    }

    /// Nobody is left to delete the data of those that were to be deleted.
    func removeVolumes(of node: NodeID) throws {
        let keys = try db.rows(
            "SELECT namespace, name FROM volumes WHERE node = ? AND deleting = 1 ORDER BY namespace, name", [node.raw]
        ).map { ObjectKey(namespace: $0.text("namespace"), name: $0.text("name")) }
        for key in keys { _ = try removeVolume(VolumeChange(volume: key)) }
    }

    /// Apps whose spec or living tasks mount it.
    func volumeUsers(_ key: ObjectKey) throws -> [String] {
        try db.rows(
            "SELECT app FROM volume_users WHERE namespace = ? AND volume = ? ORDER BY app", [key.namespace, key.name]
        ).map { $0.text("app") }
    }

    /// Volumes of the app's specs, also of generations whose tasks may still run and of the release a rollout may go
    /// back to; made when they do not exist.
    func updateVolumeUsers(_ app: ObjectKey) throws {
        try db.run("DELETE FROM volume_users WHERE namespace = ? AND app = ?", [app.namespace, app.name])
        var specs = try serviceRows(app).filter { !$0.removed }.map(\.spec)
        specs += try db.rows(
            """
            SELECT g.spec FROM specs g WHERE g.namespace = ? AND g.app = ? AND EXISTS (
                SELECT 1 FROM tasks t WHERE t.namespace = g.namespace AND t.app = g.app AND t.service = g.service
                    AND t.generation = g.generation AND t.state NOT IN ('stopped', 'failed'))
            ORDER BY g.service, g.generation
            """, [app.namespace, app.name]
        ).map { try decodeSpec($0.text("spec")) }
        if let rollout = try currentRollout(app), rollout.state == .running, let previous = rollout.previousRelease {
            specs += try releaseServices(app, previous).map(\.spec)
        }
        for spec in specs {
            for mount in spec.mounts {
                guard case .volume(let name) = mount.source else { continue }
                _ = try putVolume(PutVolume(volume: ObjectKey(namespace: app.namespace, name: name), node: nil))
                try db.run(
                    "INSERT INTO volume_users VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    [app.namespace, name, app.name])
            }
        }
    }
}
