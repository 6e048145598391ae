// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
internal import Model
internal import Raft

/// The list of members given by `--peers FILE`, checked.
///
/// The file is JSON:
/// ```
/// {"cluster_id": "prod", "self": "a",
///  "members": [{"id": 1, "name": "a", "address": "10.0.0.1:4484"}, …],
///  "ca": "ca.pem", "certificate": "a.pem", "key": "a.key"}
/// ```
/// Paths are relative to the file. `self` may be left out where the node's name stands in the list. `listen` is the address
/// to listen on, without it that of the own entry.
struct PeerConfiguration: Hashable, Sendable {
    static let membersMax = Membership.membersMax
    static let fileBytesMax = 1 << 20

    var clusterID: String
    var own: Peer
    /// All of them, the own one too, by ascending id.
    var members: [Peer]
    var listen: PeerAddress
    var files: CertificateFiles
    /// The membership is this list, instead of what the cluster's log says.
    var isFixed = true
    /// Where the API listens over TLS; nil where it does not.
    var api: PeerAddress?

    private struct File: Decodable {
        struct Member: Decodable {
            var id: UInt64
            var name: String
            var address: String
        }

        var clusterId: String
        var `self`: String?
        var listen: String?
        var members: [Member]
        var ca: String
        var certificate: String
        var key: String
    }

    /// - Parameter nodeName: name of this node, for a list without `self`.
    /// - Throws: `DaemonError` naming the file, the entry and what to do.
    static func load(path: String, nodeName: String) throws(DaemonError) -> PeerConfiguration {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw DaemonError(
                "cannot read the peer list `\(path)`: \(String(cString: strerror(errno)))", hint: "see --peers")
        }
        guard data.count <= fileBytesMax else {
            throw DaemonError("the peer list `\(path)` has \(data.count) bytes, at most \(fileBytesMax) are allowed")
        }
        let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
        return try parse(data, path: path, directory: directory, nodeName: nodeName)
    }

    static func parse(
        _ data: Data, path: String, directory: String, nodeName: String
    ) throws(DaemonError) -> PeerConfiguration {
        func fault(_ text: String, hint: String? = nil) -> DaemonError {
            DaemonError("the peer list `\(path)` cannot be used: \(text)", hint: hint)
        }
        let file: File
        do {
            file = try JSON.decode(File.self, from: data)
        } catch {
            throw fault(
                explain(error),
                hint: #"it looks like {"cluster_id": "prod", "members": [{"id": 1, "name": "a", "#
                    + #""address": "10.0.0.1:4484"}], "ca": "ca.pem", "certificate": "a.pem", "key": "a.key"}"#)
        }
        guard (1...64).contains(file.clusterId.utf8.count), file.clusterId.allSatisfy(isPlain) else {
            throw fault("cluster_id must have 1 to 64 letters, digits, `-`, `_` or `.`")
        }
        guard (1...membersMax).contains(file.members.count) else {
            throw fault("it has \(file.members.count) members, 1 to \(membersMax) are possible")
        }
        var peers: [Peer] = []
        for (place, member) in file.members.enumerated() {
            let entry = "member \(place + 1) (`\(member.name)`)"
            guard member.id != 0 else { throw fault("\(entry) has id 0", hint: "ids are 1 or more, never used again") }
            guard (1...63).contains(member.name.utf8.count), member.name.allSatisfy(isPlain) else {
                throw fault("\(entry): a name has 1 to 63 letters, digits, `-`, `_` or `.`")
            }
            guard let address = PeerAddress(member.address), address.port != 0 else {
                throw fault("\(entry): `\(member.address)` is no address", hint: "for example 10.0.0.1:4484")
            }
            for other in peers {
                if other.id == member.id {
                    throw fault("`\(other.name)` and `\(member.name)` both have id \(member.id)")
                }
                if other.name.lowercased() == member.name.lowercased() {
                    throw fault("two members are named `\(member.name)`")
                }
                if other.address == address {
                    throw fault("`\(other.name)` and `\(member.name)` both are at \(address)")
                }
            }
            peers.append(Peer(id: member.id, name: member.name, address: address))
        }
        let name = file.`self` ?? nodeName
        guard let own = peers.first(where: { $0.name == name }) else {
            throw fault(
                "no member is named `\(name)`, as this node is",
                hint: file.`self` == nil ? "name this node's entry with \"self\", or start it with --node-name" : nil)
        }
        var listen = own.address
        if let text = file.listen {
            guard let address = PeerAddress(text) else { throw fault("`\(text)` is no address to listen on") }
            listen = address
        }
        func resolved(_ path: String) -> String { path.hasPrefix("/") ? path : directory + path }
        return PeerConfiguration(
            clusterID: file.clusterId, own: own, members: peers.sorted { $0.id < $1.id }, listen: listen,
            files: CertificateFiles(
                authority: resolved(file.ca), certificate: resolved(file.certificate), key: resolved(file.key)))
    }

    private static func isPlain(_ character: Character) -> Bool {
        character.isASCII && (character.isLetter || character.isNumber || "-_.".contains(character))
    }

    private static func explain(_ error: any Error) -> String {
        guard let error = error as? DecodingError else { return "\(error)" }
        func place(_ context: DecodingError.Context) -> String {
            let path = context.codingPath.map { $0.intValue.map { "[\($0)]" } ?? $0.stringValue }
            return path.isEmpty ? "" : " at `\(path.joined(separator: "."))`"
        }
        return switch error {
        case .keyNotFound(let key, let context): "`\(key.stringValue)` is missing\(place(context))"
        case .typeMismatch(_, let context), .valueNotFound(_, let context): context.debugDescription + place(context)
        case .dataCorrupted(let context): "\(context.debugDescription)\(place(context))"
        @unknown default: "\(error)"
        }
    }
}
