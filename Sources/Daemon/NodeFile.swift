// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Raft

/// `node.json`: who the node of a data directory is. Written last when a directory is made, so that one with it is whole.
struct NodeFile: Codable, Hashable {
    var id: NodeID
    var name: String
    var clusterId: String
    var memberId: MemberID
    /// True once the node has a log: it may have promised things in it, so another one is never begun. False for an
    /// observer.
    var hasLog: Bool?
    /// Of the cluster whose place this one took when its quorum was lost; certificates of it are still about.
    var formerClusterId: String?
    /// Nil for a node that is alone, or whose cluster is a list of peers.
    var place: ClusterPlace?

    static let fileName = "node.json"

    /// - Throws: `Problem` when there is none or it cannot be read.
    static func read(_ dataDirectory: String) throws(Problem) -> NodeFile {
        let path = "\(dataDirectory)/\(fileName)"
        guard let data = FileManager.default.contents(atPath: path) else {
            throw Problem(
                .notFound, "`\(dataDirectory)` is no node's data directory: it has no `\(fileName)`",
                hint: "name the one the daemon was started with: --data-dir DIR")
        }
        do {
            return try JSON.decode(NodeFile.self, from: data)
        } catch {
            throw Problem(.internal, "`\(path)` cannot be read: \(error)", hint: "restore it from a backup")
        }
    }

    /// Where the node of a cluster is found, and what it knew when it came.
    struct ClusterPlace: Codable, Hashable {
        /// Host at which other nodes reach this one.
        var advertise: String
        var peerPort: Int
        var apiPort: Int
        var subnet: IPv4Subnet
        var ranges: AddressRanges
        /// Nodes that were there, for as long as the own state names none.
        var seeds: [Seed]
    }

    struct Seed: Codable, Hashable {
        var node: NodeID
        var member: MemberID
        var name: String
        var peerAddress: String
    }

    func write(_ dataDirectory: String) throws {
        try DurableFile.write(try JSON.encode(self, pretty: true), to: "\(dataDirectory)/\(Self.fileName)")
    }
}
