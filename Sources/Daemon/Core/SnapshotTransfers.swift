// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Model
internal import Raft
internal import Store
internal import Synchronization

/// Whole states on their way between nodes, for those that lack more than the log still holds.
final class SnapshotTransfers: Sendable {
    /// Nodes that wait for one to be sent.
    static let wantedMax = 256

    private let snapshots: SnapshotWorker
    private let state: StateMachine
    private let stateOwner: StateOwner
    private let consensus: ConsensusOwner
    private let proposals: Proposals
    private let comparer: StateComparer
    private let follower: LogFollower
    private let log: Logger
    /// Nodes that get a snapshot now.
    private let sending = Mutex<Set<MemberID>>([])
    private let wanted: AsyncStream<MemberID>
    private let wantedInput: AsyncStream<MemberID>.Continuation

    init(
        snapshots: SnapshotWorker, state: StateMachine, stateOwner: StateOwner, consensus: ConsensusOwner,
        proposals: Proposals, comparer: StateComparer, follower: LogFollower, log: Logger
    ) {
        self.snapshots = snapshots
        self.state = state
        self.stateOwner = stateOwner
        self.consensus = consensus
        self.proposals = proposals
        self.comparer = comparer
        self.follower = follower
        self.log = log
        (wanted, wantedInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(Self.wantedMax))
    }

    func stop() { wantedInput.finish() }

    // MARK: - Sending

    /// This member or observer needs a snapshot. Any thread; never blocks.
    func want(_ member: MemberID) { wantedInput.yield(member) }

    /// Sends snapshots to nodes that need one, until the node stops.
    func send(over transport: any PeerLink) async {
        await withDiscardingTaskGroup { group in
            for await member in wanted {
                group.addTask { [self] in await send(to: member, over: transport) }
            }
        }
    }

    private func send(to member: MemberID, over transport: any PeerLink) async {
        // Whoever asks again while one is on its way waits for that.
        guard sending.withLock({ $0.insert(member).inserted }) else { return }
        defer { sending.withLock { _ = $0.remove(member) } }
        let status = consensus.status
        do {
            let (source, meta) = try await snapshots.source(
                term: status.term, applied: proposals.appliedIndex, logBase: status.baseIndex)
            log.info("sends a snapshot", metadata: ["member": "\(member)", "index": "\(meta.position.index)"])
            let verdict = try await transport.sendSnapshot(source, to: member)
            log.info("snapshot sent", metadata: ["member": "\(member)", "verdict": "\(verdict)"])
            consensus.put(.snapshotSent(to: member, meta, succeeded: verdict == .accepted))
        } catch {
            log.warning(
                "a snapshot could not be sent, will retry", metadata: ["member": "\(member)", "error": "\(error)"])
            let origin = SnapshotMeta(
                position: .origin, configuration: ConfigurationPoint(index: 0, membership: Membership(voters: [])))
            consensus.put(.snapshotSent(to: member, origin, succeeded: false))
        }
    }

    // MARK: - Receiving

    /// What the leader sends because the log no longer holds what this member lacks, or any member because this observer
    /// asked for it.
    /// - Throws: `PeerError` when it is of no use here, or another one arrives; `SnapshotError` when it cannot be taken.
    func receive(from member: MemberID, _ offer: SnapshotOffer) async throws -> any SnapshotReception {
        let status = consensus.status
        let replaces = comparer.isWrong || (status.isObserver && follower.isDiverged)
        let have = status.isObserver ? proposals.appliedIndex : status.commitIndex
        guard offer.term >= status.term, replaces || offer.meta.position.index > have
        else { throw PeerError(.refused, "the snapshot ends before what this member has") }
        let clusterID = try await state.read { try $0.meta().clusterID }
        log.info("receives a snapshot", metadata: ["member": "\(member)", "index": "\(offer.meta.position.index)"])
        guard status.isObserver else {
            return try await snapshots.receive(offer, clusterID: clusterID) { [consensus] manifest in
                consensus.put(
                    .snapshotReceived(from: member, term: offer.term, manifest.meta, replacesState: replaces))
            }
        }
        guard follower.begin() else { throw PeerError(.busy, "another snapshot arrives already") }
        do {
            let reception = try await snapshots.receive(offer, clusterID: clusterID) { [stateOwner] manifest in
                stateOwner.put(.replace(manifest.meta, isForced: replaces))
            }
            return ObserverReception(reception, ended: { [follower] in follower.end() })
        } catch {
            follower.end()
            throw error
        }
    }
}
