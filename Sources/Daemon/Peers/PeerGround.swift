// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import Raft
internal import Synchronization

/// What every connection of a transport stands on.
final class PeerGround: Sendable {
    let limits: PeerLimits
    let certificates: PeerCertificates
    let incarnations: KnownIncarnations
    let log: Logger
    let gate: LogGate
    /// For the rare write to disk when a member is seen for the first time.
    let threads: NIOThreadPool
    private let state: Mutex<PeerDirectory>

    init(
        directory: PeerDirectory, certificates: PeerCertificates, incarnations: KnownIncarnations, limits: PeerLimits,
        threads: NIOThreadPool, log: Logger
    ) {
        self.limits = limits
        self.certificates = certificates
        self.incarnations = incarnations
        self.threads = threads
        self.log = log
        gate = LogGate(log)
        state = Mutex(directory)
    }

    var directory: PeerDirectory { state.withLock { $0 } }

    func replace(_ peers: [Peer], removed: Set<MemberID>) { state.withLock { $0.replace(peers, removed: removed) } }

    /// Whether `peer` is who it was; on `loop`. Goes to disk only for a member never seen.
    func admit(_ peer: Peer, incarnation: UInt64, on loop: any EventLoop) -> EventLoopFuture<Bool> {
        if let known = incarnations.isKnown(peer.id, incarnation: incarnation) {
            return loop.makeSucceededFuture(known)
        }
        return threads.runIfActive(eventLoop: loop) { [incarnations] in
            try incarnations.admit(peer.id, incarnation: incarnation)
        }
    }
}
