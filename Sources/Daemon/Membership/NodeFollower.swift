// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Logging
internal import Model
internal import Raft
internal import ServiceLifecycle
internal import Store
internal import X509

/// Keeps this node in touch with the others as the state names them: connections, the overlay, its own certificate.
final class NodeFollower: Service {
    /// Between two looks at what somebody else may have changed in the kernel, and at the certificate.
    static let lookInterval = Duration.seconds(30)
    static let reportInterval = Duration.milliseconds(500)
    /// Between two attempts at another certificate.
    static let retryInterval = Duration.seconds(1)
    /// How long a node that was removed is still listened to: answers it waits for must reach it.
    static let farewell = Duration.seconds(2)

    private let cluster: PeerConfiguration
    private let own: NodeID
    private let state: StateMachine
    private let transport: PeerTransport
    private let networking: any Networking
    private let duties: LeaderDuties
    private let files: ClusterFiles
    private let log: Logger
    private let changes: AsyncStream<Void>
    private let changesInput: AsyncStream<Void>.Continuation
    private let looks: AsyncStream<Void>
    private let looksInput: AsyncStream<Void>.Continuation

    init(
        cluster: PeerConfiguration, own: NodeID, state: StateMachine, transport: PeerTransport,
        networking: any Networking, duties: LeaderDuties, files: ClusterFiles, log: Logger
    ) {
        self.cluster = cluster
        self.own = own
        self.state = state
        self.transport = transport
        self.networking = networking
        self.duties = duties
        self.files = files
        self.log = log
        (changes, changesInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        (looks, looksInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
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
                group.addTask { [self] in await report() }
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
        var refused: [RefusedNode] = []
        for await _ in changes {
            do {
                let known = try await read()
                let (nodes, goneNow, membership) = (known.nodes, known.removed, known.membership)
                // Before its first entry a node knows only what it was told when it came.
                if nodes.contains(where: { $0.id == own }) {
                    let now = Set(nodes.filter { $0.id != own }.compactMap(peer))
                    if now != peers || goneNow != removed {
                        let leaving = peers.filter { goneNow.contains($0.id) }
                        transport.replacePeers(
                            now.union(leaving).sorted { $0.id < $1.id }, removed: goneNow.subtracting(leaving.map(\.id))
                        )
                        (peers, removed) = (now, goneNow)
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
                if membership.isVoter(cluster.own.id) { await fetchKey() }
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
                    known.nodes.filter { $0.id != own }.compactMap(peer), removed: known.removed)
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
    }

    private func read() async throws -> Known {
        try await state.read { view in
            let membership = try view.meta().configuration.membership
            return Known(
                nodes: try view.nodes(),
                removed: Set(try view.removedNodes().map(\.member)).union(membership.removed), membership: membership)
        }
    }

    private func peer(_ node: NodeRow) -> Peer? {
        PeerAddress(node.peerAddress).map {
            Peer(
                id: node.member, name: node.name, address: $0,
                uri: PeerConfiguration.uri(clusterID: cluster.clusterID, node: node.id))
        }
    }

    /// Who may have to lead must be able to open the cluster's secrets.
    private func fetchKey() async {
        guard files.clusterKey() == nil else { return }
        do {
            guard
                let key = try await duties.ask(.clusterKey).key.flatMap({ Base32.bytes($0) }).flatMap({ ClusterKey($0) }
                )
            else { return }
            try files.write(key)
            log.info("this node holds the cluster's key now")
        } catch {
            log.debug("the cluster's key is not here yet", metadata: ["error": "\(error)"])
        }
    }

    /// Says that this node is there, as long as it is.
    private func report() async {
        while !Task.isCancelled {
            do {
                _ = try await duties.ask(
                    .report(NodeReport(node: own, certificate: transport.certificates.current.shown)),
                    deadline: Self.reportInterval * 2)
            } catch {
                log.debug("nobody hears of this node now", metadata: ["error": "\(error)"])
            }
            try? await Task.sleep(for: Self.reportInterval)
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
            guard due <= Date() || certificate?.renewSerial == shown.serial || phase == .going || phase == .gone else {
                return true
            }
            try await renew()
            return true
        } catch {
            log.warning("this node's certificate could not be renewed yet", metadata: ["error": "\(error)"])
            return false
        }
    }

    private func renew() async throws {
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
