// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
internal import Model

/// What a node is to become: written whole while it runs, carried out when it starts again. A crash anywhere ends in the
/// node that was or in the one that is to be.
struct Turn: Codable, Hashable {
    enum Kind: String, Codable {
        /// A node that is alone lets others in. Everything stays.
        case found
        /// A node that is alone becomes another cluster's. What it had as a cluster of one goes.
        case join
        /// A node of a cluster becomes one that is alone and new.
        case leave
        /// A node whose cluster lost its quorum goes on in the one that took its place. All but its log stays.
        case succeed
    }

    private static let directoryName = "turn"

    var kind: Kind
    /// Nil for `leave`.
    var node: NodeFile?

    /// Where the files of the coming identity are put before `write`.
    static func files(_ dataDirectory: String) throws -> ClusterFiles {
        let directory = "\(dataDirectory)/\(directoryName)"
        try remove(directory)
        guard mkdir(directory, 0o700) == 0 else {
            throw DaemonError("cannot make `\(directory)`: \(String(cString: strerror(errno)))")
        }
        return ClusterFiles(directory: directory + "/" + ClusterFiles.directoryName)
    }

    /// From here on it happens.
    func write(_ dataDirectory: String) throws {
        let directory = "\(dataDirectory)/\(Self.directoryName)"
        if mkdir(directory, 0o700) != 0, errno != EEXIST {
            throw DaemonError("cannot make `\(directory)`: \(String(cString: strerror(errno)))")
        }
        try DurableFile.write(try JSON.encode(self, pretty: true), to: directory + "/turn.json")
    }

    /// Carries out what was written, if anything was. Under the directory's lock, before anything else is read.
    static func finish(_ dataDirectory: String) throws {
        let directory = "\(dataDirectory)/\(directoryName)"
        guard let data = FileManager.default.contents(atPath: directory + "/turn.json") else {
            return try remove(directory)
        }
        let turn: Turn
        do { turn = try JSON.decode(Turn.self, from: data) } catch {
            throw DaemonError("`\(directory)/turn.json` cannot be read: \(error)", hint: "restore it from a backup")
        }
        let identity = "\(dataDirectory)/\(ClusterFiles.directoryName)"
        if turn.kind == .succeed {
            // What was promised in it was promised to a cluster that is no more.
            try remove("\(dataDirectory)/log")
        } else if turn.kind != .found {
            let kept = [NodeDirectory.scheduledName, NodeDirectory.manualName]
            for name in NodeDirectory.stateNames + kept where name != NodeFile.fileName {
                try remove("\(dataDirectory)/\(name)")
            }
            try remove(KnownIncarnations.path(dataDirectory))
        }
        if turn.kind == .leave {
            try remove(identity)
            try remove("\(dataDirectory)/\(NodeFile.fileName)")
        }
        if let node = turn.node {
            let coming = directory + "/" + ClusterFiles.directoryName
            if access(coming, F_OK) == 0 {
                try remove(identity)
                guard rename(coming, identity) == 0 else {
                    throw DaemonError("cannot move `\(coming)`: \(String(cString: strerror(errno)))")
                }
            }
            try node.write(dataDirectory)
        }
        try remove(directory + "/turn.json")
        try remove(directory)
    }

    private static func remove(_ path: String) throws {
        guard access(path, F_OK) == 0 else { return }
        try FileManager.default.removeItem(atPath: path)
    }
}
