// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
internal import HTTPClient
internal import Logging
internal import Model
internal import Raft
internal import ServiceLifecycle
internal import Store

/// What a node of a cluster that lost its quorum is in the one a survivor was made: its id and everything it runs stay.
struct SuccessionView: Codable, Hashable, Sendable {
    var clusterId: String
    /// Under which it follows the log there.
    var member: MemberID
    /// Members there are to follow.
    var seeds: [NodeFile.Seed]
}

/// Brings a node to the cluster that took the place of its own.
///
/// Only a node that knows no leader asks, and it believes only whoever shows a certificate of its own cluster's authority: a
/// machine of the old cluster that says that it is of the new one. What it promised in the old log ends with it.
final class Succession: Service {
    /// Without a leader for so long.
    static let patience = Duration.seconds(10)
    static let interval = Duration.seconds(2)
    /// Nodes asked in one round.
    static let askedMax = 8
    static let limits = HTTPLimits(connect: .seconds(1), total: .seconds(3), stall: .seconds(3), bodyBytesMax: 1 << 20)

    private let cluster: PeerConfiguration
    private let own: NodeID
    private let dataDirectory: String
    private let core: CoreOwner
    private let state: StateMachine
    private let certificates: PeerCertificates
    private let turn: @Sendable () -> Void
    private let log: Logger
    private let client = HTTPClient()

    init(
        cluster: PeerConfiguration, own: NodeID, dataDirectory: String, core: CoreOwner, state: StateMachine,
        certificates: PeerCertificates, turn: @escaping @Sendable () -> Void, log: Logger
    ) {
        self.cluster = cluster
        self.own = own
        self.dataDirectory = dataDirectory
        self.core = core
        self.state = state
        self.certificates = certificates
        self.turn = turn
        self.log = log
    }

    func run() async throws {
        await cancelWhenGracefulShutdown { [self] in
            var ledAt = ContinuousClock.now
            var round = 0
            while !Task.isCancelled {
                try? await Task.sleep(for: Self.interval)
                if core.consensus.status.leader != nil {
                    ledAt = .now
                } else if ContinuousClock.now - ledAt >= Self.patience {
                    if await look(round) { break }
                    round += 1
                }
            }
            // A service that returns ends the group, which is for the turn to do.
            try? await gracefulShutdown()
        }
    }

    /// - Returns: whether the next life was begun.
    private func look(_ round: Int) async -> Bool {
        do {
            let (nodes, membership) = try await state.read {
                (try $0.nodes(), try $0.meta().configuration.membership)
            }
            for address in Self.asked(nodes, membership, own: own, round: round) {
                guard !Task.isCancelled else { return false }
                if let found = await ask(address), found.clusterId != cluster.clusterID {
                    try follow(found)
                    return true
                }
            }
        } catch {
            log.warning("the cluster that follows this one cannot be looked for", metadata: ["error": "\(error)"])
        }
        return false
    }

    /// Members of the log first, a survivor is one of them; of the others some each time. Pure.
    static func asked(_ nodes: [NodeRow], _ membership: Membership, own: NodeID, round: Int) -> [String] {
        let others = nodes.filter { $0.id != own && !$0.apiAddress.isEmpty }.sorted { $0.member < $1.member }
        let ordered =
            others.filter { membership.contains($0.member) } + others.filter { !membership.contains($0.member) }
        guard ordered.count > askedMax else { return ordered.map(\.apiAddress) }
        let start = (round * askedMax) % ordered.count
        return (0..<askedMax).map { ordered[(start + $0) % ordered.count].apiAddress }
    }

    private func ask(_ address: String) async -> SuccessionView? {
        for (_, authority) in certificates.current.authorities.sorted(by: { $0.key < $1.key }) {
            do {
                let answer = try await client.send(
                    HTTPRequest(
                        url: "https://\(address)/v1/succession/\(cluster.clusterID)/\(own.raw)", limits: Self.limits,
                        followsRedirects: false, trust: .authority(authority)))
                guard answer.status == 200 else { continue }
                return try JSON.decode(SuccessionView.self, from: Data(answer.body))
            } catch {
                log.debug(
                    "a node cannot be asked what became of the cluster",
                    metadata: ["address": "\(address)", "error": "\(error)"])
            }
        }
        return nil
    }

    private func follow(_ found: SuccessionView) throws {
        var file = try NodeFile.read(dataDirectory)
        (file.formerClusterId, file.clusterId, file.memberId) = (file.clusterId, found.clusterId, found.member)
        file.hasLog = false
        file.place?.seeds = found.seeds
        try Turn(kind: .succeed, node: file).write(dataDirectory)
        log.notice(
            "this node goes on in the cluster that took the place of its own",
            metadata: ["cluster": "\(found.clusterId)", "before": "\(cluster.clusterID)"])
        turn()
    }
}

extension NodeBackend {
    /// What became of a node of the cluster this one was before it was recovered.
    func succession(of cluster: String, node id: NodeID) async throws -> SuccessionView {
        let (meta, nodes) = try await state.read { (try $0.meta(), try $0.nodes()) }
        let membership = meta.configuration.membership
        guard self.membership.cluster?.isFixed == false, !cluster.isEmpty, cluster == meta.previousClusterID,
            let node = nodes.first(where: { $0.id == id })
        else {
            throw Problem(
                .notFound,
                "this cluster did not take the place of cluster `\(Validation.shown(cluster))`, or has no such node",
                hint: "ask another node")
        }
        guard !membership.removed.contains(node.member) else {
            throw Problem(.conflict, "the node has no new member id yet", hint: "try again in a moment")
        }
        return SuccessionView(
            clusterId: meta.clusterID, member: node.member,
            seeds: nodes.filter { !$0.peerAddress.isEmpty && membership.contains($0.member) && $0.id != id }.map {
                NodeFile.Seed(node: $0.id, member: $0.member, name: $0.name, peerAddress: $0.peerAddress)
            })
    }
}
