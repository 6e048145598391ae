// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import GRDB
internal import Model

/// What a release consists of: enough to go back to it.
struct ReleaseService: Codable, Hashable {
    var name: String
    var generation: Int
    var replicas: Int
    /// With ports and endpoint mode, which are not part of a generation's identity.
    var spec: ServiceSpec
}

extension Applier {
    static let releasesKept = 10
    static let rolloutsKept = 10
    static let automaticPorts: ClosedRange<Int> = 30_000...32_767

    func appRow(_ key: ObjectKey) throws -> AppRow? {
        try db.row("SELECT * FROM apps WHERE namespace = ? AND name = ?", [key.namespace, key.name]).map(AppRow.init)
    }

    func serviceRows(_ key: ObjectKey) throws -> [ServiceRow] {
        try db.rows(
            "\(ServiceRow.select) WHERE s.namespace = ? AND s.app = ? ORDER BY s.name", [key.namespace, key.name]
        ).map(ServiceRow.init)
    }

    func currentRollout(_ key: ObjectKey) throws -> RolloutRow? {
        try db.row(
            "SELECT * FROM rollouts WHERE namespace = ? AND app = ? ORDER BY sequence DESC LIMIT 1",
            [key.namespace, key.name]
        ).map(RolloutRow.init)
    }

    // MARK: - Put

    func putApp(_ change: PutApp) throws -> Applied.Outcome {
        let key = change.spec.key
        let existing = try appRow(key)
        if let existing, existing.deleting {
            return .refused(
                Problem(
                    .conflict, "app `\(key)` is being deleted", hint: "wait until `hivemind app ls` no longer shows it")
            )
        }
        if let problem = check(change.condition, version: existing?.version, what: "app `\(key)`") {
            return .refused(problem)
        }
        if let problem = try portConflict(key, change.spec) { return .refused(problem) }
        for service in change.spec.services {
            for mount in service.mounts {
                guard case .volume(let name) = mount.source else { continue }
                let volume = ObjectKey(namespace: key.namespace, name: name)
                if let row = try db.row(
                    "SELECT deleting FROM volumes WHERE namespace = ? AND name = ?", [volume.namespace, volume.name]),
                    row.flag("deleting")
                {
                    return .refused(
                        Problem(.conflict, "volume `\(volume)` is being deleted", hint: "try again in a moment"))
                }
            }
        }

        let old = try serviceRows(key)
        let lastRollout = try currentRollout(key)
        let lastFailed = lastRollout.map { $0.state == .failed || $0.state == .rolledBack } ?? false
        let broken = try servicesWithFailedTasks(key)
        if existing != nil, !lastFailed, broken.isEmpty, isSame(old, change.spec.services) {
            return .done(.unchanged)
        }

        let release = (existing?.release ?? 0) + 1
        if existing == nil {
            try db.run(
                "INSERT INTO apps VALUES (?, ?, ?, 0, ?, ?, ?)",
                [key.namespace, key.name, release, version, now.milliseconds, now.milliseconds])
            note(.app, key, .created)
        } else {
            try touchApp(key, release: release)
        }
        let (services, lost) = try publishPorts(key, change.spec.services, before: old)
        if let port = lost.first {
            return .refused(
                Problem(
                    .portConflict, "no port of 30000–32767 is free",
                    hint: "name a host port: --port HOST:\(port.containerPort)"))
        }
        for service in services {
            let previous = old.first { $0.name == service.name }
            // A deploy after a failure tries again, also with the same spec.
            let keepsTasks =
                previous.map {
                    !$0.removed && !lastFailed && !broken.contains($0.name) && $0.spec.taskFields == service.taskFields
                } ?? false
            let generation =
                keepsTasks ? previous?.generation ?? 1 : try nextGeneration(key, service.name)
            if let problem = try putService(key, service, generation: generation, previous: previous) {
                return .refused(problem)
            }
        }
        for service in old where !services.contains(where: { $0.name == service.name }) {
            try markRemoved(key, service.name)
        }
        try recordRelease(key, release: release)
        let id = try beginRollout(
            key, release: release, deadline: change.progressDeadlineMilliseconds, previous: lastRollout)
        try updateVolumeUsers(key)
        touched.apps.insert(key)
        return .done(.rollout(id: id, created: existing == nil))
    }

