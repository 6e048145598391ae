// SPDX-License-Identifier: Apache-2.0
internal import Raft

/// How the core reaches the other members. A node alone has none.
protocol PeerLink: Sendable {
    /// Takes messages to send; never blocks. What cannot be sent now is dropped: Raft lives with that.
    func send(_ messages: [Message])
    /// Asks another member and waits for its answer.
    /// - Throws: when it cannot be reached or does not answer in time; it may have acted all the same.
    func forward(_ payload: [UInt8], to member: MemberID, deadline: Duration) async throws(PeerError) -> [UInt8]
}

extension PeerTransport: PeerLink {}
