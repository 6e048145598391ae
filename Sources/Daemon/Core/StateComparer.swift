// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Raft
internal import Store
internal import Synchronization

/// Compares this node's whole state with that of the voters, and has it replaced when it is the one that is wrong.
///
/// Members tell one another what their states were at an agreed index. An observer asks the voters: they do not tell everybody.
final class StateComparer: Sendable {
    static let deadline = Duration.seconds(5)
    static let digestBytes = 32
    /// Rounds in which an observer asks voters that have not come as far, and the time between them.
    static let rounds = 5
    static let pause = Duration.seconds(1)

    private struct Compared {
        var isWrong = false
        var comparison = StateComparison()
        /// Of this state, the newest last.
        var own: [StateDigest] = []
    }

    private let own: MemberID
    private let consensus: ConsensusOwner
    private let snapshots: SnapshotWorker
    private let log: Logger
    private let compared = Mutex(Compared())
    private let peers = Mutex<(any PeerLink)?>(nil)
    private let digests: AsyncStream<StateDigest>
    private let digestsInput: AsyncStream<StateDigest>.Continuation
    private let wrong: AsyncStream<UInt64>
    private let wrongInput: AsyncStream<UInt64>.Continuation

    init(own: MemberID, consensus: ConsensusOwner, snapshots: SnapshotWorker, log: Logger) {
        self.own = own
        self.consensus = consensus
        self.snapshots = snapshots
        self.log = log
        (digests, digestsInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(StateComparison.indexesMax))
        (wrong, wrongInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    func connect(_ link: any PeerLink) { peers.withLock { $0 = link } }

    func stop() {
        digestsInput.finish()
        wrongInput.finish()
        peers.withLock { $0 = nil }
    }

    /// The state here is known to differ from what a majority has.
    var isWrong: Bool { compared.withLock { $0.isWrong } }

    /// The state was replaced.
    func trust() {
        compared.withLock { compared in
            compared.isWrong = false
            compared.own = []
        }
        snapshots.trust()
    }

    // MARK: - Comparing

    /// What this state was at an agreed index: for the others and from them. Never blocks.
    func compare(_ picture: StatePicture) {
        snapshots.put { [self] in
            do {
                let digest = try picture.digest()
                compared.withLock { compared in
                    compared.own = compared.own.suffix(StateComparison.indexesMax - 1) + [digest]
                }
                digestsInput.yield(digest)
                heard(digest.bytes, of: own, at: digest.index)
            } catch {
                log.warning("the state could not be compared", metadata: ["error": "\(error)"])
            }
        }
    }

    /// What this state was at that index; nil when that is not known, any more or yet.
    func digest(at index: UInt64) -> [UInt8]? { compared.withLock { $0.own.last { $0.index == index }?.bytes } }

    /// - Parameter sender: of the digest; nothing happens unless it is a member, or this node itself.
    func heard(_ digest: [UInt8], of sender: MemberID, at index: UInt64) {
        guard let membership = consensus.status.configuration?.membership,
            membership.contains(sender) || sender == own,
            compared.withLock({ compared in
                guard compared.comparison.add(digest, of: sender, at: index, own: own, among: membership) else {
                    return false
                }
                defer { compared.isWrong = true }
                return !compared.isWrong
            })
        else { return }
        log.critical("this node's state differs from a majority's, it is replaced", metadata: ["index": "\(index)"])
        snapshots.distrust()
        wrongInput.yield(index)
    }

    // MARK: - Exchanging

    /// - Parameter handOver: hands leadership on.
    func exchange(handOver: @escaping @Sendable () async -> Void) async {
        await withDiscardingTaskGroup { group in
            group.addTask { [self] in
                for await digest in digests {
                    if consensus.isObserver { await ask(digest.index) } else { await tell(digest) }
                }
            }
            group.addTask { [self] in
                for await _ in wrong { await replaceState(handOver) }
            }
        }
    }

    private func tell(_ digest: StateDigest) async {
        guard let link = peers.withLock({ $0 }), let membership = consensus.status.configuration?.membership else {
            return
        }
        let request = PeerRequest.digest(index: digest.index, digest.bytes).encoded()
        for other in membership.members where other != own {
            do {
                _ = try await link.forward(request, to: other, deadline: Self.deadline)
            } catch {
                log.debug("a member does not compare", metadata: ["member": "\(other)", "error": "\(error)"])
            }
        }
    }

    private func ask(_ index: UInt64) async {
        guard let link = peers.withLock({ $0 }), let membership = consensus.status.configuration?.membership else {
            return
        }
        let request = PeerRequest.digestOf(index: index).encoded()
        var silent = membership.voters
        for round in 0..<Self.rounds where !silent.isEmpty {
            if round > 0 { do { try await Task.sleep(for: Self.pause) } catch { return } }
            for voter in silent {
                do {
                    let digest = try await link.forward(request, to: voter, deadline: Self.deadline)
                    guard digest.count == Self.digestBytes else { continue }
                    heard(digest, of: voter, at: index)
                    silent.removeAll { $0 == voter }
                } catch {
                    log.debug("a voter does not compare", metadata: ["member": "\(voter)", "error": "\(error)"])
                }
            }
        }
    }

    /// Asks for a snapshot until one is in force. A wrong state does not lead: what it decides is wrong, too.
    private func replaceState(_ handOver: @Sendable () async -> Void) async {
        while isWrong, !Task.isCancelled {
            let status = consensus.status
            if status.isLeader {
                await handOver()
            } else if let leader = status.leader, let link = peers.withLock({ $0 }) {
                _ = try? await link.forward(PeerRequest.snapshot.encoded(), to: leader, deadline: Self.deadline)
            }
            do { try await Task.sleep(for: .seconds(2)) } catch { return }
        }
    }
}
