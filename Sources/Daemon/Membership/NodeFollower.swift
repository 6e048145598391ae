// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Logging
internal import Model
internal import Raft
internal import ServiceLifecycle
internal import Store
internal import Synchronization
internal import X509

/// Keeps this node in touch with the others as the state names them: connections, the overlay, its own certificate.
final class NodeFollower: Service {
    /// Between two looks at what somebody else may have changed in the kernel, and at the certificate.
    static let lookInterval = Duration.seconds(30)
    static let reportInterval = Duration.milliseconds(500)
    /// Between two reports that have something new to say.
    static let reportPause = Duration.milliseconds(5)
    /// Between two attempts at another certificate.
    static let retryInterval = Duration.seconds(1)
    /// After the first attempt at the cluster's key, twice as long after each other one.
    static let keyPause = Duration.milliseconds(20)
    /// How long a node that was removed is still listened to: answers it waits for must reach it.
    static let farewell = Duration.seconds(2)

    private let cluster: PeerConfiguration
    private let own: NodeID
    private let state: StateMachine
    private let transport: PeerTransport
    private let networking: any Networking
    private let duties: LeaderDuties
    private let calls: NodeCalls
    private let readmission: Readmission
    private let files: ClusterFiles
    private let log: Logger
    private let changes: AsyncStream<Void>
    private let changesInput: AsyncStream<Void>.Continuation
    private let looks: AsyncStream<Void>
    private let looksInput: AsyncStream<Void>.Continuation
    private let keys: AsyncStream<Void>
    private let keysInput: AsyncStream<Void>.Continuation
    private let news: AsyncStream<Void>
    private let newsInput: AsyncStream<Void>.Continuation
    private let inForce = Atomic<UInt64>(0)