    private func isSame(_ old: [ServiceRow], _ new: [ServiceSpec]) -> Bool {
        let kept = old.filter { !$0.removed }
        guard kept.count == new.count else { return false }
        return zip(kept, new.sorted { $0.name < $1.name }).allSatisfy { row, spec in
            var wanted = spec
            // A port chosen for the service stays chosen.
            wanted.ports = spec.ports.map { port in
                guard port.hostPort == nil else { return port }
                return row.spec.ports.first {
                    $0.containerPort == port.containerPort && $0.protocol == port.protocol
                        && $0.hostPort.map { Self.automaticPorts.contains(Int($0)) } == true
                } ?? port
            }
            return row.spec == wanted
        }
    }

    /// Services with a task that is wanted and has failed for good: a deploy tries them again.
    private func servicesWithFailedTasks(_ key: ObjectKey) throws -> Set<String> {
        Set(
            try db.rows(
                """
                SELECT DISTINCT service FROM tasks
                WHERE namespace = ? AND app = ? AND goal = 'run' AND state = 'failed' ORDER BY service
                """, [key.namespace, key.name]
            ).map { $0.text("service") })
    }

    /// The service leaves the app; its row goes when its tasks have and no rollout may bring it back.
    private func markRemoved(_ key: ObjectKey, _ service: String) throws {
        try db.run(
            "UPDATE services SET removed = 1, replicas = 0, version = ? WHERE namespace = ? AND app = ? AND name = ?",
            [version, key.namespace, key.name, service])
        noteService(key, service, .updated)
    }

    func nextGeneration(_ key: ObjectKey, _ service: String) throws -> Int {
        let row = try db.row(
            "SELECT max(generation) AS latest FROM specs WHERE namespace = ? AND app = ? AND service = ?",
            [key.namespace, key.name, service])
        return (row?.optionalInteger("latest") ?? 0) + 1
    }

    /// Writes service, spec and VIP. Returns a problem when no address can be had.
    private func putService(
        _ key: ObjectKey, _ spec: ServiceSpec, generation: Int, previous: ServiceRow?
    ) throws -> Problem? {
        var vip = previous?.vip
        if vip == nil {
            guard let address = try takeVirtualAddress(owner: "service/\(key.namespace)/\(key.name)/\(spec.name)")
            else {
                return Problem(
                    .conflict, "no virtual address is free for service `\(spec.name)`",
                    hint: "delete apps no longer needed")
            }
            vip = address
        }
        try db.run(
            """
            INSERT INTO specs VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (namespace, app, service, generation) DO UPDATE SET spec = excluded.spec
            """,
            [key.namespace, key.name, spec.name, generation, try encodeText(spec)])
        try db.run(
            """
            INSERT INTO services VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)
            ON CONFLICT (namespace, app, name) DO UPDATE SET image = excluded.image,
                image_digest = excluded.image_digest, replicas = excluded.replicas, generation = excluded.generation,
                vip = excluded.vip, endpoint_mode = excluded.endpoint_mode, removed = 0, version = excluded.version
            """,
            [
                key.namespace, key.name, spec.name, spec.image, spec.imageDigest ?? "", spec.replicas, generation,
                vip?.description, spec.endpointMode.rawValue, version,
            ])
        noteService(key, spec.name, previous == nil ? .created : .updated)
        return nil
    }

