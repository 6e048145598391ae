// SPDX-License-Identifier: Apache-2.0
import Model
import Raft
import Store
import Testing

@testable import Daemon

/// Whom a node without a leader asks what became of its cluster, and what of the old cluster counts in the new one.
@Suite struct SuccessionTests {
    private static func node(_ member: UInt64) -> NodeRow {
        NodeRow(
            id: NodeID("n\(member)"), name: "n\(member)", member: member, address: "192.0.2.\(member)",
            apiAddress: "192.0.2.\(member):4483", subnet: AddressRanges.standard.containers, cpuMillis: 1000,
            memoryBytes: 1 << 30, version: "test")
    }

    @Test func `members are asked first, few at a time, and everybody in the end`() {
        let nodes = (1...30).map { Self.node($0) }
        let membership = Membership(voters: [20, 21, 22])
        let first = Succession.asked(nodes, membership, own: "n22", round: 0)
        #expect(Array(first.prefix(2)) == ["192.0.2.20:4483", "192.0.2.21:4483"])
        #expect(first.count == Succession.askedMax)
        var asked: Set<String> = []
        for round in 0..<8 { asked.formUnion(Succession.asked(nodes, membership, own: "n22", round: round)) }
        #expect(asked.count == 29 && !asked.contains("192.0.2.22:4483"))
        #expect(Succession.asked(Array(nodes.prefix(3)), membership, own: "n1", round: 7).count == 2)
    }

    @Test func `a certificate of the cluster before is its node's, and nobody else's`() {
        let peer = Peer(
            id: 2, name: "b", address: PeerAddress(host: "192.0.2.2", port: 4484),
            uri: PeerConfiguration.uri(clusterID: "new", node: "b"),
            formerURI: PeerConfiguration.uri(clusterID: "old", node: "b"))
        let directory = PeerDirectory(clusterID: "new", own: peer, incarnation: 1)
        func isTaken(_ cluster: String, _ node: NodeID) -> Bool {
            let names = ["b", PeerConfiguration.uri(clusterID: cluster, node: node)]
            return directory.wrongCertificate(of: peer, names: names) == nil
        }
        #expect(isTaken("new", "b") && isTaken("old", "b"))
        #expect(!isTaken("new", "c") && !isTaken("old", "c") && !isTaken("other", "b"))
        #expect(directory.wrongCertificate(of: peer, names: ["b"]) != nil)
    }
}