    init(
        cluster: PeerConfiguration, own: NodeID, state: StateMachine, transport: PeerTransport,
        networking: any Networking, duties: LeaderDuties, calls: NodeCalls, readmission: Readmission,
        files: ClusterFiles, log: Logger
    ) {
        self.cluster = cluster
        self.own = own
        self.state = state
        self.transport = transport
        self.networking = networking
        self.duties = duties
        self.calls = calls
        self.readmission = readmission
        self.files = files
        self.log = log
        (changes, changesInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        (looks, looksInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        (keys, keysInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        (news, newsInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// Names and rules of this node follow the state at this index. Any thread; never blocks.
    func isInForce(_ index: UInt64) {
        let (old, _) = inForce.max(index, ordering: .relaxed)
        if old < index { newsInput.yield() }
    }

    /// Any thread; never blocks.
    func nodesChanged() {
        changesInput.yield()
        looksInput.yield()
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await withDiscardingTaskGroup { group in
                group.addTask { [self] in
                    while !Task.isCancelled {
                        nodesChanged()
                        try? await Task.sleep(for: Self.lookInterval)
                    }
                }
                group.addTask { [self] in await follow() }
                group.addTask { [self] in
                    while !Task.isCancelled {
                        newsInput.yield()
                        try? await Task.sleep(for: Self.reportInterval)
                    }
                }
                group.addTask { [self] in await report() }
                group.addTask { [self] in
                    for await _ in keys {
                        // The others may hear a moment later than this node that it votes.
                        var pause = Self.keyPause
                        while await !fetchKey(), !Task.isCancelled {
                            try? await Task.sleep(for: pause)
                            pause = min(pause * 2, Self.retryInterval)
                        }
                    }
                }
                group.addTask { [self] in
                    for await _ in looks {
                        while await !keepIdentity(), !Task.isCancelled {
                            try? await Task.sleep(for: Self.retryInterval)
                        }
                    }
                }
            }
        }
    }

    private func follow() async {
        var peers: Set<Peer> = []
        var removed: Set<MemberID> = []
        var members: Set<MemberID> = []
        var refused: [RefusedNode] = []
        for await _ in changes {
            do {
                let known = try await read()
                let (nodes, goneNow, membership) = (known.nodes, known.removed, known.membership)
                // Before its first entry of a cluster a node knows only what it was told when it came.
                if !known.isSucceeding, nodes.contains(where: { $0.id == own }) {
                    let now = Set(nodes.filter { $0.id != own }.compactMap { peer($0, formerly: known.formerCluster) })
                    let membersNow = Set(membership.members)
                    if now != peers || goneNow != removed || membersNow != members {
                        let leaving = peers.filter { goneNow.contains($0.id) }
                        transport.replacePeers(
                            now.union(leaving).sorted { $0.id < $1.id },
                            removed: goneNow.subtracting(leaving.map(\.id)), members: membersNow)
                        (peers, removed, members) = (now, goneNow, membersNow)
                        if !leaving.isEmpty { dismiss(after: Self.farewell) }
                    }
                }
                let remotes = nodes.filter { $0.id != own && !$0.peerAddress.isEmpty }.compactMap { node in
                    IPv4Address(node.address).map {
                        RemoteNode(id: node.id, address: $0, subnet: node.subnet, name: node.name)
                    }
                }
                let refusedNow = try await networking.connect(remotes)
                for node in refusedNow where !refused.contains(node) {
                    log.error(
                        "containers of a node are not reached",
                        metadata: ["node": "\(node.node)", "reason": "\(node.reason.message)"])
                }
                refused = refusedNow
                if membership.isVoter(cluster.own.id) { keysInput.yield() }
            } catch {
                log.warning("the other nodes cannot be followed now", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Closes the door behind nodes that were removed, with what is known by then.
    private func dismiss(after pause: Duration) {
        Task { [self] in
            do {
                try await Task.sleep(for: pause)
                let known = try await read()
                transport.replacePeers(
                    known.nodes.filter { $0.id != own }.compactMap { peer($0, formerly: known.formerCluster) },
                    removed: known.removed,
                    members: Set(known.membership.members))
            } catch {
                log.warning("removed nodes stay connected until the next change", metadata: ["error": "\(error)"])
            }
        }
    }

    private struct Known {
        var nodes: [NodeRow]
        /// Member ids that never come back.
        var removed: Set<MemberID>
        var membership: Membership
        /// Whose place this cluster took.
        var formerCluster: String?
        /// All this is of that one still.
        var isSucceeding: Bool
    }

    private func read() async throws -> Known {
        try await state.read { view in
            let meta = try view.meta()
            let membership = meta.configuration.membership
            return Known(
                nodes: try view.nodes(),
                removed: Set(try view.removedNodes().map(\.member)).union(membership.removed), membership: membership,
                formerCluster: meta.previousClusterID.isEmpty ? nil : meta.previousClusterID,
                isSucceeding: meta.isSucceeding)
        }
    }

    private func peer(_ node: NodeRow, formerly former: String?) -> Peer? {
        PeerAddress(node.peerAddress).map {
            Peer(
                id: node.member, name: node.name, address: $0,
                uri: PeerConfiguration.uri(clusterID: cluster.clusterID, node: node.id),
                formerURI: former.map { PeerConfiguration.uri(clusterID: $0, node: node.id) })
        }
    }

    /// Who may have to lead must be able to open the cluster's secrets.
    /// - Returns: false when it is to be tried again soon.
    private func fetchKey() async -> Bool {
        do {
            let membership = try await state.read { try $0.meta() }.configuration.membership
            guard membership.isVoter(cluster.own.id) else { return true }
            return try await calls.clusterKey() != nil
        } catch {
            log.debug("the cluster's key is not here yet", metadata: ["error": "\(error)"])
            return false
        }
    }

    /// Says that this node is there, as long as it is.
    private func report() async {
        for await _ in news {
            do {
                _ = try await duties.ask(
                    .report(
                        NodeReport(
                            node: own, certificate: transport.certificates.current.shown,
                            inForce: inForce.load(ordering: .relaxed))),
                    deadline: Self.reportInterval * 2)
            } catch {
                log.debug("nobody hears of this node now", metadata: ["error": "\(error)"])
            }
            try? await Task.sleep(for: Self.reportPause)
        }
    }

    // MARK: - The own certificate

    /// - Returns: false when it is to be tried again soon.
    private func keepIdentity() async -> Bool {
        do {
            let (authorities, certificate) = try await state.read { [own] view in
                (try view.authorities(), try view.certificate(of: own))
            }
            try await believe(authorities)
            let shown = transport.certificates.current.shown
            let due = Renewal.due(
                from: Date(shown.notBefore), to: Date(shown.notAfter), spread: Renewal.spread(of: cluster.own.id))
            let phase = authorities.first { $0.id == shown.authority }?.phase
            let isForeign = !transport.certificates.current.names.contains(
                PeerConfiguration.uri(clusterID: cluster.clusterID, node: own))
            guard
                due <= Date() || certificate?.renewSerial == shown.serial || phase == .going || phase == .gone
                    || isForeign
            else { return true }
            try await renew()
            return true
        } catch {
            log.warning("this node's certificate could not be renewed yet", metadata: ["error": "\(error)"])
            return false
        }
    }

    private func renew() async throws {
        if transport.certificateExpiry <= Date() {
            // Nobody takes a connection of this node any more.
            var faults: [String] = []
            guard try await readmission.renew(&faults) else {
                throw DaemonError("it has expired: \(faults.joined(separator: "; "))")
            }
            return try await transport.reloadCertificates()
        }
        let request = try CertificateRequest(name: cluster.own.name)
        let answer = try await duties.ask(.renew(request: try request.request.serializeAsPEM().pemString))
        guard let certificate = answer.certificate, let authorities = answer.authorities else { return }
        // Whoever is believed stays so until the state says otherwise.
        var believed = transport.certificates.current.authorities
        for text in authorities { believed[CertificateAuthority.id(of: try Certificate(pemEncoded: text))] = text }
        try files.write(
            certificate: certificate, key: try request.keyText,
            authorities: believed.sorted { $0.key < $1.key }.map(\.value))
        try await transport.reloadCertificates()
        log.notice(
            "this node's certificate was renewed",
            metadata: [
                "valid until": "\(transport.certificateExpiry.formatted(.iso8601))",
                "authority": "\(transport.certificates.current.shown.authority)",
            ])
    }

    /// Takes up authorities that are new in the state and lets go of those that are gone. One the state does not know is
    /// believed on: a node that is behind was told of it when it came.
    private func believe(_ authorities: [AuthorityRow]) async throws {
        let current = transport.certificates.current
        var believed = current.authorities
        for authority in authorities {
            if authority.phase != .gone {
                believed[authority.id] = authority.certificate
            } else if authority.id != current.shown.authority {
                believed[authority.id] = nil
            }
        }
        guard believed.keys.sorted() != current.shown.trusted else { return }
        try files.write(authorities: believed.sorted { $0.key < $1.key }.map(\.value))
        try await transport.reloadCertificates()
        log.notice(
            "this node believes other authorities from now on",
            metadata: ["authorities": "\(believed.keys.sorted().joined(separator: ", "))"])
    }
}
