// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model

extension Applier {
    func taskHead(_ id: TaskID) throws -> TaskHead? {
        try db.row("\(TaskHead.select) WHERE id = ?", [id.raw]).map(TaskHead.init)
    }

    func assignTasks(_ change: AssignTasks) throws -> Applied.Outcome {
        var placed = 0
        // Most tasks of one command are of one service: what is the same for all of them is read once.
        var apps: [ObjectKey: (row: AppRow, services: [ServiceRow])?] = [:]
        var nodes: [NodeID: Bool] = [:]
        for task in change.tasks {
            if apps[task.app] == nil {
                apps[task.app] = .some(try appRow(task.app).map { ($0, try serviceRows(task.app)) })
            }
            if nodes[task.node] == nil { nodes[task.node] = try takesTasks(task.node, change.decidedAt) }
            guard let (app, services) = apps[task.app] ?? nil, !app.deleting, nodes[task.node] == true,
                let service = services.first(where: { $0.name == task.service }),
                service.generation == task.generation, !service.removed,
                try taskHead(task.id) == nil,
                try isFree(task.address)
            else { continue }
            try take(task.address, kind: "task", owner: "task/\(task.id)")
            try db.run(
                """
                INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, 'run', 'pending', 0, ?, NULL, NULL, 0, NULL,
                    NULL, NULL, NULL, ?, ?, NULL, NULL, ?, ?, 0)
                """,
                [
                    task.id.raw, task.app.namespace, task.app.name, task.service, task.generation, app.release,
                    task.node.raw, task.address.description, service.spec.image, now.milliseconds,
                    version << 10 | Int64(placed & 1023), version,
                ])
            for mount in service.spec.mounts {
                guard case .volume(let name) = mount.source else { continue }
                try db.run(
                    "UPDATE volumes SET node = ?, version = ? WHERE namespace = ? AND name = ? AND node IS NULL",
                    [task.node.raw, version, task.app.namespace, name])
                guard db.changesCount > 0 else { continue }
                note(.volume, task.app.namespace, name, .updated)
                touched.volumes.insert(ObjectKey(namespace: task.app.namespace, name: name))
            }
            note(.task, task.app.namespace, task.id.raw, .created)
            placed += 1
            touched.tasks.insert(task.id)
            touched.apps.insert(task.app)
        }
        return .done(placed == 0 ? .unchanged : .changed)
    }

    /// It may have been cordoned, labelled, lost or removed since the task was placed.
    private func takesTasks(_ node: NodeID, _ decidedAt: UInt64?) throws -> Bool {
        guard let row = try db.row("SELECT availability, changed_index FROM nodes WHERE id = ?", [node.raw]) else {
            return false
        }
        return row.text("availability") == NodeRow.Availability.active.rawValue
            && decidedAt.map { row.index("changed_index") <= $0 } ?? true
    }

    private func isFree(_ address: IPv4Address) throws -> Bool {
        guard let row = try db.row("SELECT released_at FROM addresses WHERE address = ?", [address.description]) else {
            return true
        }
        guard let released = row.optionalTime("released_at") else { return false }
        return now - released >= AddressPool.restMilliseconds
    }

    func stopTasks(_ change: StopTasks) throws -> Applied.Outcome {
        for id in change.tasks {
            guard let task = try taskHead(id), task.goal == .run else { continue }
            if task.status.state.isTerminal {
                // Ended by itself before: the goal changes, its own reason stays.
                try db.run("UPDATE tasks SET goal = 'stop', version = ? WHERE id = ?", [version, id.raw])
            } else {
                try db.run(
                    """
                    UPDATE tasks SET goal = 'stop', ready = 0, reason_code = ?, reason_message = ?, reason_hint = ?,
                        version = ? WHERE id = ?
                    """,
                    [change.reason.code.rawValue, change.reason.message, change.reason.hint, version, id.raw])
            }
            note(.task, task.app.namespace, id.raw, .updated)
            touched.tasks.insert(id)
            touched.apps.insert(task.app)
        }
        return .done(.changed)
    }

    func moveTasks(_ change: MoveTasks) throws -> Applied.Outcome {
        var outcome = Applied.Outcome.done(.unchanged)
        for id in change.tasks {
            guard let task = try taskHead(id), task.goal == .run, !task.status.state.isTerminal else { continue }
            try db.run(
                "UPDATE tasks SET moving = ?, version = ? WHERE id = ? AND moving != ?",
                [change.moving, version, id.raw, change.moving])
            guard db.changesCount > 0 else { continue }
            note(.task, task.app.namespace, id.raw, .updated)
            touched.tasks.insert(id)
            touched.apps.insert(task.app)
            outcome = .done(.changed)
        }
        return outcome
    }

