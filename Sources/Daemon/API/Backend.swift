// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Store

/// What the API can ask of the node. Routes turn HTTP into these calls and their results into HTTP, nothing else.
///
/// Every refusal is thrown as a `Problem`; any other error becomes `internal` and is logged.
protocol Backend: Sendable {
    /// What is read here from now on shows every entry through it.
    var appliedIndex: UInt64 { get }
    /// For how long this node has known no leader; nil while it knows one.
    var leaderlessMilliseconds: Int64? { get }
    /// Waits until what is read here afterwards is as current as asked. Nothing to wait for with `.local`.
    /// - Returns: the entry through which a state is as current as asked; 0 when any is.
    /// - Throws: `noLeader` when nobody confirmed it in bounded time; `busy`.
    @discardableResult
    func readBarrier(_ consistency: ReadConsistency) async throws -> UInt64

    // Apps
    func apps(namespace: String?) async throws -> ItemList<AppView>
    func app(_ key: ObjectKey) async throws -> AppView
    /// Accepts the spec and starts a rollout; returns before the tasks run.
    func putApp(_ key: ObjectKey, _ request: PutAppRequest, _ condition: WriteCondition) async throws -> Written<
        AppView
    >
    func scaleApp(_ key: ObjectKey, _ request: ScaleRequest) async throws -> Written<AppView>
    func restartApp(_ key: ObjectKey) async throws -> Written<AppView>
    /// Starts the removal; the app is listed as `deleting` until its last task is gone.
    func deleteApp(_ key: ObjectKey, _ condition: WriteCondition) async throws -> UInt64
    func operation(_ id: String) async throws -> OperationView
    /// - Throws: `notFound` for an unknown app, service or task before the first line.
    func logs(_ key: ObjectKey, _ filter: LogFilter) async throws -> AsyncThrowingStream<AppLogLine, any Error>

    // Services and tasks
    func services(namespace: String?, app: String?) async throws -> ItemList<ServiceView>
    func service(_ key: ObjectKey, app: String?) async throws -> ServiceView
    /// Without `all`, only tasks that have not ended.
    func tasks(namespace: String?, app: String?, all: Bool) async throws -> TaskListView
    /// By id or a prefix of it that only one task has.
    func task(_ idOrPrefix: String) async throws -> TaskView

    // Nodes and cluster
    func nodes() async throws -> ItemList<NodeView>
    func node(_ nameOrID: String) async throws -> NodeView
    /// - Parameter kind: app, task or node.
    func why(kind: String, name: String, namespace: String) async throws -> WhyView
    func status() async throws -> StatusView
    /// As this node knows it; never waits for another member.
    func cluster() async throws -> ClusterView
    /// Hands leadership to the member of that name or id, nil for the voter that is furthest, and waits for the result.
    /// - Throws: `notFound` for no member, `conflict` for one that does not vote, `timeout`, `noLeader`.
    func transferLeader(to member: String?) async throws -> LeaderView
    func patchCluster(_ patch: ClusterPatch) async throws -> ClusterView
    /// Of this node, newest first.
    func snapshots() async throws -> ItemList<SnapshotView>
    /// Takes one of the state as it is now; running writes are not held up.
    func takeSnapshot() async throws -> SnapshotView
    /// Everything the cluster is, as this node has it, made while it is read.
    func backup() async throws -> BackupStream
    func isReady() async -> Bool

    // Coming and going. The node that founds, joins or leaves begins another life after the answer.
    func initializeCluster(_ request: ClusterInitRequest) async throws -> ClusterInitView
    func joinCluster(_ request: ClusterJoinRequest) async throws -> ClusterJoinView
    /// What keeps this machine from joining; changes nothing.
    func checkJoin(_ request: ClusterJoinRequest) async throws -> ClusterJoinCheckView
    func leaveCluster() async throws
    /// For a machine that knocks here, whoever leads.
    func admit(_ application: JoinApplication) async throws -> JoinWelcome
    /// For a machine that wants to know whether it could join.
    func preflight(_ question: PreflightQuestion) async throws -> PreflightAnswer
    func authorities() async throws -> AuthorityView
    /// What a node of a cluster that lost its quorum is here.
    func succession(of cluster: String, node: NodeID) async throws -> SuccessionView
    /// For a node that others do not take any more, whoever leads.
    func renew(_ proof: IdentityProof) async throws -> JoinWelcome
    func createJoinToken(_ request: JoinTokenRequest) async throws -> JoinTokenView
    func joinTokens() async throws -> ItemList<JoinTokenView>
    func revokeJoinToken(_ id: String) async throws -> UInt64
    /// - Parameter id: nil for the only one there is.
    func rotateJoinToken(_ id: String?) async throws -> JoinTokenView
    func removeNode(_ nameOrID: String) async throws -> UInt64
    func certificates() async throws -> CertificatesView
    /// Asks the nodes to exchange what they show; answers with what they show still.
    func renewCertificates(_ request: CertificateRenewRequest) async throws -> CertificatesView
    /// Begins to exchange the authority.
    /// - Throws: `conflict` while it is exchanged already.
    func rotateAuthority() async throws -> CertificatesView
    /// - Parameter begins: false only plans.
    func rebalance(namespace: String?, app: String?, begins: Bool) async throws -> RebalanceView
    func patchNode(_ nameOrID: String, _ patch: NodePatch) async throws -> NodeView

