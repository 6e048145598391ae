// SPDX-License-Identifier: Apache-2.0
import Model
import Synchronization

import struct Store.APITokenRow

@testable import Daemon

/// A backend with one app `web`, configs in memory, and hooks for what tests want to go wrong.
final class FakeBackend: Backend {
    struct State {
        var configs: [ObjectKey: ConfigView] = [:]
        var index: UInt64 = 7
        var isReady = true
        var puts: [(ObjectKey, PutAppRequest, WriteCondition)] = []
        var filters: [LogFilter] = []
        var pathsSeen: [String] = []
        var unchanged = false
        var barriers: [ReadConsistency] = []
        var hasLeader = true
        var configReads = 0
        /// In order; those up to `eventsGone` are no longer kept.
        var events: [EventView] = []
        var eventsGone: UInt64 = 0
        var transfers: [String?] = []
        var snapshots: [SnapshotView] = []
        var tokens: [APITokenRow] = []
        /// Names of nodes by what their certificates say.
        var certified: [String: String] = [:]
    }

    let state = Mutex(State())
    let fault: (any Error)?
    let lines: @Sendable () -> AsyncThrowingStream<AppLogLine, any Error>
    let onStatus: @Sendable () async throws -> Void
    let onImport: @Sendable (String) throws -> Void
    /// What happens while the members confirm what is current.
    let onBarrier: @Sendable (FakeBackend) async throws -> Void

    init(
        fault: (any Error)? = nil,
        lines: @escaping @Sendable () -> AsyncThrowingStream<AppLogLine, any Error> = {
            AsyncThrowingStream { continuation in
                for number in 1...3 { continuation.yield(FakeBackend.line("line \(number)")) }
                continuation.finish()
            }
        },
        onStatus: @escaping @Sendable () async throws -> Void = {},
        onImport: @escaping @Sendable (String) throws -> Void = { _ in },
        onBarrier: @escaping @Sendable (FakeBackend) async throws -> Void = { _ in }
    ) {
        self.fault = fault
        self.lines = lines
        self.onStatus = onStatus
        self.onImport = onImport
        self.onBarrier = onBarrier
    }

    static let epoch = Timestamp(milliseconds: 0)
    static func line(_ text: String) -> AppLogLine {
        AppLogLine(task: "t1", service: "web", at: epoch, stream: .stdout, text: text)
    }

    static func view(_ name: String) -> AppView {
        AppView(
            name: name, namespace: "default", version: 5, release: 1, image: "nginx", status: .running, reason: nil,
            replicas: ReplicaCounts(desired: 1, running: 1, ready: 1), vip: nil, ports: [], services: [], rollout: nil,
            createdAt: epoch, updatedAt: epoch)
    }

    private func known(_ key: ObjectKey) throws {
        if let fault { throw fault }
        guard key.name == "web" else { throw Problem(.notFound, "no app `\(key)`", hint: "hivemind app ls") }
    }

    var leaderlessMilliseconds: Int64? { state.withLock { $0.hasLeader ? nil : 7_000 } }
    var appliedIndex: UInt64 { state.withLock { $0.index } }

    func readBarrier(_ consistency: ReadConsistency) async throws -> UInt64 {
        let isCurrent = state.withLock { state in
            state.barriers.append(consistency)
            return state.hasLeader || consistency == .local
        }
        try await onBarrier(self)
        guard isCurrent else { throw Problem(.noLeader, "no leader answers", hint: "use ?consistency=local") }
        return appliedIndex
    }

    // MARK: - Events

    /// Adds events of the next entry, one for each name, and moves the applied index to it.
    func happen(_ kind: String, _ names: String..., namespace: String? = "default") {
        state.withLock { state in
            state.index += 1
            for (sub, name) in names.enumerated() {
                state.events.append(
                    EventView(
                        index: state.index, sub: sub, kind: kind, namespace: namespace, name: name, change: .updated,
                        version: state.index))
            }
        }
    }