    private func portConflict(_ key: ObjectKey, _ spec: AppSpec) throws -> Problem? {
        var seen: [HostPort: PortMode] = [:]
        for service in spec.services {
            for port in service.ports {
                guard let number = port.hostPort else { continue }
                let name = HostPort(number, protocol: port.protocol)
                // Services with the same port of their nodes are kept apart by placement.
                if let other = seen.updateValue(port.mode, forKey: name), other == .ingress || port.mode == .ingress {
                    return Problem(.invalidSpec, "port \(name) is published twice in app `\(key)`")
                }
                if let owner = try owner(of: name, for: port.mode, besides: key) {
                    return Problem(
                        .portConflict, "port \(name) is published by app `\(owner)`",
                        hint: "choose another host port or delete that app")
                }
            }
        }
        return nil
    }

    /// The app that keeps another from a port: one that has it on every node, or on some where it is wanted on every node.
    private func owner(of port: HostPort, for mode: PortMode, besides key: ObjectKey) throws -> ObjectKey? {
        for table in mode == .ingress ? ["published_ports", "host_ports"] : ["published_ports"] {
            let row = try db.row(
                """
                SELECT namespace, app FROM \(table) WHERE protocol = ? AND host_port = ? AND NOT (namespace = ? AND app = ?)
                ORDER BY namespace, app LIMIT 1
                """, [port.protocol.rawValue, Int(port.number), key.namespace, key.name])
            if let row { return ObjectKey(namespace: row.text("namespace"), name: row.text("app")) }
        }
        return nil
    }

