// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Raft
internal import Store

/// What a node asks of whoever leads, beside Raft's own messages and proposals. JSON, in a forwarded request.
enum LeaderCall: Codable, Sendable {
    /// For a machine that knocked here.
    case admit(JoinApplication)
    /// A new certificate for the sender's request, PEM.
    case renew(request: String)
    /// For a node whose certificate the others do not take any more.
    case prove(IdentityProof)
    /// Take a node out of the cluster for good, votes and all.
    case removeNode(NodeID)
    /// The sender is there.
    case report(NodeReport)
    /// Have the rules of all nodes that answer come as far as the state at this index?
    case isReleased(UInt64)
    /// Make an authority that takes the place of the present one.
    case rotateAuthority
}

/// What a node says twice a second, and at once when what it serves has changed.
struct NodeReport: Codable, Sendable {
    var node: NodeID
    /// What it shows the others.
    var certificate: NodeCertificate?
    /// Its names and rules follow the state at this index. Nil from builds that do not say so.
    var inForce: UInt64?
}

/// What came of a call: a problem, or the body its kind has.
struct LeaderAnswer: Codable, Sendable {
    var problem: Problem?
    var welcome: JoinWelcome?
    /// PEM, of `renew`.
    var certificate: String?
    /// PEM, all that are believed.
    var authorities: [String]?
    var isReleased: Bool?
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

/// What everybody may know before joining.
struct AuthorityView: Codable, Sendable {
    /// PEM.
    var authorities: [String]
}
