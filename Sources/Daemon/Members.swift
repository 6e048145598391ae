// SPDX-License-Identifier: Apache-2.0
internal import Raft

/// Names and addresses of the members, and how connections to them stand.
struct Members: Sendable {
    private let own: Peer?
    private let transport: PeerTransport?

    init(_ cluster: PeerConfiguration?, _ transport: PeerTransport?) {
        own = cluster?.own
        self.transport = transport
    }

    private var peers: [Peer] { (own.map { [$0] } ?? []) + (transport?.peers ?? []) }

    func peer(_ id: MemberID) -> Peer? { peers.first { $0.id == id } }

    /// By name, or by the number the peer list gives it.
    func peer(named text: String) -> Peer? { peers.first { $0.name == text || "\($0.id)" == text } }

    var status: [PeerTransport.PeerStatus] { transport?.status() ?? [] }
}
