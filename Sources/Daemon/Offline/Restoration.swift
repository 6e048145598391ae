// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
public import Model
internal import Raft
internal import Store

/// What `cluster snapshot restore` and `admin restore` made.
public struct RestorationReport: Encodable, Sendable {
    public var directory: String
    public var snapshot: String
    /// Of the snapshot.
    public var snapshotIndex: UInt64
    public var snapshotTerm: UInt64
    public var snapshotClusterId: String
    public var createdAt: Timestamp
    public var bytes: UInt64
    public var node: String
    public var memberId: UInt64
    public var clusterId: String
    /// Where the new cluster's log begins.
    public var index: UInt64
    public var term: UInt64
    /// Where other machines join; nil for a node alone.
    public var address: String?
    /// Of the authority that was made anew: shown this once.
    public var recoveryCode: String?
}

/// What a person says beside the file.
public struct RestorationOptions: Sendable {
    /// Which node of the old cluster this machine is, its tasks go on here; nil when there is just one, or one of the host's
    /// name.
    public var node: String?
    /// Address at which others reach this machine; nil takes its first one.
    public var advertise: String?
    public var peerPort: Int?
    public var apiPort: Int?
    /// Opens the authority that is in the state.
    public var recoveryCode: String?
    /// Makes another one instead.
    public var newAuthority: Bool

    public init(
        node: String? = nil, advertise: String? = nil, peerPort: Int? = nil, apiPort: Int? = nil,
        recoveryCode: String? = nil, newAuthority: Bool = false
    ) {
        self.node = node
        self.advertise = advertise
        self.peerPort = peerPort
        self.apiPort = apiPort
        self.recoveryCode = recoveryCode
        self.newAuthority = newAuthority
    }
}

/// Makes a new cluster of one out of a snapshot of an old one, in an empty data directory.
public enum Restoration {
    /// Added to the index, so that nobody who watched the old cluster takes new events for old ones.
    static let indexStep: UInt64 = 1_000_000

    /// Where a state comes from.
    private struct Source {
        var file: String
        var offset: UInt64
        var manifest: SnapshotManifest
    }

    /// - Parameter file: `NAME.sqlite`, with `NAME.manifest` beside it.
    /// - Throws: `Problem`; interrupted anywhere, it is to be run again.
    public static func restore(
        file: String, dataDirectory: String, options: RestorationOptions
    ) throws -> RestorationReport {
        let source = Source(file: file, offset: 0, manifest: try readManifest(of: file))
        return try restore(source, dataDirectory: dataDirectory, options)
    }

    /// - Parameter backup: as `admin backup` wrote it.
    /// - Throws: `Problem`; interrupted anywhere, it is to be run again.
    public static func restore(
        backup: String, dataDirectory: String, options: RestorationOptions
    ) throws -> RestorationReport {
        let contents = try inspect(backup: backup)
        let source = Source(file: backup, offset: contents.stateOffset, manifest: contents.manifest)
        return try restore(source, dataDirectory: dataDirectory, options)
    }

    /// Reads the whole of a backup.
    /// - Throws: `Problem` naming what is wrong with it.
    public static func inspect(backup: String) throws -> BackupCheck.Contents {
        var check = BackupCheck()
        try NodeDirectory.read(backup) { check.take($0) }
        return try check.finish("`\(backup)`")
    }

    private static func restore(
        _ source: Source, dataDirectory: String, _ options: RestorationOptions
    ) throws -> RestorationReport {
        if let code = options.recoveryCode { _ = try ClusterAuthority.parse(code) }
        guard mkdir(dataDirectory, 0o700) == 0 || errno == EEXIST else {
            throw Problem(
                .internal, "cannot make `\(dataDirectory)`: \(NodeDirectory.text(errno))", hint: "make it yourself")
        }
        let directory = try NodeDirectory(dataDirectory)
        let plan = try begin(directory)
        do {
            return try make(source, directory, plan, options)
        } catch {
            // Nothing of it is worth keeping: the directory is as empty as it was given.
            for name in NodeDirectory.stateNames + [ClusterFiles.directoryName] {
                try directory.removeTree("\(directory.path)/\(name)")
            }
            try directory.finish()
            throw error
        }
    }