    /// Publishes the ports of an app anew, all services at once: they may swap ports or take them over.
    ///
    /// Named ports come first, then chosen ones that stay, then new ones, so that none takes another's place.
    /// - Returns: the services with every port chosen, without those that cannot be had, and these.
    private func publishPorts(
        _ key: ObjectKey, _ services: [ServiceSpec], before old: [ServiceRow]
    ) throws -> (services: [ServiceSpec], lost: [PortSpec]) {
        for table in ["published_ports", "host_ports"] {
            try db.run("DELETE FROM \(table) WHERE namespace = ? AND app = ?", [key.namespace, key.name])
        }
        func publish(_ hostPort: UInt16, _ port: PortSpec, _ service: String) throws -> Bool {
            let name = HostPort(hostPort, protocol: port.protocol)
            guard try owner(of: name, for: port.mode, besides: key) == nil else { return false }
            let table = port.mode == .host ? "host_ports" : "published_ports"
            try db.run(
                "INSERT INTO \(table) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [port.protocol.rawValue, Int(hostPort), key.namespace, key.name, service, Int(port.containerPort)])
            return db.changesCount == 1
        }
        var services = services
        var isPublished = services.map { $0.ports.map { _ in false } }
        for (index, service) in services.enumerated() {
            for (place, port) in service.ports.enumerated() {
                guard let hostPort = port.hostPort else { continue }
                isPublished[index][place] = try publish(hostPort, port, service.name)
            }
        }
        for keepsChosen in [true, false] {
            for (index, service) in services.enumerated() {
                let before = old.first { $0.name == service.name }?.spec.ports ?? []
                for (place, port) in service.ports.enumerated() where port.hostPort == nil {
                    let chosen =
                        keepsChosen
                        ? before.first { $0.containerPort == port.containerPort && $0.protocol == port.protocol }?
                            .hostPort
                        : try freePort(port.protocol)
                    guard let chosen, try publish(chosen, port, service.name) else { continue }
                    services[index].ports[place].hostPort = chosen
                    isPublished[index][place] = true
                }
            }
        }
        var lost: [PortSpec] = []
        for index in services.indices {
            let ports = zip(services[index].ports, isPublished[index])
            lost += ports.filter { !$0.1 }.map(\.0)
            services[index].ports = ports.filter(\.1).map(\.0)
        }
        return (services, lost)
    }

    private func freePort(_ transport: PortProtocol) throws -> UInt16? {
        let taken = Set(
            try db.rows(
                """
                SELECT host_port FROM published_ports WHERE protocol = ?1
                UNION SELECT host_port FROM host_ports WHERE protocol = ?1 ORDER BY host_port
                """, [transport.rawValue]
            ).map { $0.integer("host_port") })
        return Self.automaticPorts.first { !taken.contains($0) }.map { UInt16($0) }
    }

    func touchApp(_ key: ObjectKey, release: Int? = nil) throws {
        try db.run(
            "UPDATE apps SET release = coalesce(?, release), version = ?, updated_at = ? WHERE namespace = ? AND name = ?",
            [release, version, now.milliseconds, key.namespace, key.name])
        note(.app, key, .updated)
    }

    func recordRelease(_ key: ObjectKey, release: Int) throws {
        let services = try serviceRows(key).filter { !$0.removed }.map {
            ReleaseService(name: $0.name, generation: $0.generation, replicas: $0.replicas, spec: $0.spec)
        }
        try db.run(
            """
            INSERT INTO releases VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (namespace, app, release) DO UPDATE SET services = excluded.services
            """,
            [key.namespace, key.name, release, try encodeText(services), now.milliseconds])
        try db.run(
            "DELETE FROM releases WHERE namespace = ? AND app = ? AND release <= ?",
            [key.namespace, key.name, release - Self.releasesKept])
    }

    /// A new rollout ends the one before it.
    func beginRollout(_ key: ObjectKey, release: Int, deadline: Int64, previous: RolloutRow?) throws -> String {
        if let previous, previous.state == .running {
            try db.run(
                "UPDATE rollouts SET state = ?, ended_at = ? WHERE id = ?",
                [RolloutView.State.superseded.rawValue, now.milliseconds, previous.id])
        }
        // Where to go back to: the last release known to have worked. One that was rolled back holds what it went back to.
        let good = try db.row(
            """
            SELECT max(r.release) AS good FROM rollouts r
            JOIN releases e ON e.namespace = r.namespace AND e.app = r.app AND e.release = r.release
            WHERE r.namespace = ? AND r.app = ? AND r.state IN ('succeeded', 'rolled_back') AND r.release < ?
            """,
            [key.namespace, key.name, release])?.optionalInteger("good")
        let id = "deploy-\(index)"
        try db.run(
            "INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, 0, NULL, NULL, NULL, NULL, ?, ?, ?, NULL, ?)",
            [
                id, key.namespace, key.name, release, good, RolloutView.State.running.rawValue, deadline,
                now.milliseconds, now.milliseconds, version,
            ])
        try db.run(
            """
            DELETE FROM rollouts WHERE namespace = ? AND app = ? AND id NOT IN (
                SELECT id FROM rollouts WHERE namespace = ? AND app = ? ORDER BY sequence DESC LIMIT ?)
            """,
            [key.namespace, key.name, key.namespace, key.name, Self.rolloutsKept])
        return id
    }

    func check(_ condition: Precondition, version: UInt64?, what: String) -> Problem? {
        switch condition {
        case .none: nil
        case .absent:
            version.map { Problem(.preconditionFailed, "\(what) exists already (version \($0))") }
        case .version(let wanted):
            version == wanted
                ? nil
                : Problem(
                    .preconditionFailed,
                    version.map { "\(what) has version \($0), not \(wanted)" } ?? "\(what) does not exist",
                    hint: "read it again and repeat the change on what you find")
        }
    }

    // MARK: - Scale, restart, delete

    func scaleService(_ change: ScaleService) throws -> Applied.Outcome {
        guard let app = try appRow(change.app), !app.deleting else { return .refused(unknownApp(change.app)) }
        guard let service = try serviceRows(change.app).first(where: { $0.name == change.service && !$0.removed })
        else {
            return .refused(Problem(.notFound, "app `\(change.app)` has no service `\(change.service)`"))
        }
        if service.spec.isGlobal {
            return .refused(
                Problem(
                    .badRequest,
                    "service `\(change.service)` of app `\(change.app)` is global: one task runs on every node that fits",
                    hint: "deploy it with --mode replicated, or choose its nodes with --constraint"))
        }
        if service.replicas == change.replicas { return .done(.unchanged) }
        try db.run(
            "UPDATE services SET replicas = ?, version = ? WHERE namespace = ? AND app = ? AND name = ?",
            [change.replicas, version, change.app.namespace, change.app.name, change.service])
        noteService(change.app, change.service, .updated)
        var spec = service.spec
        spec.replicas = change.replicas
        try db.run(
            "UPDATE specs SET spec = ? WHERE namespace = ? AND app = ? AND service = ? AND generation = ?",
            [try encodeText(spec), change.app.namespace, change.app.name, change.service, service.generation])
        try touchApp(change.app)
        try recordRelease(change.app, release: app.release)
        // Going back must not undo it.
        if let rollout = try currentRollout(change.app), rollout.state == .running, !rollout.rollingBack,
            let previous = rollout.previousRelease
        {
            var services = try releaseServices(change.app, previous)
            for index in services.indices where services[index].name == change.service {
                services[index].replicas = change.replicas
                services[index].spec.replicas = change.replicas
            }
            try db.run(
                "UPDATE releases SET services = ? WHERE namespace = ? AND app = ? AND release = ?",
                [try encodeText(services), change.app.namespace, change.app.name, previous])
        }
        touched.apps.insert(change.app)
        return .done(.changed)
    }

    func restartApp(_ change: AppChange) throws -> Applied.Outcome {
        guard let app = try appRow(change.app), !app.deleting else { return .refused(unknownApp(change.app)) }
        let release = app.release + 1
        for service in try serviceRows(change.app) where !service.removed {
            let generation = try nextGeneration(change.app, service.name)
            try db.run(
                "INSERT INTO specs VALUES (?, ?, ?, ?, ?)",
                [change.app.namespace, change.app.name, service.name, generation, try encodeText(service.spec)])
            try db.run(
                "UPDATE services SET generation = ?, version = ? WHERE namespace = ? AND app = ? AND name = ?",
                [generation, version, change.app.namespace, change.app.name, service.name])
            noteService(change.app, service.name, .updated)
        }
        try touchApp(change.app, release: release)
        try recordRelease(change.app, release: release)
        let previous = try currentRollout(change.app)
        let id = try beginRollout(
            change.app, release: release, deadline: previous?.progressDeadlineMilliseconds ?? 120_000,
            previous: previous)
        touched.apps.insert(change.app)
        return .done(.rollout(id: id, created: false))
    }

    func deleteApp(_ change: AppChange) throws -> Applied.Outcome {
        guard let app = try appRow(change.app) else { return .refused(unknownApp(change.app)) }
        if let problem = check(change.condition ?? .none, version: app.version, what: "app `\(change.app)`") {
            return .refused(problem)
        }
        if app.deleting { return .done(.unchanged) }
        try db.run(
            "UPDATE apps SET deleting = 1, version = ?, updated_at = ? WHERE namespace = ? AND name = ?",
            [version, now.milliseconds, change.app.namespace, change.app.name])
        note(.app, change.app, .updated)
        if let rollout = try currentRollout(change.app), rollout.state == .running {
            try db.run(
                "UPDATE rollouts SET state = ?, ended_at = ? WHERE id = ?",
                [RolloutView.State.superseded.rawValue, now.milliseconds, rollout.id])
        }
        touched.apps.insert(change.app)
        return .done(.changed)
    }

    /// The end of a deletion: only when every task has ended, so that nothing is forgotten on a node.
    func removeApp(_ change: AppChange) throws -> Applied.Outcome {
        guard let app = try appRow(change.app), app.deleting else { return .done(.unchanged) }
        let key = change.app
        let alive = try db.row(
            """
            SELECT count(*) AS n FROM tasks
            WHERE namespace = ? AND app = ? AND state NOT IN ('stopped', 'failed')
            """, [key.namespace, key.name])?.integer("n")
        guard alive == 0 else { return .done(.unchanged) }
        for row in try db.rows(
            "SELECT id FROM tasks WHERE namespace = ? AND app = ? ORDER BY id", [key.namespace, key.name])
        {
            touched.tasks.insert(TaskID(row.text("id")))
            note(.task, key.namespace, row.text("id"), .deleted)
        }
        for service in try serviceRows(key) {
            try releaseAddress(owner: "service/\(key.namespace)/\(key.name)/\(service.name)")
            noteService(key, service.name, .deleted)
        }
        for table in [
            "tasks", "services", "specs", "releases", "rollouts", "published_ports", "host_ports", "volume_users",
        ] {
            try db.run("DELETE FROM \(table) WHERE namespace = ? AND app = ?", [key.namespace, key.name])
        }
        try db.run("DELETE FROM apps WHERE namespace = ? AND name = ?", [key.namespace, key.name])
        note(.app, key, .deleted)
        touched.apps.insert(key)
        return .done(.changed)
    }

    func unknownApp(_ key: ObjectKey) -> Problem {
        Problem(.notFound, "no app `\(key)`", hint: "`hivemind app ls` shows what there is")
    }

    // MARK: - Rollouts

    func endRollout(_ change: EndRollout) throws -> Applied.Outcome {
        guard let rollout = try db.row("SELECT * FROM rollouts WHERE id = ?", [change.id]).map(RolloutRow.init),
            rollout.state == .running
        else { return .done(.unchanged) }
        touched.apps.insert(rollout.app)
        // What it shows changes, its version does not: a condition on the spec must not fail because a rollout ended.
        if let app = try appRow(rollout.app) {
            note(.app, app.key.namespace, app.key.name, .updated, version: app.version)
        }
        func end(_ state: RolloutView.State) throws {
            try db.run(
                "UPDATE rollouts SET state = ?, ended_at = ? WHERE id = ?",
                [state.rawValue, now.milliseconds, rollout.id])
        }
        switch change.outcome {
        case .succeeded: try end(.succeeded)
        case .rolledBack: try end(.rolledBack)
        // Going back failed too; the first cause stays.
        case .failed where rollout.rollingBack: try end(.failed)
        case .failed(var reason, let task):
            let notes = try rollout.previousRelease.map { try goBack(rollout.app, to: $0) } ?? []
            reason.message = ([reason.message] + notes).joined(separator: "; ")
            try db.run(
                """
                UPDATE rollouts SET reason_code = ?, reason_message = ?, reason_hint = ?, failed_task = ?,
                    rolling_back = ?, progress_at = ? WHERE id = ?
                """,
                [
                    reason.code.rawValue, reason.message, reason.hint, task?.raw, rollout.previousRelease != nil,
                    now.milliseconds, rollout.id,
                ])
            if rollout.previousRelease == nil { try end(.failed) }
        }
        try forgetRemovedServices(rollout.app)
        try updateVolumeUsers(rollout.app)
        return .done(.changed)
    }

    /// What a kept release consists of; empty when it is not kept.
    func releaseServices(_ key: ObjectKey, _ release: Int) throws -> [ReleaseService] {
        guard
            let row = try db.row(
                "SELECT services FROM releases WHERE namespace = ? AND app = ? AND release = ?",
                [key.namespace, key.name, release])
        else { return [] }
        return try JSON.decode([ReleaseService].self, from: Data(row.text("services").utf8))
    }

    /// Gives the services the generations of an earlier release; its tasks that still run simply stay.
    /// - Returns: what could not be had again, for people.
    private func goBack(_ key: ObjectKey, to release: Int) throws -> [String] {
        let wanted = try releaseServices(key, release)
        let current = try serviceRows(key)
        for service in current where !wanted.contains(where: { $0.name == service.name }) {
            try markRemoved(key, service.name)
        }
        let (specs, lost) = try publishPorts(key, wanted.map(\.spec), before: current)
        var notes = lost.map {
            "port \($0.hostPort ?? 0)/\($0.protocol.rawValue) belongs to another app by now and is no longer published"
        }
        for (service, spec) in zip(wanted, specs) {
            let previous = current.first { $0.name == service.name }
            if let problem = try putService(key, spec, generation: service.generation, previous: previous) {
                notes.append(problem.detail)
            }
        }
        try touchApp(key)
        if let app = try appRow(key) { try recordRelease(key, release: app.release) }
        return notes
    }
}
