// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
internal import Model
internal import Raft
internal import Store

/// Who this node is, and the lock that keeps a second daemon off its data.
///
/// The id is made once per data directory: an empty directory is a new node.
final class NodeIdentity: Sendable {
    let id: NodeID
    let name: String
    let clusterID: String
    /// Of the cluster whose place this one took; nil when it took none's.
    let formerClusterID: String?
    let member: MemberID
    /// The node has begun a log in an earlier run; if it is gone, so are its votes.
    let hasLog: Bool
    let place: NodeFile.ClusterPlace?
    private let directory: String
    private let lock: DirectoryLock
    /// Its presence keeps this node from ever voting again under its id.
    private let mark: String
    static let markName = "quarantine"
    private static let replacement =
        "it may have forgotten votes and acknowledgements, so it must not go on under its id: give the machine an empty "
        + "data directory and a new member id; the other members have everything"

    /// Takes the lock and reads or makes the identity.
    /// - Parameter peers: the cluster this node is to belong to; nil for a node that makes one of its own.
    /// - Throws: `DaemonError` when another daemon holds the directory, it cannot be used, or it is another node's.
    convenience init(dataDirectory: String, name wanted: String?, peers: PeerConfiguration? = nil) throws {
        try self.init(try DirectoryLock(dataDirectory), dataDirectory: dataDirectory, name: wanted, peers: peers)
    }

    /// The same under a lock that is held already.
    init(_ lock: DirectoryLock, dataDirectory: String, name wanted: String?, peers: PeerConfiguration? = nil) throws {
        let file = try Self.readOrMake(dataDirectory, wanted, peers)
        self.lock = lock
        mark = "\(dataDirectory)/\(Self.markName)"
        directory = dataDirectory
        // Others know a member by what is made after its log.
        hasLog = file.hasLog ?? FileManager.default.fileExists(atPath: KnownIncarnations.path(dataDirectory))
        id = file.id
        name = file.name
        clusterID = file.clusterId
        formerClusterID = file.formerClusterId
        member = file.memberId
        place = file.place
    }

    private static func readOrMake(
        _ dataDirectory: String, _ wanted: String?, _ peers: PeerConfiguration?
    ) throws -> NodeFile {
        if let reason = FileManager.default.contents(atPath: "\(dataDirectory)/\(markName)") {
            throw DaemonError(
                "the data directory `\(dataDirectory)` is in quarantine: \(String(decoding: reason, as: UTF8.self))",
                hint: replacement)
        }
        try NodeDirectory.refuseUnfinished(dataDirectory)
        if FileManager.default.fileExists(atPath: "\(dataDirectory)/\(NodeFile.fileName)") {
            var file: NodeFile
            do { file = try NodeFile.read(dataDirectory) } catch { throw DaemonError(error.detail, hint: error.hint) }
            if let peers {
                try check(file, peers, dataDirectory)
            } else if let wanted, file.place == nil, file.name != label(wanted) {
                // Alone it may be called otherwise: nobody knows it by its name yet.
                file.name = label(wanted)
                try file.write(dataDirectory)
            }
            return file
        }
        var generator = SystemRandomNumberGenerator()
        let file = NodeFile(
            id: NodeID(IdentifierMaker.make(using: &generator)), name: peers?.own.name ?? label(wanted ?? hostName()),
            clusterId: peers?.clusterID ?? IdentifierMaker.make(using: &generator),
            memberId: peers?.own.id ?? UInt64.random(in: 1...(1 << 50), using: &generator))
        try file.write(dataDirectory)
        return file
    }

    /// A directory says whose it is; taking it for another node's would mix two histories.
    private static func check(
        _ file: NodeFile, _ peers: PeerConfiguration, _ dataDirectory: String
    ) throws(DaemonError) {
        guard file.clusterId == peers.clusterID else {
            throw DaemonError(
                "the data directory `\(dataDirectory)` belongs to cluster `\(file.clusterId)`, the peer list to "
                    + "`\(peers.clusterID)`",
                hint: "give the node's own --data-dir, or an empty one for a new node")
        }
        guard file.memberId == peers.own.id, file.name == peers.own.name else {
            throw DaemonError(
                "the data directory `\(dataDirectory)` belongs to node `\(file.name)` (member \(file.memberId)), the peer "
                    + "list says `\(peers.own.name)` (member \(peers.own.id))",
                hint: "give the node's own --data-dir, or an empty one for a new node")
        }
    }

