// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Apps, services and tasks as text.
enum AppText {
    /// How it stands and where it answers.
    static func summary(_ app: AppView) -> Block {
        var block = Block()
        block.add("app", app.name)
        block.add("status", app.status.rawValue, .state(app.status.rawValue))
        block.add("reason", Format.reason(app.reason), .bad)
        block.add("release", app.release)
        block.add("image", app.image)
        block.add("replicas", "\(app.replicas.ready) of \(app.replicas.desired) ready")
        addPlaces(of: app, to: &block)
        return block
    }

    /// Names, virtual address and published ports.
    static func addPlaces(of app: AppView, to block: inout Block) {
        block.add("name", Format.name(app.name, app.namespace))
        if app.services.count > 1 {
            for service in app.services.map(\.name) {
                block.add("name", Format.name(service, app.name, app.namespace))
            }
        }
        block.add("address", app.vip?.description)
        for port in app.ports {
            guard let host = port.hostPort else { continue }
            if port.mode == .host {
                let name = "port \(host) of each of its nodes"
                block.add("published", "\(name) -> \(port.containerPort)/\(port.protocol.rawValue)")
                continue
            }
            let address = port.protocol == .tcp ? "http://127.0.0.1:\(host)" : "udp 127.0.0.1:\(host)"
            block.add("published", "\(address) -> \(port.containerPort)/\(port.protocol.rawValue)")
        }
    }

    static func apps(_ apps: [AppView], now: Timestamp) -> Table {
        var table = Table([
            "NAME", .wide("NAMESPACE"), "STATUS", "REPLICAS", .wide("RELEASE"), "IMAGE", .wide("ADDRESS"), "PORTS",
            "AGE", .wide("REASON"),
        ])
        table.columns[1].isWide = !spansNamespaces(apps.map(\.namespace))
        table.rows = apps.map { app in
            [
                Cell(app.name), Cell(app.namespace), .state(app.status.rawValue), Format.replicas(app.replicas),
                Cell(app.release), Cell(app.image), Cell(app.vip?.description), Cell(Format.ports(app.ports)),
                Cell(Format.age(app.createdAt, now: now)), Cell(Format.reason(app.reason)),
            ]
        }
        return table
    }

    static func tasks(_ tasks: [TaskView], unplaced: [TaskListView.Unplaced] = [], now: Timestamp) -> Table {
        var table = Table([
            "ID", .wide("NAMESPACE"), "APP", "SERVICE", "NODE", "STATE", "ADDRESS", "RESTARTS", "AGE",
            .wide("RELEASE"), .wide("PID"), .wide("EXIT"), .wide("CONTAINER"), .wide("IMAGE"), "REASON",
        ])
        table.columns[1].isWide = !spansNamespaces(tasks.map(\.namespace) + unplaced.map(\.namespace))
        table.rows = tasks.map { task in
            [
                Cell(task.id.raw), Cell(task.namespace), Cell(task.app), Cell(task.service), Cell(task.node),
                .state(task.state), Cell(task.address?.description), Cell(task.restarts),
                Cell(Format.age(task.startedAt ?? task.createdAt, now: now)), Cell(task.release),
                Cell(task.pid.map { String($0) }), Cell(task.exitCode.map { String($0) }),
                Cell(task.containerId?.raw), Cell(task.image), Cell(Format.reason(task.reason)),
            ]
        }
        // Nothing is there to have an id; how many are missing stands where the node would.
        table.rows += unplaced.map { missing in
            let blanks = Array(repeating: Cell(nil as String?), count: 8)
            return [
                Cell(nil as String?), Cell(missing.namespace), Cell(missing.app), Cell(missing.service),
                Cell("\(missing.count) not placed"), .state("pending"),
            ] + blanks + [Cell(Format.reason(missing.reason))]
        }
        return table
    }

    static func services(_ services: [ServiceView]) -> Table {
        var table = Table([
            "NAME", .wide("NAMESPACE"), "APP", "REPLICAS", "IMAGE", "MODE", "ADDRESS", "PORTS", .wide("ENDPOINTS"),
            .wide("DIGEST"), .wide("REASON"),
        ])
        table.columns[1].isWide = !spansNamespaces(services.map(\.namespace))
        table.rows = services.map { service in
            [
                Cell(service.name), Cell(service.namespace), Cell(service.app), Format.replicas(service.replicas),
                Cell(service.image), Cell(service.endpointMode.rawValue), Cell(service.vip?.description),
                Cell(Format.ports(service.ports)),
                Cell(service.endpoints.map(\.description).joined(separator: ", ")),
                Cell(Format.digest(service.imageDigest)), Cell(Format.reason(service.reason)),
            ]
        }
        return table
    }

    static func info(_ app: AppView, tasks: [TaskView], now: Timestamp) -> Block {
        var block = summary(app)
        block.fields.insert(("namespace", Cell(app.namespace)), at: 1)
        block.add("age", Format.age(app.createdAt, now: now))
        if let rollout = app.rollout {
            let state = rollout.state.rawValue
            block.add(
                "rollout", "\(state), release \(rollout.release), \(rollout.updated)/\(rollout.total) updated",
                .state(state))
            block.add("cause", Format.reason(rollout.reason), .bad)
        }
        if app.services.count > 1 { block.add("services", services(app.services)) }
        block.add("tasks", Self.tasks(tasks, now: now))
        return block
    }

    static func info(_ service: ServiceView, tasks: [TaskView], now: Timestamp) -> Block {
        var block = Block()
        block.add("service", service.name)
        block.add("app", service.app)
        block.add("namespace", service.namespace)
        block.add("reason", Format.reason(service.reason), .bad)
        block.add("image", service.image)
        block.add("digest", service.imageDigest)
        block.add("replicas", "\(service.replicas.ready) of \(service.replicas.desired) ready")
        block.add("name", Format.name(service.name, service.app, service.namespace))
        block.add("mode", service.endpointMode.rawValue)
        block.add("address", service.vip?.description)
        block.add("endpoints", service.endpoints.map(\.description).joined(separator: ", "))
        block.add("ports", Format.ports(service.ports))
        addSpec(service.spec, to: &block)
        block.add("tasks", Self.tasks(tasks, now: now))
        return block
    }

    private static func addSpec(_ spec: ServiceSpec, to block: inout Block) {
        block.add("entrypoint", spec.entrypoint?.joined(separator: " "))
        block.add("command", spec.command?.joined(separator: " "))
        for (name, value) in spec.environment.sorted(by: { $0.key < $1.key }) { block.add("env", "\(name)=\(value)") }
        for mount in spec.mounts { block.add("mount", Format.mount(mount)) }
        block.add("user", spec.user)
        block.add("workdir", spec.workingDirectory)
        block.add("hostname", spec.hostname)
        block.add("cpu", spec.resources.cpuMillis.map { Format.cpu(millis: $0) })
        block.add("memory", spec.resources.memoryBytes.map { Format.bytes($0) })
        block.add("pids", String(spec.resources.pidsMax))
        block.add("restart", spec.restart.rawValue)
        for (name, value) in spec.labels.sorted(by: { $0.key < $1.key }) { block.add("label", "\(name)=\(value)") }
    }

    /// Namespaces are shown without asking once there is more than the default one.
    static func spansNamespaces(_ names: [String]) -> Bool {
        names.contains { $0 != ObjectKey.defaultNamespace }
    }
}
