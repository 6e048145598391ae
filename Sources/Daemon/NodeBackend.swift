// SPDX-License-Identifier: Apache-2.0
internal import ContainerRuntime
internal import FoundationEssentials
internal import Logging
internal import Model
internal import Orchestrator
internal import Raft
internal import Store
internal import Synchronization

/// The API's view of this node: reads go to the local state, writes through the log, images and logs to the runtime.
final class NodeBackend: Backend {
    let state: StateMachine
    let core: CoreOwner
    let effects: Effects
    let publisher: Publisher
    let identity: NodeIdentity
    let members: Members
    let membership: NodeMembership
    let calls: NodeCalls
    let log: Logger
    private let reader: StateReader
    let startedAt = ContinuousClock.now

    /// A write that is not agreed by then is answered with "in doubt".
    static let writeDeadline = Duration.seconds(15)

    init(
        state: StateMachine, core: CoreOwner, effects: Effects, publisher: Publisher, identity: NodeIdentity,
        members: Members, membership: NodeMembership, calls: NodeCalls, log: Logger
    ) {
        self.state = state
        reader = StateReader(state)
        self.core = core
        self.effects = effects
        self.publisher = publisher
        self.identity = identity
        self.members = members
        self.membership = membership
        self.calls = calls
        self.log = log
    }

    // MARK: - Reading and writing

    func list<Item: Codable & Hashable & Sendable>(
        _ read: @escaping @Sendable (StateView) throws -> [Item]
    ) async throws -> ItemList<Item> {
        try await state.read { state in ItemList(items: try read(state), index: try state.meta().appliedIndex) }
    }

    private func write(_ change: Change) async throws -> (index: UInt64, effect: Applied.Effect) {
        let applied = try await core.propose(
            change, request: RequestIdentity.current, deadline: Self.writeDeadline)
        switch applied.outcome {
        case .done(let effect): return (applied.version, effect)
        case .refused(let problem): throw problem
        }
    }

    // MARK: - Apps

    func apps(namespace: String?) async throws -> ItemList<AppView> {
        let reasons = PlacementReasons(core)
        return try await list { state in
            var reasons = reasons
            return try state.apps(namespace: namespace).compactMap { app in
                try AppPicture(state, app.key).map { Views.app($0, placement: try reasons.reason(for: $0, state)) }
            }
        }
    }

    func app(_ key: ObjectKey) async throws -> AppView {
        let reasons = PlacementReasons(core)
        let view: AppView? = try await state.read { state in
            var reasons = reasons
            return try AppPicture(state, key).map { Views.app($0, placement: try reasons.reason(for: $0, state)) }
        }
        guard let view else { throw Self.unknownApp(key) }
        return view
    }

    func putApp(
        _ key: ObjectKey, _ request: PutAppRequest, _ condition: WriteCondition
    ) async throws -> Written<AppView> {
        var services = request.services
        // Where tasks with a port of their node will be is not known yet.
        let wanted = services.flatMap { $0.ports }.filter { $0.mode == .ingress }.compactMap { port in
            port.hostPort.map {
                PublishedPort(hostPort: $0, containerPort: port.containerPort, protocol: port.protocol)
            }
        }
        try await refuseTakenPorts(key, wanted)
        // The tag is resolved here, once: every replica and every later restart runs the same image.
        for index in services.indices {
            let image = services[index].image
            services[index].imageDigest = try await resolve(image)
        }
        let (at, effect) = try await write(
            .putApp(PutApp(spec: AppSpec(key: key, services: services), condition: condition.precondition)))
        let view = try await app(key)
        switch effect {
        case .rollout(let id, let created): return Written(value: view, created: created, index: at, operation: id)
        default: return Written(value: view, created: false, index: at, operation: nil)
        }
    }

    private func resolve(_ image: String) async throws -> String {
        do {
            return try await effects.runtime.resolve(image: image).digest
        } catch {
            throw problem(for: error)
        }
    }

