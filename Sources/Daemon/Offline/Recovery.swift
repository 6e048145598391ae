// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Raft
internal import Store

/// What a survivor of a cluster that lost its quorum holds: what a person needs to choose the one to go on with.
public struct RecoveryReport: Encodable, Sendable {
    public var directory: String
    public var node: String
    public var memberId: UInt64
    public var clusterId: String
    public var term: UInt64
    public var lastIndex: UInt64
    public var lastTerm: UInt64
    /// Known here to be committed, at least.
    public var commitIndex: UInt64
    public var appliedIndex: UInt64
    public var membershipIndex: UInt64
    public var voters: [UInt64]
    public var learners: [UInt64]
    /// Entries here that may or may not have been agreed by the others; all of them are kept.
    public var uncertainEntries: UInt64
    /// An interrupted recovery is gone on with.
    public var isUnderWay: Bool
    /// Set once it is done.
    public var result: Result?

    public struct Result: Encodable, Sendable {
        public var clusterId: String
        public var term: UInt64
        /// Of the entry that made this node the only member.
        public var index: UInt64
        public var removed: [UInt64]
        public var backup: String
    }
}

/// Makes one survivor a cluster of its own when the majority of the voters is lost for ever.
///
/// What it does is what no running cluster may do: it decides alone. Everything the survivor holds is kept, committed or
/// not; what only the lost ones held is lost. The new cluster has a new id and a term far above the old one's, so that
/// nobody of the old cluster is ever listened to. See docs/how-to/recover-a-lost-quorum.md.
public enum Recovery {
    /// Added to the term: no member of the old cluster can have got there.
    static let termStep: UInt64 = 1_000

    /// Looks, and changes nothing that matters: SQLite may tidy up its write-ahead log.
    /// - Throws: `Problem`.
    public static func survey(dataDirectory: String) throws -> RecoveryReport {
        let directory = try NodeDirectory(dataDirectory)
        return try Survivor(directory).report()
    }

    /// Does it. Interrupted anywhere, it is to be run again and ends the same way.
    /// - Throws: `Problem`; `conflict` when this node cannot or need not be recovered: nothing was changed then.
    /// - Parameter code: the recovery code of `cluster init`, for a survivor that does not hold the cluster's key.
    public static func recover(dataDirectory: String, code: String? = nil) throws -> RecoveryReport {
        let directory = try NodeDirectory(dataDirectory)
        var survivor = try Survivor(directory)
        var report = survivor.report()
        let authority = try survivor.authority(code)
        let plan = try survivor.plan ?? prepare(directory, survivor)
        report.result = try survivor.recover(plan, authority)
        return report
    }

    private static func prepare(_ directory: NodeDirectory, _ survivor: Survivor) throws -> NodeDirectory.Plan {
        var generator = SystemRandomNumberGenerator()
        let clusterID = IdentifierMaker.make(using: &generator)
        try directory.requireFree(
            directory.bytes(of: NodeDirectory.stateNames + [ClusterFiles.directoryName]),
            to: "back `\(directory.path)` up")
        let backup = "before-\(clusterID)"
        try directory.copy(NodeDirectory.stateNames + [ClusterFiles.directoryName], to: backup)
        let plan = NodeDirectory.Plan(
            verb: .recover, clusterId: clusterID, backup: "\(directory.path)/\(backup)")
        try directory.begin(plan)
        return plan
    }
}

/// The opened log and state of one node.
private struct Survivor {
    let directory: NodeDirectory
    let identity: NodeFile
    let state: StateMachine
    let log: LogFile
    let meta: MetaRow
    let plan: NodeDirectory.Plan?

    init(_ directory: NodeDirectory) throws {
        self.directory = directory
        plan = try directory.plan()
        if let plan, plan.verb != .recover {
            throw Problem(
                .conflict, "`hivemind cluster snapshot restore` was interrupted in `\(directory.path)`",
                hint: "run that again first")
        }
        identity = try NodeFile.read(directory.path)
        if FileManager.default.fileExists(atPath: "\(directory.path)/\(NodeIdentity.markName)") {
            throw Problem(
                .conflict, "`\(directory.path)` is in quarantine: it may have forgotten what it promised",
                hint: "choose another survivor, or restore a snapshot: hivemind cluster snapshot restore FILE")
        }
        do {
            state = try StateMachine(path: directory.path + "/state.sqlite")
            let store = try SnapshotStore(path: directory.path + "/snapshots")
            // As the daemon does at its start: what a crash interrupted is finished first.
            let pending = try store.pendingInstall()
            var meta = try state.read { try $0.meta() }
            if let snapshot = pending ?? (meta.appliedIndex == 0 ? store.newest : nil) {
                try state.install(snapshot, from: store)
                meta = try state.read { try $0.meta() }
            }
            var options = LogFile.Options()
            options.mustExist = true
            log = try LogFile(
                directory: try POSIXLogDirectory(path: directory.path + "/log"), minimumIndex: meta.appliedIndex,
                installing: pending?.position, options: options)
            if pending != nil { try store.endInstall() }
            self.meta = meta
        } catch let error as LogError {
            throw Problem(
                .conflict, "this survivor cannot be used: \(error.message)",
                hint: "choose another one, or restore a snapshot: hivemind cluster snapshot restore FILE")
        }
    }

