// SPDX-License-Identifier: Apache-2.0
internal import Raft

/// How the core reaches the other members. A node alone has none.
protocol PeerLink: Sendable {
    /// Everybody who can be asked, by ascending id.
    var known: [MemberID] { get }
    /// Takes messages to send; never blocks. What cannot be sent now is dropped: Raft lives with that.
    func send(_ messages: [Message])
    /// Asks another member and waits for its answer.
    /// - Throws: when it cannot be reached or does not answer in time; it may have acted all the same.
    func forward(_ payload: [UInt8], to member: MemberID, deadline: Duration) async throws(PeerError) -> [UInt8]
    /// Streams a snapshot to another node.
    /// - Throws: `PeerError`, errors of the source, `CancellationError`.
    func sendSnapshot(_ source: SnapshotSource, to member: MemberID) async throws -> SnapshotVerdict
}

extension PeerTransport: PeerLink {
    var known: [MemberID] { peers.map(\.id) }
}
