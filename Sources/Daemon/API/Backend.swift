// SPDX-License-Identifier: Apache-2.0
internal import Model

/// What the API can ask of the node. Routes turn HTTP into these calls and their results into HTTP, nothing else.
///
/// Every refusal is thrown as a `Problem`; any other error becomes `internal` and is logged.
protocol Backend: Sendable {
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
    func deleteApp(_ key: ObjectKey) async throws -> UInt64
    func operation(_ id: String) async throws -> OperationView
    /// - Throws: `notFound` for an unknown app, service or task before the first line.
    func logs(_ key: ObjectKey, _ filter: LogFilter) async throws -> AsyncThrowingStream<AppLogLine, any Error>

    // Services and tasks
    func services(namespace: String?, app: String?) async throws -> ItemList<ServiceView>
    func service(_ key: ObjectKey, app: String?) async throws -> ServiceView
    /// Without `all`, only tasks that have not ended.
    func tasks(namespace: String?, app: String?, all: Bool) async throws -> ItemList<TaskView>
    /// By id or a prefix of it that only one task has.
    func task(_ idOrPrefix: String) async throws -> TaskView

    // Nodes and cluster
    func nodes() async throws -> ItemList<NodeView>
    func node(_ nameOrID: String) async throws -> NodeView
    func status() async throws -> StatusView
    func cluster() async throws -> ClusterView
    func isReady() async -> Bool

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

    // SQL and numbers
    func query(_ sql: String) async throws -> QueryView
    func metrics() async -> String
    /// For the `Hivemind-Index` header.
    func appliedIndex() async -> UInt64
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

struct LogFilter: Hashable, Sendable {
    var service: String?
    /// Id or prefix.
    var task: String?
    /// Lines per task.
    var tail: Int?
    var since: Timestamp?
    var follow: Bool
}