    func events(after position: EventPosition, limit: Int) async throws -> EventPage {
        try state.withLock { state in
            guard position.floor >= state.eventsGone else {
                var problem = Problem(
                    .compacted, "events after \(position) are no longer kept", hint: "list, then watch")
                problem.oldestIndex = state.eventsGone
                problem.currentIndex = state.index
                throw problem
            }
            let later = state.events.filter(position.isBefore)
            let page = Array(later.prefix(limit))
            guard later.count > limit, let last = page.last else {
                return EventPage(events: page, end: EventPosition(index: state.index), hasMore: false)
            }
            return EventPage(
                events: page, end: EventPosition(index: last.index, sub: last.sub), hasMore: true)
        }
    }

    func object(of event: EventView) async throws -> EventView.Object? {
        guard event.kind == "config" else { return nil }
        return .config(ConfigView(name: event.name, namespace: "default", data: "now", version: event.version))
    }

    func waitForIndex(beyond index: UInt64, limit: Duration) async throws {
        let end = ContinuousClock.now + limit
        while state.withLock({ $0.index <= index }), ContinuousClock.now < end {
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    // MARK: - Cluster

    func patchCluster(_ patch: ClusterPatch) async throws -> ClusterView { try await cluster() }

    func transferLeader(to member: String?) async throws -> LeaderView {
        state.withLock { $0.transfers.append(member) }
        switch member {
        case nil, "n2": return LeaderView(leader: "n2", previous: "n1", term: 2)
        case "n3": throw Problem(.conflict, "member `n3` does not vote")
        case "n4": throw Problem(.timeout, "`n4` did not take over")
        case let name?: throw Problem(.notFound, "no member `\(name)`")
        }
    }

    func snapshots() async throws -> ItemList<SnapshotView> {
        state.withLock { ItemList(items: $0.snapshots, index: $0.index) }
    }

    func takeSnapshot() async throws -> SnapshotView {
        state.withLock { state in
            let snapshot = SnapshotView(
                name: "snapshot-\(state.index)", index: state.index, term: 1, bytes: 4096, createdAt: Self.epoch,
                sha256: "00", path: "/snapshots/snapshot-\(state.index)", kind: .manual)
            state.snapshots.insert(snapshot, at: 0)
            return snapshot
        }
    }

    // MARK: - Apps

    func apps(namespace: String?) async throws -> ItemList<AppView> {
        if let fault { throw fault }
        return ItemList(items: namespace == nil || namespace == "default" ? [Self.view("web")] : [], index: 9)
    }

    func app(_ key: ObjectKey) async throws -> AppView {
        try known(key)
        return Self.view(key.name)
    }

    func putApp(
        _ key: ObjectKey, _ request: PutAppRequest, _ condition: WriteCondition
    ) async throws -> Written<AppView> {
        let unchanged = state.withLock { state in
            state.puts.append((key, request, condition))
            return state.unchanged
        }
        return Written(value: Self.view(key.name), created: true, index: 11, operation: unchanged ? nil : "op1")
    }

    func scaleApp(_ key: ObjectKey, _ request: ScaleRequest) async throws -> Written<AppView> {
        try known(key)
        return Written(value: Self.view(key.name), created: false, index: 12, operation: "op2")
    }

    func restartApp(_ key: ObjectKey) async throws -> Written<AppView> {
        try known(key)
        return Written(value: Self.view(key.name), created: false, index: 13, operation: "op3")
    }

    func deleteApp(_ key: ObjectKey, _ condition: WriteCondition) async throws -> UInt64 {
        try known(key)
        return 14
    }

    func operation(_ id: String) async throws -> OperationView {
        throw Problem(.notFound, "no operation `\(id)`")
    }

    func logs(_ key: ObjectKey, _ filter: LogFilter) async throws -> AsyncThrowingStream<AppLogLine, any Error> {
        try known(key)
        state.withLock { $0.filters.append(filter) }
        return lines()
    }

    func services(namespace: String?, app: String?) async throws -> ItemList<ServiceView> {
        ItemList(items: [], index: 9)
    }

    func service(_ key: ObjectKey, app: String?) async throws -> ServiceView {
        ServiceView(
            name: key.name, app: app ?? key.name, namespace: key.namespace, version: 4, image: "nginx",
            imageDigest: "sha256:0", replicas: ReplicaCounts(desired: 1, running: 1, ready: 1), vip: nil,
            endpointMode: .vip, endpoints: [], ports: [], reason: nil, spec: ServiceSpec(name: key.name, image: "nginx")
        )
    }

    func tasks(namespace: String?, app: String?, all: Bool) async throws -> TaskListView {
        TaskListView(items: [], index: all ? 100 : 9)
    }

    func task(_ idOrPrefix: String) async throws -> TaskView { throw Problem(.notFound, "no task `\(idOrPrefix)`") }
    func checkJoin(_ request: ClusterJoinRequest) async throws -> ClusterJoinCheckView {
        ClusterJoinCheckView(findings: [], nodes: [])
    }
    func preflight(_ question: PreflightQuestion) async throws -> PreflightAnswer {
        throw Problem(.unauthenticated, "the token is not known")
    }
    func networks() async throws -> ItemList<NetworkView> { ItemList(items: [], index: 9) }
    func diagnoseNetwork() async throws -> NetworkDoctorView { NetworkDoctorView(paths: [], silent: []) }
    func checkAddresses() async throws -> AddressCheckView {
        AddressCheckView(compared: 0, findings: [], silent: [])
    }
    func nodes() async throws -> ItemList<NodeView> { ItemList(items: [], index: 9) }
    func node(_ nameOrID: String) async throws -> NodeView { throw Problem(.notFound, "no node `\(nameOrID)`") }
    func rebalance(namespace: String?, app: String?, begins: Bool) async throws -> RebalanceView {
        RebalanceView(moves: [], underWay: 0)
    }
    func patchNode(_ nameOrID: String, _ patch: NodePatch) async throws -> NodeView {
        throw Problem(.notFound, "no node `\(nameOrID)`")
    }
    func why(kind: String, name: String, namespace: String) async throws -> WhyView {
        WhyView(kind: kind, name: name, answer: "\(kind) `\(namespace)/\(name)` is there", items: [])
    }

    private var alone: Problem { Problem(.conflict, "this node comes and goes nowhere") }
    func initializeCluster(_ request: ClusterInitRequest) async throws -> ClusterInitView { throw alone }
    func joinCluster(_ request: ClusterJoinRequest) async throws -> ClusterJoinView { throw alone }
    func leaveCluster() async throws { throw alone }
    func admit(_ application: JoinApplication) async throws -> JoinWelcome { throw alone }
    func backup() async throws -> BackupStream { throw Problem(.noSpace, "there is no room for a backup") }

    func renew(_ proof: IdentityProof) async throws -> JoinWelcome {
        throw Problem(.forbidden, "node `x` was removed from the cluster")
    }

    func authorities() async throws -> AuthorityView { AuthorityView(authorities: []) }
    func succession(of cluster: String, node: NodeID) async throws -> SuccessionView { throw alone }
    func createJoinToken(_ request: JoinTokenRequest) async throws -> JoinTokenView { throw alone }
    func joinTokens() async throws -> ItemList<JoinTokenView> { ItemList(items: [], index: 9) }
    func revokeJoinToken(_ id: String) async throws -> UInt64 { throw alone }
    func certificates() async throws -> CertificatesView { throw alone }
    func renewCertificates(_ request: CertificateRenewRequest) async throws -> CertificatesView { throw alone }
    func rotateAuthority() async throws -> CertificatesView { throw alone }
    func rotateJoinToken(_ id: String?) async throws -> JoinTokenView { throw alone }

    func apiToken(_ id: String) async throws -> APITokenRow? { state.withLock { $0.tokens.first { $0.id == id } } }
    func node(named names: [String]) async throws -> String? {
        state.withLock { state in names.compactMap { state.certified[$0] }.first }
    }
    func createAPIToken(_ request: APITokenRequest) async throws -> APITokenView { throw alone }
    func apiTokens() async throws -> ItemList<APITokenView> {
        state.withLock { ItemList(items: $0.tokens.map { APITokenView($0) }, index: 9) }
    }
    func revokeAPIToken(_ id: String) async throws -> UInt64 {
        state.withLock { $0.tokens.removeAll { $0.id == id } }
        return 12
    }

    func removeNode(_ nameOrID: String) async throws -> UInt64 { throw Problem(.notFound, "no node `\(nameOrID)`") }

    func status() async throws -> StatusView {
        try await onStatus()
        return StatusView(
            node: "n1", role: "voter", term: 1, appliedIndex: 7, leader: "n1", version: "1",
            runtime: RuntimeInfo(kind: "simulated", version: "1", address: "", isReady: true), apps: 1,
            tasksRunning: 1, uptimeSeconds: 1, conditions: [])
    }

    func cluster() async throws -> ClusterView {
        ClusterView(id: "c", leader: "n1", term: 1, commitIndex: 7, members: [], nodes: 1, downAfter: "5s")
    }

    func isReady() async -> Bool { state.withLock { $0.isReady } }
    func volumes(namespace: String?) async throws -> ItemList<VolumeView> { ItemList(items: [], index: 9) }

    private func volumeView(_ key: ObjectKey) -> VolumeView {
        VolumeView(
            name: key.name, namespace: key.namespace, driver: "local", node: "n1", path: "/v", sizeBytes: 0,
            usedBytes: nil, usedBy: [], createdAt: Self.epoch)
    }

    func volume(_ key: ObjectKey) async throws -> VolumeView { volumeView(key) }

    func putVolume(_ key: ObjectKey) async throws -> Written<VolumeView> {
        Written(value: volumeView(key), created: key.name == "new", index: 15, operation: nil)
    }

    func deleteVolume(_ key: ObjectKey) async throws -> UInt64 {
        if key.name == "used" { throw Problem(.volumeInUse, "volume `used` is used by web", hint: "delete web first") }
        return 16
    }

    func images() async throws -> ItemList<ImageSummary> { ItemList(items: [], index: 9) }

    func pullImage(_ reference: String) async throws -> ImageSummary {
        ImageSummary(name: reference, digest: "sha256:0", sizeBytes: 1, createdAt: nil)
    }

    func importImages(archive path: String, name: String?) async throws -> ItemList<ImageSummary> {
        state.withLock { $0.pathsSeen.append(path) }
        try onImport(path)
        return ItemList(
            items: [ImageSummary(name: name ?? "none", digest: "sha256:0", sizeBytes: 1, createdAt: nil)], index: 9)
    }

    func removeImage(_ reference: String) async throws {}

    func configs(namespace: String?, prefix: String) async throws -> ItemList<ConfigView> {
        state.withLock { state in
            ItemList(
                items: state.configs.values.filter { $0.name.hasPrefix(prefix) }.sorted { $0.name < $1.name },
                index: state.index)
        }
    }

    func config(_ key: ObjectKey) async throws -> ConfigView {
        let config = state.withLock { state in
            state.configReads += 1
            return state.configs[key]
        }
        guard let config else { throw Problem(.notFound, "no config `\(key)`") }
        return config
    }

    private static func check(_ condition: WriteCondition, _ existing: ConfigView?) throws {
        switch condition {
        case .none: return
        case .absent: if existing == nil { return }
        case .version(let version): if existing?.version == version { return }
        }
        throw Problem(.preconditionFailed, "the config has version \(existing?.version ?? 0)")
    }

    func putConfig(_ key: ObjectKey, _ data: String, _ condition: WriteCondition) async throws -> Written<ConfigView> {
        try state.withLock { state in
            let existing = state.configs[key]
            try Self.check(condition, existing)
            state.index += 1
            let config = ConfigView(name: key.name, namespace: key.namespace, data: data, version: state.index)
            state.configs[key] = config
            return Written(value: config, created: existing == nil, index: state.index, operation: nil)
        }
    }

    func deleteConfig(_ key: ObjectKey, _ condition: WriteCondition) async throws -> UInt64 {
        try state.withLock { state in
            try Self.check(condition, state.configs[key])
            state.configs[key] = nil
            state.index += 1
            return state.index
        }
    }

    func query(_ sql: String, withSecrets: Bool) async throws -> QueryView {
        QueryView(columns: ["sql"], rows: [[.text(sql)]], truncated: false)
    }

    func metrics() async -> String { "hivemind_tasks 1\n" }
    func appliedIndex() async -> UInt64 { state.withLock { $0.index } }
}