    private static func make(
        _ source: Source, _ directory: NodeDirectory, _ plan: NodeDirectory.Plan, _ options: RestorationOptions
    ) throws -> RestorationReport {
        let (store, snapshot) = try bring(source, into: directory)
        let state = try StateMachine(path: directory.path + "/state.sqlite")
        try state.install(snapshot, from: store)
        let row = try chooseNode(try state.read { try $0.nodes() }, options.node)

        var generator = SystemRandomNumberGenerator()
        let member = UInt64.random(in: 1...UInt64(Int64.max), using: &generator)
        let old = snapshot.configuration.membership
        let removed = Set(old.members + old.removed)
        guard removed.count <= Membership.removedMax else {
            throw Problem(
                .conflict, "more than \(Membership.removedMax) members were removed from the cluster of the snapshot",
                hint: "make a new cluster and deploy its apps there")
        }
        let position = LogPosition(
            index: snapshot.position.index + indexStep, term: snapshot.position.term + Recovery.termStep)
        let authority = try authority(state, plan, options)
        let place = try authority == nil ? nil : place(row, try state.read { try $0.meta().ranges }, options)
        try state.restore(
            clusterID: plan.clusterId,
            membership: Membership(
                voters: [member], removed: removed.sorted()),
            at: position, own: row.map { ($0.id, member) }, authority: authority?.row)
        guard try state.checkpoint() else {
            throw Problem(.internal, "the state could not be made durable", hint: "run it again")
        }
        let log = try LogFile(directory: try POSIXLogDirectory(path: directory.path + "/log"), minimumIndex: 0)
        try log.reset(to: position)
        // A snapshot of the old cluster is of no use to the new one.
        try directory.removeTree(directory.path + "/snapshots")
        let identity = NodeFile(
            id: row?.id ?? NodeID(IdentifierMaker.make(using: &generator)),
            name: row?.name ?? NodeIdentity.label(NodeIdentity.hostName()),
            clusterId: plan.clusterId, memberId: member, hasLog: true,
            formerClusterId: snapshot.clusterID, place: place)
        try authority?.issue(to: identity, into: ClusterFiles(dataDirectory: directory.path))
        try identity.write(directory.path)
        try directory.finish()
        return RestorationReport(
            directory: directory.path, snapshot: snapshot.name, snapshotIndex: snapshot.position.index,
            snapshotTerm: snapshot.position.term, snapshotClusterId: snapshot.clusterID, createdAt: snapshot.createdAt,
            bytes: snapshot.bytes, node: identity.name, memberId: member, clusterId: plan.clusterId,
            index: position.index, term: position.term,
            address: place.map { "\(PeerAddress(host: $0.advertise, port: $0.apiPort))" },
            recoveryCode: authority?.row == nil ? nil : authority?.key.recoveryCode)
    }

    private static func authority(
        _ state: StateMachine, _ plan: NodeDirectory.Plan, _ options: RestorationOptions
    ) throws -> ClusterAuthority? {
        guard try state.read({ try $0.authorities() }).contains(where: { $0.phase == .issuing }) else { return nil }
        if options.newAuthority { return try .make(clusterID: plan.clusterId, now: Date()) }
        do {
            return try .open(state, files: nil, code: options.recoveryCode)
        } catch let problem as Problem {
            throw Problem(
                problem.code, problem.detail,
                hint: (problem.hint.map { "\($0); " } ?? "")
                    + "without it: --new-authority, which ends join tokens and contexts")
        }
    }

    private static func place(
        _ row: NodeRow?, _ ranges: AddressRanges, _ options: RestorationOptions
    ) throws(Problem) -> NodeFile.ClusterPlace {
        let host = options.advertise ?? DaemonMain.primaryAddress()
        guard IPv4Address(host) != nil, DaemonMain.ownAddresses().contains(host) else {
            throw Problem(
                .badRequest, "\(host) is no address of this machine",
                hint: "it has \(DaemonMain.ownAddresses().joined(separator: ", ")): --advertise ADDRESS")
        }
        return NodeFile.ClusterPlace(
            advertise: host, peerPort: options.peerPort ?? PeerAddress.standardPort,
            apiPort: options.apiPort ?? PeerAddress.standardAPIPort,
            subnet: row?.subnet ?? IPv4Subnet(ranges.containers.network, prefix: 24), ranges: ranges, seeds: [])
    }