    // The network
    func networks() async throws -> ItemList<NetworkView>
    /// The way from every node to every other one, tried out now.
    func diagnoseNetwork() async throws -> NetworkDoctorView
    func checkAddresses() async throws -> AddressCheckView

    // Who asks
    /// As this node knows it: nobody else is needed.
    func apiToken(_ id: String) async throws -> APITokenRow?
    /// Name of the node of this cluster that is named by one of the alternative names of a certificate.
    func node(named names: [String]) async throws -> String?
    func createAPIToken(_ request: APITokenRequest) async throws -> APITokenView
    func apiTokens() async throws -> ItemList<APITokenView>
    func revokeAPIToken(_ id: String) async throws -> UInt64

    // Volumes
    func volumes(namespace: String?) async throws -> ItemList<VolumeView>
    func volume(_ key: ObjectKey) async throws -> VolumeView
    /// `created` is false when it existed.
    func putVolume(_ key: ObjectKey) async throws -> Written<VolumeView>
    func deleteVolume(_ key: ObjectKey) async throws -> UInt64

    // Images
    func images() async throws -> ItemList<ImageSummary>
    func pullImage(_ reference: String) async throws -> ImageSummary
    func importImages(archive path: String, name: String?) async throws -> ItemList<ImageSummary>
    func removeImage(_ reference: String) async throws

    // Configs
    func configs(namespace: String?, prefix: String) async throws -> ItemList<ConfigView>
    func config(_ key: ObjectKey) async throws -> ConfigView
    func putConfig(_ key: ObjectKey, _ data: String, _ condition: WriteCondition) async throws -> Written<ConfigView>
    func deleteConfig(_ key: ObjectKey, _ condition: WriteCondition) async throws -> UInt64

    // Events
    /// The next events in order, without their objects. A position above the applied index gives an empty page.
    /// - Throws: `compacted` when events after `position` are no longer kept.
    func events(after position: EventPosition, limit: Int) async throws -> EventPage
    /// What the event is about, if its version is still the event's.
    func object(of event: EventView) async throws -> EventView.Object?
    /// Waits until this node has applied more than `index`, at most as long as `limit`.
    func waitForIndex(beyond index: UInt64, limit: Duration) async throws

    // SQL and numbers
    func query(_ sql: String, withSecrets: Bool) async throws -> QueryView
    func metrics() async -> String
    /// For the `Hivemind-Index` header.
    func appliedIndex() async -> UInt64
}

/// How current a read is, `?consistency=`.
enum ReadConsistency: String, CaseIterable, Sendable {
    /// Shows every write acknowledged before the read was asked for, by whichever member.
    case linearizable
    /// Shows every write this node's leader knows to be committed, without proof that it still leads.
    case leader
    /// Shows what this node has applied; answers without a leader.
    case local
}

/// A place in the stream of events.
struct EventPosition: Hashable, Sendable, CustomStringConvertible {
    var index: UInt64
    /// Last event of the entry that was seen; nil when all were.
    var sub: Int?

    init(index: UInt64, sub: Int? = nil) {
        self.index = index
        self.sub = sub
    }

    /// `57` or `57.2`, as the stream writes its ids.
    init?(_ text: String) {
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        guard let index = UInt64(parts[0]), index <= UInt64(Int64.max) else { return nil }
        self.index = index
        if parts.count == 2 {
            guard let sub = Int(parts[1]), sub >= 0 else { return nil }
            self.sub = sub
        }
    }

    /// The index after which to look for what comes next.
    var floor: UInt64 { sub == nil ? index : index - min(index, 1) }

    func isBefore(_ event: EventView) -> Bool {
        event.index > index || (event.index == index && event.sub > sub ?? Int.max)
    }

    var description: String { sub.map { "\(index).\($0)" } ?? "\(index)" }
}

struct EventPage: Sendable {
    /// All events after the position asked for, up to and including `end`.
    var events: [EventView]
    /// Where to go on: up to here nothing is missing.
    var end: EventPosition
    /// More is there already.
    var hasMore: Bool
}

/// `If-Match` and `If-None-Match`.
enum WriteCondition: Hashable, Sendable {
    case none
    /// Fails with `preconditionFailed` unless the object has this version.
    case version(UInt64)
    /// Fails with `preconditionFailed` when the object exists.
    case absent
}

/// What a write left behind.
struct Written<Value: Sendable>: Sendable {
    var value: Value
    /// The object did not exist before.
    var created: Bool
    /// Commit index of the write.
    var index: UInt64
    /// Where to follow long work: an operation id.
    var operation: String?
}

struct LogFilter: Hashable, Codable, Sendable {
    var service: String?
    /// Id or prefix.
    var task: String?
    /// Lines per task.
    var tail: Int?
    var since: Timestamp?
    var follow: Bool

    func matches(task id: TaskID, service name: String) -> Bool {
        (service == nil || service == name) && task.map { id.raw.hasPrefix($0) } ?? true
    }
}