    /// Records, durably, that there is a log now: before anything is promised in it.
    func logBegun() throws { try record(hasLog: true) }

    /// Records that there is none: this node observes, and has promised nothing.
    func observes() throws { try record(hasLog: false) }

    private func record(hasLog: Bool) throws {
        var file: NodeFile
        do { file = try NodeFile.read(directory) } catch { throw DaemonError(error.detail, hint: error.hint) }
        guard file.hasLog != hasLog else { return }
        file.hasLog = hasLog
        try file.write(directory)
    }

    /// What to end with when state and log do not go together; nil for damage and for trouble with the disk.
    /// Nothing was changed: the node is itself again once what is missing is back.
    func refusal(of error: LogError) -> DaemonError? {
        switch error.code {
        case .missing:
            DaemonError(
                "\(error.message): there is none in `\(directory)/log`",
                hint: "put it back as it was (is its disk mounted?), never an older copy. Without it the node may have "
                    + "forgotten votes and acknowledgements and must not go on under its id: give the machine an empty data "
                    + "directory, and in a cluster a new member id; a node alone begins again from a snapshot: "
                    + "hivemind cluster snapshot restore FILE")
        case .stateBehind:
            DaemonError(
                "\(error.message); see `\(directory)/state.sqlite`",
                hint:
                    "put state.sqlite back with its -wal file (is its disk mounted?), or the newest snapshot of this node "
                    + "into `\(directory)/snapshots` and take state.sqlite away; if both are lost, give the machine an empty "
                    + "data directory and a new member id")
        default: nil
        }
    }

    /// Marks the directory, durably, as one that must not be used as this member any more.
    /// - Returns: the error to end with.
    func quarantine(_ damage: LogError) throws -> DaemonError {
        try DurableFile.write(Data(damage.message.utf8), to: mark)
        return DaemonError("this node is in quarantine from now on: \(damage.message)", hint: Self.replacement)
    }

    static func hostName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        gethostname(&buffer, 255)
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// A name as one DNS label.
    static func label(_ text: String) -> String {
        let short = text.split(separator: ".").first.map(String.init) ?? ""
        let mapped = short.lowercased().map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "-" }
        let trimmed = String(mapped).split(separator: "-").joined(separator: "-")
        return trimmed.isEmpty ? "node" : String(trimmed.prefix(40))
    }
}

/// Keeps every other daemon off a data directory, for as long as it lives.
final class DirectoryLock: Sendable {
    private let descriptor: Int32

    /// Makes the directory when there is none.
    /// - Throws: `DaemonError` when another daemon holds it, or it cannot be used.
    init(_ dataDirectory: String) throws(DaemonError) {
        do {
            try FileManager.default.createDirectory(atPath: dataDirectory, withIntermediateDirectories: true)
        } catch {
            throw DaemonError("cannot make the data directory `\(dataDirectory)`: \(error)")
        }
        descriptor = open(dataDirectory + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw DaemonError("cannot open `\(dataDirectory)/lock`: \(String(cString: strerror(errno)))")
        }
        // deinit closes it, also when this throws: a second close could be that of a file another thread just opened.
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw DaemonError(
                "another daemon uses `\(dataDirectory)`",
                hint: "stop it first, or give this one its own --data-dir and --socket")
        }
    }

    deinit { close(descriptor) }
}

/// Files that are either whole or absent after a crash.
enum DurableFile {
    static func write(_ data: Data, to path: String) throws {
        let temporary = path + ".new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure("create", temporary) }
        var offset = 0
        let bytes = [UInt8](data)
        while offset < bytes.count {
            let written = bytes[offset...].withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            guard written > 0 else {
                close(descriptor)
                throw failure("write", temporary)
            }
            offset += written
        }
        guard fsync(descriptor) == 0, close(descriptor) == 0 else { throw failure("sync", temporary) }
        guard rename(temporary, path) == 0 else { throw failure("rename", path) }
        let directory = open(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]), O_RDONLY | O_CLOEXEC)
        if directory >= 0 {
            fsync(directory)
            close(directory)
        }
    }

    private static func failure(_ verb: String, _ path: String) -> DaemonError {
        DaemonError("cannot \(verb) `\(path)`: \(String(cString: strerror(errno)))")
    }
}