    /// A listener of the host would silently lose its connections to us.
    private func refuseTakenPorts(_ key: ObjectKey, _ ports: [PublishedPort]) async throws {
        guard !ports.isEmpty else { return }
        let ours = Set(try await state.read { try $0.ports() }.map { "\($0.port.hostPort)/\($0.port.protocol)" })
        let unknown = ports.filter { !ours.contains("\($0.hostPort)/\($0.protocol)") }
        let taken = await effects.networking.portsInUse(unknown)
        guard let port = taken.first else { return }
        throw Problem(
            .portConflict, "port \(port.hostPort)/\(port.protocol.rawValue) is used by another program on this node",
            hint: "stop that program or choose another host port")
    }

    func scaleApp(_ key: ObjectKey, _ request: ScaleRequest) async throws -> Written<AppView> {
        let services = try await state.read { try $0.services(namespace: key.namespace, app: key.name) }
            .filter { !$0.removed }
        guard !services.isEmpty else { throw Self.unknownApp(key) }
        let name: String
        if let service = request.service {
            name = service
        } else if services.count == 1 {
            name = services[0].name
        } else if services.contains(where: { $0.name == key.name }) {
            name = key.name
        } else {
            throw Problem(
                .badRequest, "app `\(key)` has several services",
                hint: "name one: \(services.map(\.name).joined(separator: ", "))")
        }
        let (index, _) = try await write(
            .scaleService(ScaleService(app: key, service: name, replicas: request.replicas)))
        return Written(value: try await app(key), created: false, index: index, operation: nil)
    }

    func restartApp(_ key: ObjectKey) async throws -> Written<AppView> {
        let (index, effect) = try await write(.restartApp(AppChange(app: key)))
        guard case .rollout(let id, _) = effect else {
            return Written(value: try await app(key), created: false, index: index, operation: nil)
        }
        return Written(value: try await app(key), created: false, index: index, operation: id)
    }

    func deleteApp(_ key: ObjectKey, _ condition: WriteCondition) async throws -> UInt64 {
        try await write(.deleteApp(AppChange(app: key, condition: condition.precondition))).index
    }

    func operation(_ id: String) async throws -> OperationView {
        let found = try await state.read { state -> OperationView? in
            guard let rollout = try state.rollout(id: id), let picture = try AppPicture(state, rollout.app) else {
                return nil
            }
            return OperationView(
                id: id, kind: "deploy", app: rollout.app.name, namespace: rollout.app.namespace,
                rollout: Views.rollout(rollout, picture))
        }
        guard let found else {
            throw Problem(
                .notFound, "no operation `\(id)`", hint: "operations are kept for the last 10 deploys of an app")
        }
        return found
    }

    static func unknownApp(_ key: ObjectKey) -> Problem {
        Problem(.notFound, "no app `\(key)`", hint: "`hivemind app ls` shows what there is")
    }

    // MARK: - Logs

    func logs(_ key: ObjectKey, _ filter: LogFilter) async throws -> AsyncThrowingStream<AppLogLine, any Error> {
        guard let picture = try await state.read({ try AppPicture($0, key) }) else { throw Self.unknownApp(key) }
        if let service = filter.service {
            guard picture.services.contains(where: { $0.name == service }) else {
                throw Problem(.notFound, "app `\(key)` has no service `\(service)`")
            }
        }
        if let wanted = filter.task {
            guard picture.tasks.contains(where: { filter.matches(task: $0.id, service: $0.service) }) else {
                throw Problem(
                    .notFound, "app `\(key)` has no task `\(wanted)`",
                    hint: "`hivemind ps \(key.name) --all` lists them")
            }
        }
        return try await ClusterLogs(own: identity.id, state: state, local: localLogs, calls: calls)
            .read(key, filter)
    }

    private var localLogs: LocalLogs { LocalLogs(own: identity.id, state: state, runtime: effects.runtime) }

    // MARK: - Services and tasks

    func services(namespace: String?, app: String?) async throws -> ItemList<ServiceView> {
        let reasons = PlacementReasons(core)
        return try await list { state in
            var reasons = reasons
            return try state.apps(namespace: namespace).filter { app == nil || $0.key.name == app }.flatMap {
                (row: AppRow) -> [ServiceView] in
                guard let picture = try AppPicture(state, row.key) else { return [] }
                let reason = try reasons.reason(for: picture, state)
                return picture.services.filter { !$0.removed }.map { Views.service($0, picture, placement: reason) }
            }
        }
    }