    private static func readManifest(of file: String) throws -> SnapshotManifest {
        guard file.hasSuffix(".sqlite") else {
            throw Problem(
                .badRequest, "`\(file)` is not the file of a snapshot",
                hint: "give NAME.sqlite; NAME.manifest must lie beside it")
        }
        let path = String(file.dropLast(".sqlite".count)) + ".manifest"
        guard access(file, R_OK) == 0 else {
            throw Problem(.notFound, "cannot read `\(file)`: \(NodeDirectory.text(errno))", hint: "check the path")
        }
        var status = stat()
        guard stat(path, &status) == 0, let data = FileManager.default.contents(atPath: path),
            data.count <= SnapshotManifest.encodedBytesMax
        else {
            throw Problem(
                .notFound, "there is no manifest `\(path)`, or it is too large for one",
                hint:
                    "copy NAME.manifest from beside the snapshot: without it nobody can tell whether the file is whole")
        }
        return try SnapshotManifest(decoding: Array(data))
    }

    /// The directory, empty but for what an earlier attempt left.
    private static func begin(_ directory: NodeDirectory) throws -> NodeDirectory.Plan {
        if let plan = try directory.plan() {
            guard plan.verb == .restore else {
                throw Problem(
                    .conflict, "`hivemind cluster recover` was interrupted in `\(directory.path)`",
                    hint: "run that again first")
            }
            for name in NodeDirectory.stateNames + [ClusterFiles.directoryName] {
                try directory.removeTree("\(directory.path)/\(name)")
            }
            return plan
        }
        let found = try FileManager.default.contentsOfDirectory(atPath: directory.path).filter { $0 != "lock" }.sorted()
        guard found.isEmpty else {
            throw Problem(
                .conflict, "`\(directory.path)` is not empty: it has `\(found[0])`",
                hint: "give an empty --data-dir: a snapshot never replaces what a node holds")
        }
        var generator = SystemRandomNumberGenerator()
        let plan = NodeDirectory.Plan(
            verb: .restore, clusterId: IdentifierMaker.make(using: &generator), backup: "")
        try directory.begin(plan)
        return plan
    }

    /// A snapshot in the new directory, verified to the last byte.
    private static func bring(
        _ source: Source, into directory: NodeDirectory
    ) throws -> (SnapshotStore, SnapshotManifest) {
        let (file, manifest) = (source.file, source.manifest)
        // Once as a snapshot, once as the state.
        try directory.requireFree(Int64(clamping: manifest.bytes) * 2, to: "restore `\(manifest.name)`")
        let target = directory.path + "/snapshots"
        guard mkdir(target, 0o700) == 0 else {
            throw Problem(.internal, "cannot make `\(target)`: \(NodeDirectory.text(errno))")
        }
        try NodeDirectory.copyFile(
            file, from: source.offset, bytes: manifest.bytes, to: "\(target)/\(manifest.name).sqlite")
        try DurableFile.write(Data(try manifest.encoded()), to: "\(target)/\(manifest.name).manifest")
        let store = try SnapshotStore(path: target)
        guard let snapshot = store.newest else {
            throw Problem(
                .conflict, "`\(file)` has another size than its manifest says", hint: "copy the snapshot again")
        }
        try store.verify(snapshot)
        return (store, snapshot)
    }

    private static func chooseNode(_ nodes: [NodeRow], _ wanted: String?) throws(Problem) -> NodeRow? {
        if let wanted {
            guard let node = nodes.first(where: { $0.name == wanted || $0.id.raw == wanted }) else {
                throw Problem(
                    .notFound, "the snapshot knows no node `\(wanted)`",
                    hint: "it knows \(nodes.map(\.name).joined(separator: ", "))")
            }
            return node
        }
        if nodes.count <= 1 { return nodes.first }
        if let own = nodes.first(where: { $0.name == NodeIdentity.label(NodeIdentity.hostName()) }) { return own }
        throw Problem(
            .badRequest, "the snapshot knows several nodes: \(nodes.map(\.name).joined(separator: ", "))",
            hint: "say which of them this machine is: --node NAME; its tasks go on here")
    }
}