    func recordTasks(_ change: RecordTasks) throws -> Applied.Outcome {
        for report in change.reports {
            guard let task = try taskHead(report.task) else { continue }
            // States only advance, and what has ended stays as it ended.
            if task.status.state.isTerminal || report.status.state < task.status.state { continue }
            var status = report.status
            if task.goal == .stop { status.ready = false }
            if status == task.status { continue }
            let ended = status.state.isTerminal
            try db.run(
                """
                UPDATE tasks SET state = ?, ready = ?, container_id = ?, pid = ?, restarts = ?, exit_code = ?,
                    reason_code = ?, reason_message = ?, reason_hint = ?, started_at = ?, ended_at = ?, version = ?
                WHERE id = ?
                """,
                [
                    status.state.rawValue, status.ready, status.container?.raw, status.pid.map { Int($0) },
                    status.restarts, status.exitCode, status.reason?.code.rawValue, status.reason?.message,
                    status.reason?.hint, status.startedAt?.milliseconds, ended ? now.milliseconds : nil, version,
                    report.task.raw,
                ])
            if ended {
                try releaseAddress(owner: "task/\(report.task)")
                try updateVolumeUsers(task.app)
            }
            if task.status.state < status.state {
                try db.run(
                    "UPDATE rollouts SET progress_at = ? WHERE namespace = ? AND app = ? AND state = 'running'",
                    [now.milliseconds, task.app.namespace, task.app.name])
            }
            note(.task, task.app.namespace, report.task.raw, .updated)
            touched.tasks.insert(report.task)
            touched.apps.insert(task.app)
        }
        return .done(.changed)
    }

    func removeTasks(_ change: RemoveTasks) throws -> Applied.Outcome {
        for id in change.tasks {
            guard let task = try taskHead(id), task.status.state.isTerminal else { continue }
            try db.run("DELETE FROM tasks WHERE id = ?", [id.raw])
            note(.task, task.app.namespace, id.raw, .deleted)
            touched.tasks.insert(id)
            touched.apps.insert(task.app)
            try forgetUnused(task.app, service: task.service)
        }
        return .done(.changed)
    }

    /// Specs no task, service or going back needs, and services that left the app.
    private func forgetUnused(_ app: ObjectKey, service: String) throws {
        try forgetRemovedServices(app)
        // The newest ones stay for going back; a release that needs an older one writes it again.
        try db.run(
            """
            DELETE FROM specs WHERE namespace = ? AND app = ? AND service = ?
                AND generation < (SELECT max(generation) - 10 FROM specs x WHERE x.namespace = specs.namespace
                    AND x.app = specs.app AND x.service = specs.service)
                AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.namespace = specs.namespace AND t.app = specs.app
                    AND t.service = specs.service AND t.generation = specs.generation)
                AND NOT EXISTS (SELECT 1 FROM services s WHERE s.namespace = specs.namespace AND s.app = specs.app
                    AND s.name = specs.service AND s.generation = specs.generation)
            """, [app.namespace, app.name, service])
    }

    /// Services that left the app go with their last task, but not while a rollout may bring them back.
    func forgetRemovedServices(_ app: ObjectKey) throws {
        let gone = try db.rows(
            """
            SELECT name FROM services WHERE namespace = ? AND app = ? AND removed = 1
                AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.namespace = services.namespace
                    AND t.app = services.app AND t.service = services.name)
                AND NOT EXISTS (SELECT 1 FROM rollouts r WHERE r.namespace = services.namespace
                    AND r.app = services.app AND r.state = 'running')
            ORDER BY name
            """, [app.namespace, app.name]
        ).map { $0.text("name") }
        for name in gone {
            for (table, column) in [
                ("services", "name"), ("specs", "service"), ("published_ports", "service"), ("host_ports", "service"),
            ] {
                try db.run(
                    "DELETE FROM \(table) WHERE namespace = ? AND app = ? AND \(column) = ?",
                    [app.namespace, app.name, name])
            }
            try releaseAddress(owner: "service/\(app.namespace)/\(app.name)/\(name)")
            noteService(app, name, .deleted)
        }
    }
}