    func service(_ key: ObjectKey, app: String?) async throws -> ServiceView {
        let matches = try await services(namespace: key.namespace, app: app).items.filter { $0.name == key.name }
        guard let first = matches.first else {
            throw Problem(.notFound, "no service `\(key)`", hint: "`hivemind service ls` shows what there is")
        }
        guard matches.count == 1 else {
            throw Problem(
                .badRequest, "several apps have a service `\(key.name)`: \(matches.map(\.app).joined(separator: ", "))",
                hint: "name the app: --app \(first.app)")
        }
        return first
    }

    func tasks(namespace: String?, app: String?, all: Bool) async throws -> TaskListView {
        let reasons = PlacementReasons(core)
        return try await state.read { state in
            // What a node that was removed ran is shown with its name as well.
            var nodes = Dictionary(
                try state.removedNodes().map { ($0.id, $0.name) }, uniquingKeysWith: { $1 })
            for node in try state.nodes() { nodes[node.id] = node.name }
            let items = try state.tasks(namespace: namespace)
                .filter {
                    (app == nil || $0.app.name == app) && (all || $0.goal == .run || !$0.status.state.isTerminal)
                }
                .map { Views.task($0, node: nodes[$0.node] ?? $0.node.raw) }
            var reasons = reasons
            let unplaced = try state.apps(namespace: namespace).filter { app == nil || $0.key.name == app }.flatMap {
                (row: AppRow) -> [TaskListView.Unplaced] in
                guard reasons.mayLack(row.key), let picture = try AppPicture(state, row.key),
                    let reason = try reasons.reason(for: picture, state)
                else { return [] }
                return PlacementReasons.missing(picture).map {
                    TaskListView.Unplaced(
                        app: row.key.name, namespace: row.key.namespace, service: $0.service.name, count: $0.count,
                        reason: reason)
                }
            }
            return TaskListView(
                items: items, unplaced: unplaced.isEmpty ? nil : unplaced, index: try state.meta().appliedIndex)
        }
    }

    func task(_ idOrPrefix: String) async throws -> TaskView {
        let (found, nodes) = try await state.read { (try $0.tasks(prefix: idOrPrefix), try $0.nodes()) }
        guard let task = found.first else {
            throw Problem(.notFound, "no task `\(idOrPrefix)`", hint: "`hivemind ps --all` lists them")
        }
        guard found.count == 1 || task.id.raw == idOrPrefix else {
            throw Problem(.badRequest, "several tasks begin with `\(idOrPrefix)`", hint: "give more characters")
        }
        return Views.task(task, node: nodes.first { $0.id == task.node }?.name ?? task.node.raw)
    }

    // MARK: - Volumes

    func volumes(namespace: String?) async throws -> ItemList<VolumeView> {
        let (rows, index) = try await state.read {
            (try $0.volumes(namespace: namespace), try $0.meta().appliedIndex)
        }
        return ItemList(items: try await volumeViews(rows, measured: false), index: index)
    }

    func volume(_ key: ObjectKey) async throws -> VolumeView {
        guard let view = try await volumeView(key, measured: true) else {
            throw Problem(.notFound, "no volume `\(key)`", hint: "`hivemind volume ls` shows what there is")
        }
        return view
    }

    /// - Parameter asking: whether other nodes are asked for what only they know.
    func volumeView(_ key: ObjectKey, measured: Bool, asking: Bool = true) async throws -> VolumeView? {
        guard let row = try await state.read({ try $0.volume(key) }) else { return nil }
        return try await volumeViews([row], measured: measured, asking: asking).first
    }

    static let volumesDeadline = Duration.seconds(3)

