// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Raft
internal import Store

/// What a node asks of whoever leads, beside Raft's own messages and proposals. JSON, in a forwarded request.
enum LeaderCall: Codable, Sendable {
    /// For a machine that knocked here.
    case admit(JoinApplication)
    /// The sender votes: what opens the cluster's secrets.
    case clusterKey
    /// A new certificate for the sender's request, PEM.
    case renew(request: String)
    /// Take a node out of the cluster for good, votes and all.
    case removeNode(NodeID)
    /// The sender is there.
    case report(NodeReport)
    /// Make an authority that takes the place of the present one.
    case rotateAuthority
}

/// What a node says once a second.
struct NodeReport: Codable, Sendable {
    var node: NodeID
    /// What it shows the others.
    var certificate: NodeCertificate?
}

/// What came of a call: a problem, or the body its kind has.
struct LeaderAnswer: Codable, Sendable {
    var problem: Problem?
    var welcome: JoinWelcome?
    /// Base32 of the cluster key.
    var key: String?
    /// PEM, of `renew`.
    var certificate: String?
    /// PEM, all that are believed.
    var authorities: [String]?
}

/// What a machine that wants to become a node shows and says.
struct JoinApplication: Codable, Sendable, CustomStringConvertible, CustomReflectable {
    var tokenId: String
    /// Base32. Goes to nodes of the cluster only, over a connection whose authority the token names.
    var secret: String
    var node: NodeID
    var name: String
    /// Host at which nodes reach it.
    var address: String
    var peerAddress: String
    var apiAddress: String
    var pin: String
    var cpuMillis: Int
    var memoryBytes: Int64
    var version: String
    /// PEM request for a certificate.
    var request: String
    /// Of its clock, in milliseconds since 1970.
    var now: Int64

    var description: String { "application of `\(name)` with join token \(tokenId)" }
    var customMirror: Mirror { Mirror(self, children: ["name": name, "tokenId": tokenId]) }
}

/// What makes a machine a node.
struct JoinWelcome: Codable, Sendable {
    var clusterId: String
    var member: MemberID
    var subnet: IPv4Subnet
    var ranges: AddressRanges
    /// PEM.
    var certificate: String
    var authorities: [String]
    var seeds: [NodeFile.Seed]
}

/// What everybody may know before joining: PEM.
struct AuthorityView: Codable, Sendable {
    var authorities: [String]
}