    var configuration: ConfigurationPoint {
        log.recovered.configurations.last.flatMap { $0.index > meta.configuration.index ? $0 : nil }
            ?? meta.configuration
    }

    func report() -> RecoveryReport {
        let last = log.extent.last
        let commit = max(log.hardState.commit, meta.appliedIndex)
        return RecoveryReport(
            directory: directory.path, node: identity.name, memberId: identity.memberId, clusterId: identity.clusterId,
            term: log.hardState.term, lastIndex: last.index, lastTerm: last.term, commitIndex: commit,
            appliedIndex: meta.appliedIndex, membershipIndex: configuration.index,
            voters: configuration.membership.voters, learners: configuration.membership.learners,
            uncertainEntries: last.index - min(last.index, commit), isUnderWay: plan != nil)
    }

    /// - Throws: `conflict` when there is nothing to recover, or not with this node.
    func checkWanted() throws(Problem) {
        let membership = configuration.membership
        guard membership.contains(identity.memberId) else {
            throw Problem(
                .conflict,
                membership.removed.contains(identity.memberId)
                    ? "node `\(identity.name)` was removed from its cluster: it may lack what happened since"
                    : "node `\(identity.name)` never was a member of a cluster: it has nothing to recover",
                hint: "use a survivor that was a member: `--dry-run` on each of them shows what it holds")
        }
        guard membership.voters != [identity.memberId] else {
            throw Problem(
                .conflict, "node `\(identity.name)` is the only voter of its cluster: it needs nobody else",
                hint: "start it: hivemind daemon --data-dir \(directory.path)")
        }
        let removed = (Set(membership.members + membership.removed)).subtracting([identity.memberId])
        guard removed.count <= Membership.removedMax else {
            throw Problem(.conflict, "more than \(Membership.removedMax) members were removed from this cluster")
        }
    }

    /// Who issues this node's next certificate, which must name the new cluster; nil where there is no such authority.
    /// - Throws: `Problem` when nothing was changed and nothing can be.
    func authority(_ code: String?) throws -> ClusterAuthority? {
        if plan == nil { try checkWanted() }
        guard identity.place != nil else { return nil }
        return try ClusterAuthority.open(
            state, files: ClusterFiles(dataDirectory: directory.path), code: code)
    }

    mutating func recover(
        _ plan: NodeDirectory.Plan, _ authority: ClusterAuthority?
    ) throws -> RecoveryReport.Result {
        // 1. The log: from now on this node decides alone.
        var point = configuration
        if point.membership.voters != [identity.memberId] || !point.membership.learners.isEmpty {
            let old = point.membership
            let alone = Membership(
                voters: [identity.memberId],
                removed: Array(Set(old.members + old.removed).subtracting([identity.memberId])))
            let term = max(log.hardState.term, log.extent.last.term) + Recovery.termStep
            let index = log.extent.last.index + 1
            point = ConfigurationPoint(index: index, membership: alone)
            try log.append(
                Write(
                    hardState: HardState(term: term, vote: nil, commit: index),
                    entries: [Entry(index: index, term: term, kind: .configuration, payload: alone.encoded())]))
            try log.sync()
        }
        // 2. The state: of another cluster from now on.
        try state.beginCluster(id: plan.clusterId)
        _ = try state.checkpoint()
        // 3. The node, and with it everything.
        var identity = identity
        if identity.clusterId != plan.clusterId { identity.formerClusterId = identity.clusterId }
        identity.clusterId = plan.clusterId
        identity.place?.seeds = []
        if let authority {
            try authority.issue(to: identity, into: ClusterFiles(dataDirectory: directory.path))
        }
        try identity.write(directory.path)
        try directory.finish()
        return RecoveryReport.Result(
            clusterId: plan.clusterId, term: log.hardState.term, index: point.index,
            removed: point.membership.removed, backup: plan.backup)
    }
}