    /// What only the node of a volume knows is asked there; it stays unknown while that does not answer.
    private func volumeViews(
        _ rows: [VolumeRow], measured: Bool, asking: Bool = true
    ) async throws -> [VolumeView] {
        let nodes = Dictionary(
            try await state.read { try $0.nodes() }.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        // On a node alone there is no other place for a volume without one.
        let unbound = nodes.count > 1 ? nil : identity.id
        var facts: [ObjectKey: VolumeFacts] = [:]
        for (id, mine) in Dictionary(grouping: rows.filter { !$0.deleting }, by: { $0.node ?? unbound }) {
            let call = VolumesCall(keys: mine.map(\.key), isMeasured: measured)
            var found: [VolumeFacts] = []
            if id == identity.id {
                found = try await calls.facts(of: call)
            } else if asking, let node = id.flatMap({ nodes[$0] }), node.liveness != .down {
                do {
                    found = try await calls.ask(.volumes(call), of: node, deadline: Self.volumesDeadline).volumes ?? []
                } catch {
                    log.info(
                        "a node does not tell of its volumes", metadata: ["node": "\(node.name)", "why": "\(error)"])
                }
            }
            for fact in found { facts[fact.key] = fact }
        }
        return rows.map { row in
            let home = row.node ?? unbound
            return VolumeView(
                name: row.key.name, namespace: row.key.namespace, driver: row.driver,
                node: home.map { nodes[$0]?.name ?? $0.raw } ?? "", path: facts[row.key]?.path ?? "", sizeBytes: 0,
                usedBytes: facts[row.key]?.usedBytes, usedBy: row.users, createdAt: row.createdAt)
        }
    }

    func putVolume(_ key: ObjectKey) async throws -> Written<VolumeView> {
        let (index, effect) = try await write(.putVolume(PutVolume(volume: key, node: identity.id)))
        return Written(value: try await volume(key), created: effect == .created, index: index, operation: nil)
    }

    func deleteVolume(_ key: ObjectKey) async throws -> UInt64 {
        let index = try await write(.deleteVolume(VolumeChange(volume: key))).index
        // The name is free again once the data is gone.
        let deadline = ContinuousClock.now + .seconds(30)
        while ContinuousClock.now < deadline {
            if try await state.read({ try $0.volume(key) }) == nil { return index }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw Problem(
            .timeout, "volume `\(key)` is still being deleted: its data could not be removed yet",
            hint: "the node goes on trying; its log says what is in the way")
    }

    // MARK: - Images

    func images() async throws -> ItemList<ImageSummary> {
        do {
            return ItemList(items: try await effects.runtime.images(), index: core.status.appliedIndex)
        } catch {
            throw problem(for: error)
        }
    }

    func pullImage(_ reference: String) async throws -> ImageSummary {
        do {
            let resolved = try await effects.runtime.resolve(image: reference)
            try await effects.runtime.pull(image: reference, digest: resolved.digest)
            let images = try await effects.runtime.images()
            return images.first { $0.name == resolved.reference }
                ?? ImageSummary(name: resolved.reference, digest: resolved.digest, sizeBytes: 0, createdAt: nil)
        } catch {
            throw problem(for: error)
        }
    }

    func importImages(archive path: String, name: String?) async throws -> ItemList<ImageSummary> {
        do {
            let images = try await effects.runtime.importImages(archive: path, name: name)
            return ItemList(items: images, index: core.status.appliedIndex)
        } catch {
            throw problem(for: error)
        }
    }

    func removeImage(_ reference: String) async throws {
        let name = (try? ImageReference(reference))?.description ?? reference
        let users = try await state.read { try $0.services() }.filter { service in
            !service.removed && (try? ImageReference(service.spec.image))?.description == name
        }
        guard users.isEmpty else {
            throw Problem(
                .imageInUse,
                "image `\(reference)` is used by \(users.map { "app `\($0.app)`" }.joined(separator: ", "))",
                hint: "delete or change \(users.count == 1 ? "that app" : "those apps") first")
        }
        do { try await effects.runtime.removeImage(reference) } catch { throw problem(for: error, absent: .notFound) }
    }

    // MARK: - Configs

    func configs(namespace: String?, prefix: String) async throws -> ItemList<ConfigView> {
        try await list { try $0.configs(namespace: namespace, prefix: prefix) }
    }

    func config(_ key: ObjectKey) async throws -> ConfigView {
        guard let config = try await reader.read({ try $0.config(key) }) else {
            throw Problem(.notFound, "no config `\(key)`", hint: "`hivemind config ls` shows what there is")
        }
        return config
    }

    func putConfig(
        _ key: ObjectKey, _ data: String, _ condition: WriteCondition
    ) async throws -> Written<ConfigView> {
        let (index, effect) = try await write(
            .putConfig(PutConfig(config: key, data: data, condition: condition.precondition)))
        let view = ConfigView(name: key.name, namespace: key.namespace, data: data, version: index)
        return Written(value: view, created: effect == .created, index: index, operation: nil)
    }

    func deleteConfig(_ key: ObjectKey, _ condition: WriteCondition) async throws -> UInt64 {
        try await write(.deleteConfig(DeleteConfig(config: key, condition: condition.precondition))).index
    }

    // MARK: - SQL and numbers

    func query(_ sql: String, withSecrets: Bool) async throws -> QueryView {
        try await state.query(sql, withSecrets: withSecrets)
    }

    func metrics() async -> String {
        let status = core.status
        let counts = try? await state.read { state in
            Dictionary(grouping: try state.tasks(), by: \.status.state.rawValue).mapValues(\.count)
        }
        var text = ""
        func metric(_ name: String, _ kind: String, _ help: String, _ samples: [(labels: String, value: String)]) {
            text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind)\n"
            for sample in samples { text += "\(name)\(sample.labels) \(sample.value)\n" }
        }
        metric("hivemind_raft_term", "gauge", "Current term.", [("", "\(status.term)")])
        metric("hivemind_raft_commit_index", "gauge", "Highest committed entry.", [("", "\(status.commitIndex)")])
        metric("hivemind_store_applied_index", "gauge", "Highest applied entry.", [("", "\(status.appliedIndex)")])
        metric("hivemind_raft_is_leader", "gauge", "1 on the leader.", [("", status.isLeader ? "1" : "0")])
        metric(
            "hivemind_tasks", "gauge", "Tasks by state.",
            TaskState.allCases.map { ("{state=\"\($0.rawValue)\"}", "\(counts?[$0.rawValue] ?? 0)") })
        if let resident = ProcessMemory.residentBytes() {
            metric("process_resident_memory_bytes", "gauge", "Resident memory.", [("", "\(resident)")])
        }
        return text
    }

    /// What an effect room threw, as the API says it.
    private func problem(for error: any Error, absent: Problem.Code = .imageNotFound) -> any Error {
        if error is CancellationError || error is Problem { return error }
        let reason = reason(for: error)
        let code: Problem.Code =
            switch reason.code {
            case .imageNotFound: absent
            case .imageInvalid, .platformUnavailable, .digestMismatch: .imageInvalid
            case .registryDenied: .registryDenied
            case .registryUnreachable: .registryUnreachable
            case .runtimeUnavailable: .runtimeUnavailable
            case .noSpace: .noSpace
            case .deadlineExceeded: .timeout
            default: .internal
            }
        return Problem(code, reason.message, hint: reason.hint)
    }
}

extension SnapshotView {
    init(_ manifest: SnapshotManifest, _ kind: Kind, in store: SnapshotStore) {
        let digits = Array("0123456789abcdef")
        self.init(
            name: manifest.name, index: manifest.position.index, term: manifest.position.term,
            bytes: Int64(clamping: manifest.bytes), createdAt: manifest.createdAt,
            sha256: manifest.sha256.map { "\(digits[Int($0 >> 4)])\(digits[Int($0 & 15)])" }.joined(),
            path: store.file(of: manifest), kind: kind)
    }
}

extension WriteCondition {
    var precondition: Precondition {
        switch self {
        case .none: .none
        case .version(let version): .version(version)
        case .absent: .absent
        }
    }
}

enum ProcessMemory {
    /// From /proc/self/statm; nil where that cannot be read.
    static func residentBytes() -> Int? {
        guard let data = FileManager.default.contents(atPath: "/proc/self/statm") else { return nil }
        let fields = String(decoding: data, as: UTF8.self).split(separator: " ")
        return fields.count > 1 ? Int(fields[1]).map { $0 * 4096 } : nil
    }
}
