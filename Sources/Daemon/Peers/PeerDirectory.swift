// SPDX-License-Identifier: Apache-2.0
internal import Raft

/// Another member, as this one knows it.
struct Peer: Hashable, Sendable {
    var id: MemberID
    /// Stands in its certificate.
    var name: String
    var address: PeerAddress
    /// What its certificate must name, too, where the cluster has an authority of its own: a later node of the same name
    /// is another one.
    var uri: String?
    /// The same of the cluster whose place this one took: certificates are exchanged one after the other.
    var formerURI: String?
}

/// Who belongs to the cluster, and what follows from that for those who knock.
struct PeerDirectory: Hashable, Sendable {
    var clusterID: String
    var own: Peer
    var incarnation: UInt64
    private(set) var peers: [MemberID: Peer] = [:]
    private(set) var removed: Set<MemberID> = []

    init(clusterID: String, own: Peer, incarnation: UInt64, peers: [Peer] = [], removed: Set<MemberID> = []) {
        self.clusterID = clusterID
        self.own = own
        self.incarnation = incarnation
        replace(peers, removed: removed)
    }

    mutating func replace(_ peers: [Peer], removed: Set<MemberID>) {
        self.removed = removed
        self.peers = Dictionary(
            peers.filter { $0.id != own.id && !removed.contains($0.id) }.map { ($0.id, $0) },
            uniquingKeysWith: { first, _ in first })
    }

    func hello(to peer: MemberID, stream: StreamKind) -> Hello {
        Hello(
            versions: PeerProtocol.versions, stream: stream, from: own.id, to: peer, incarnation: incarnation,
            clusterID: clusterID)
    }

    func welcome(version: UInt16) -> Welcome {
        Welcome(version: version, from: own.id, incarnation: incarnation, clusterID: clusterID)
    }

    // MARK: - Judgement

    /// - Parameter names: DNS names in the certificate of whoever says hello.
    /// - Returns: the member it is, or why it is not taken.
    func judge(_ hello: Hello, names: [String]) -> Result<Peer, PeerRefusal> {
        if hello.clusterID != clusterID {
            return .failure(PeerRefusal(.otherCluster, Self.otherCluster(own: clusterID, other: hello.clusterID)))
        }
        if removed.contains(hello.from) {
            return .failure(
                PeerRefusal(
                    .removed,
                    "you were removed: member id \(hello.from) left cluster `\(clusterID)` and never comes back; "
                        + "to return, empty the data directory and join anew"))
        }
        guard let peer = peers[hello.from] else {
            return .failure(
                PeerRefusal(
                    .notMember,
                    "member id \(hello.from) is not a member of cluster `\(clusterID)` as `\(own.name)` knows it"))
        }
        if let wrong = wrongCertificate(of: peer, names: names) { return .failure(wrong) }
        guard hello.to == own.id else {
            return .failure(
                PeerRefusal(
                    .notYou,
                    "you look for member id \(hello.to), but this is `\(own.name)`, member id \(own.id); "
                        + "see the addresses in your peer list"))
        }
        return .success(peer)
    }

    /// As the side that dialled `peer`; nil when all is well.
    func judge(_ welcome: Welcome, from peer: Peer) -> PeerRefusal? {
        if welcome.clusterID != clusterID {
            return PeerRefusal(.otherCluster, Self.otherCluster(own: clusterID, other: welcome.clusterID))
        }
        guard welcome.from == peer.id else {
            return PeerRefusal(
                .notYou, "`\(own.name)` looks for member id \(peer.id) at \(peer.address), but \(welcome.from) answers")
        }
        guard PeerProtocol.versions.contains(welcome.version) else {
            return PeerRefusal(.version, Self.foreignVersion(welcome.version, welcome.version))
        }
        return nil
    }

    /// A certificate belongs to the member named in it: without this check, any member could speak for any other.
    func wrongCertificate(of peer: Peer, names: [String]) -> PeerRefusal? {
        let isNamed = names.contains { $0.lowercased() == peer.name.lowercased() }
        let isNode = peer.uri.map { names.contains($0) || peer.formerURI.map(names.contains) == true } ?? true
        guard !isNamed || !isNode else { return nil }
        let said = names.isEmpty ? "no DNS name" : names.prefix(4).map { "`\($0.prefix(64))`" }.joined(separator: ", ")
        return PeerRefusal(
            .certificate,
            "the certificate names \(said), but member id \(peer.id) is `\(peer.name)`; "
                + (peer.uri.map { "its certificate names \($0)" }
                    ?? "give it a certificate with the DNS subject alternative name `\(peer.name)`"))
    }

    static func foreignVersion(_ low: UInt16, _ high: UInt16) -> String {
        "protocol versions \(low) to \(high) are offered, this member speaks \(PeerProtocol.versions.lowerBound) to "
            + "\(PeerProtocol.versions.upperBound); upgrade the older one"
    }

    static func otherIncarnation(of peer: Peer) -> String {
        "member id \(peer.id) (`\(peer.name)`) came back with an empty data directory: its votes are forgotten; "
            + "remove it and add it anew"
    }

    private static func otherCluster(own: String, other: String) -> String {
        "cluster `\(other.prefix(64))` speaks to cluster `\(own)`; see `cluster_id` in the peer list"
    }

}
