// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
internal import Logging
internal import Model
internal import Orchestrator
internal import Raft
internal import ServiceLifecycle
internal import Store
internal import Synchronization
internal import X509

/// What one member does for all nodes while it leads: lets machines in, issues certificates, gives out votes. On every
/// other node it carries the question to whoever leads.
final class LeaderDuties: Service {
    /// Clocks further apart than this make certificates and expiry worthless.
    static let clockDifferenceMax: Int64 = 60_000
    static let callDeadline = Duration.seconds(10)
    /// For the leader's word on a node that wants to be taken back: below what that node waits for an answer.
    static let proofDeadline = Duration.seconds(2)

    private let clusterID: String
    private let core: CoreOwner
    private let state: StateMachine
    private let calls: NodeCalls
    private let log: Logger
    private let changes: AsyncStream<Void>
    private let changesInput: AsyncStream<Void>.Continuation
    private let watch = Mutex<Watch?>(nil)

    init(clusterID: String, core: CoreOwner, state: StateMachine, calls: NodeCalls, log: Logger) {
        self.clusterID = clusterID
        self.core = core
        self.state = state
        self.calls = calls
        self.log = log
        (changes, changesInput) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// Nodes or votes changed.
    func nodesChanged() { changesInput.yield() }

    // MARK: - Calls

    /// Asks whoever leads; the answer has no problem.
    /// - Throws: `Problem`.
    func ask(_ call: LeaderCall, deadline: Duration = LeaderDuties.callDeadline) async throws -> LeaderAnswer {
        let body = Array(try JSON.encode(call))
        let bytes = try await core.askLeader(PeerRequest.call(body).encoded(), deadline: deadline) { [self] in
            await answer(body, from: core.member)
        }
        let reply: LeaderAnswer
        do { reply = try JSON.decode(LeaderAnswer.self, from: Data(bytes)) } catch {
            throw Problem(
                .internal, "the leader's answer cannot be read: \(error)", hint: "do all nodes run the same version?")
        }
        if let problem = reply.problem { throw problem }
        return reply
    }

    /// JSON of a `LeaderAnswer`.
    func answer(_ body: [UInt8], from member: MemberID) async -> [UInt8] {
        var answer = LeaderAnswer()
        do {
            guard core.consensus.status.isLeader else { throw CoreOwner.noLeader }
            answer = try await carryOut(try JSON.decode(LeaderCall.self, from: Data(body)), for: member)
        } catch let problem as Problem {
            answer.problem = problem
        } catch {
            log.warning("a node's request failed", metadata: ["member": "\(member)", "error": "\(error)"])
            answer.problem = Problem(.internal, "\(error)")
        }
        return (try? JSON.encode(answer)).map { Array($0) } ?? []
    }

    private func carryOut(_ call: LeaderCall, for member: MemberID) async throws -> LeaderAnswer {
        switch call {
        case .admit(let application): return LeaderAnswer(welcome: try await admit(application))
        case .renew(let request):
            guard let node = try await state.read({ try $0.nodes() }).first(where: { $0.member == member }) else {
                throw Problem(.notFound, "member \(member) is no node of this cluster")
            }
            let (certificate, authorities) = try await issue(request, to: node)
            log.info("a certificate is renewed", metadata: ["node": "\(node.name)"])
            return LeaderAnswer(certificate: certificate, authorities: authorities)
        case .prove(let proof): return LeaderAnswer(welcome: try await take(proof))
        case .removeNode(let id):
            try await remove(id)
            return LeaderAnswer()
        case .report(let report):
            heard(of: report.node, inForce: report.inForce ?? .max)
            if let certificate = report.certificate { await record(certificate, of: report.node, member) }
            return LeaderAnswer()
        case .isReleased(let index): return LeaderAnswer(isReleased: try await isReleased(index))
        case .rotateAuthority:
            try await addAuthority()
            return LeaderAnswer()
        }
    }

    // MARK: - Letting go

    private func remove(_ id: NodeID) async throws {
        _ = try await core.readBarrier()
        guard let node = try await state.read({ try $0.node(id) }) else { return }
        if core.status.consensus.configuration?.membership.contains(node.member) == true {
            // A node that led until now asks the next one, which may not be ready yet.
            try await core.changeMembership(.remove(node.member), isPatient: true)
        }
        let applied = try await core.propose(.removeNode(NodeChange(node: id)), deadline: Self.callDeadline)
        if case .refused(let problem) = applied.outcome { throw problem }
        log.notice("a node is removed", metadata: ["node": "\(node.name)", "member": "\(node.member)"])
    }

    // MARK: - Letting in

    /// - Throws: when the secret is not that of the token, or there is no token.
    static func check(_ token: JoinTokenRow?, secret: String) throws(Problem) {
        // The same work whether the token exists or not: an answer's time tells nothing.
        let given = Array(SHA256.hash(data: Data(Base32.bytes(secret) ?? [])))
        let wanted = token.flatMap { NodeBackend.bytes(hex: $0.hash) } ?? [UInt8](repeating: 0, count: 32)
        guard ConstantTime.isEqual(given, wanted), token != nil else {
            throw Problem(
                .unauthenticated,
                "the join token is not known here: revoked, exchanged, used up and expired, or of another cluster",
                hint: "make a new one on a node of the cluster: hivemind cluster token create")
        }
    }

    static func versionFinding(_ version: String) -> JoinFinding? {
        guard version != BuildInfo.version else { return nil }
        return JoinFinding(
            .version, .conflict, "this machine runs \(version), the cluster \(BuildInfo.version)",
            hint: "install the version the cluster runs, then join again")
    }

    /// - Parameter now: the machine's time in milliseconds since 1970.
    static func clockFinding(_ now: Int64) -> JoinFinding? {
        let (difference, isHuge) = now.subtractingReportingOverflow(Clock.now().milliseconds)
        guard isHuge || difference.magnitude > UInt64(clockDifferenceMax) else { return nil }
        return JoinFinding(
            .clock, .conflict,
            "this machine's clock is \(difference.magnitude / 1000) s \(now > 0 && difference > 0 ? "ahead of" : "behind") the cluster's",
            hint: "set it right (systemctl enable --now systemd-timesyncd, or chrony), then join again")
    }

    private func admit(_ application: JoinApplication) async throws -> JoinWelcome {
        // Before anything is changed.
        _ = try await clusterKey()
        // A token may be younger than what this leader has applied.
        _ = try await core.readBarrier()
        let token = try await state.read { try $0.joinToken(application.tokenId) }
        do throws(Problem) { try Self.check(token, secret: application.secret) } catch {
            log.warning(
                "a machine was not let in: its join token is not known",
                metadata: ["name": "\(Validation.shown(application.name))"])
            throw error
        }
        if let finding = Self.versionFinding(application.version) ?? Self.clockFinding(application.now) {
            throw Problem(finding.code, finding.message, hint: finding.hint)
        }
        guard application.name == NodeIdentity.label(application.name) else {
            throw Problem(
                .invalidName, "`\(application.name)` is no node name", hint: "letters, digits and dashes, at most 40")
        }
        let node = NodeRow(
            id: application.node, name: application.name, member: 0, address: application.address,
            peerAddress: application.peerAddress, apiAddress: application.apiAddress,
            subnet: AddressRanges.standard.containers, pin: NodeRow.Pin(rawValue: application.pin) ?? .auto,
            cpuMillis: application.cpuMillis, memoryBytes: application.memoryBytes, version: application.version)
        let applied = try await core.propose(
            .admitNode(AdmitNode(token: application.tokenId, node: node)), deadline: Self.callDeadline)
        if case .refused(let problem) = applied.outcome { throw problem }
        let (row, meta, nodes) = try await state.read { view in
            (try view.node(application.node), try view.meta(), try view.nodes())
        }
        guard let row else { throw Problem(.conflict, "the node was removed while it joined", hint: "join again") }
        let (certificate, authorities) = try await issue(application.request, to: row)
        log.notice(
            "a machine was let in",
            metadata: ["node": "\(row.name)", "address": "\(row.peerAddress)", "token": "\(application.tokenId)"])
        return welcome(row, meta, nodes, certificate, authorities)
    }

    private func welcome(
        _ row: NodeRow, _ meta: MetaRow, _ nodes: [NodeRow], _ certificate: String, _ authorities: [String]
    ) -> JoinWelcome {
        JoinWelcome(
            clusterId: clusterID, member: row.member, subnet: row.subnet, ranges: meta.ranges,
            certificate: certificate, authorities: authorities,
            seeds: nodes.filter {
                !$0.peerAddress.isEmpty && meta.configuration.membership.contains($0.member)
            }.map {
                NodeFile.Seed(node: $0.id, member: $0.member, name: $0.name, peerAddress: $0.peerAddress)
            })
    }

    // MARK: - Taking back

    /// By whoever leads. Where nobody does, a node that holds the cluster's key decides by its own state: when all
    /// certificates expired and most voters lack the key, nobody leads before some of them are back. If that state is too old
    /// to know that the node was removed, its certificate is of no use with those that do.
    func takeBack(_ proof: IdentityProof) async throws -> JoinWelcome {
        do {
            guard let welcome = try await ask(.prove(proof), deadline: Self.proofDeadline).welcome else {
                throw Problem(.internal, "the leader took the node without a welcome")
            }
            return welcome
        } catch let problem as Problem where problem.code == .noLeader && calls.holdsClusterKey {
            return try await take(proof)
        }
    }

    /// A node that has the key of a certificate that was issued to it gets another one when it has expired, also one of the
    /// cluster this one was made from.
    private func take(_ proof: IdentityProof) async throws -> JoinWelcome {
        let (authorities, meta, nodes, removed) = try await state.read {
            (try $0.authorities(), try $0.meta(), try $0.nodes(), try $0.removedNodes())
        }
        let claim = try proof.verify(by: authorities.filter { $0.phase != .gone }.map(\.certificate))
        guard claim.clusterID == clusterID || claim.clusterID == meta.previousClusterID else {
            throw Problem(
                .forbidden, "the certificate is of cluster `\(claim.clusterID)`, this is `\(clusterID)`",
                hint: "make it a node that may join: hivemind cluster leave --yes")
        }
        guard let row = nodes.first(where: { $0.id == claim.node }) else {
            let name = removed.first { $0.id == claim.node }?.name
            log.warning("a node that was removed asks for a certificate", metadata: ["node": "\(claim.node)"])
            throw Problem(
                .forbidden, "node \(claim.node)\(name.map { " (`\($0)`)" } ?? "") was removed from the cluster",
                hint: "make it a node that may join: hivemind cluster leave --yes")
        }
        let known = try await state.read { try $0.certificate(of: claim.node) }
        if let known, claim.notBefore < known.shown.notBefore {
            log.warning("an old certificate was shown by somebody", metadata: ["node": "\(row.name)"])
            throw Problem(
                .forbidden, "node `\(row.name)` has shown a newer certificate than this one",
                hint: "an old copy of a data directory must not be used: empty it and join again")
        }
        let (certificate, believed) = try await issue(proof.request, to: row)
        log.notice(
            "a node's certificate had expired: it has a new one",
            metadata: ["node": "\(row.name)", "member": "\(row.member)"])
        return welcome(row, meta, nodes, certificate, believed)
    }

    // MARK: - Certificates

    /// What a node says it shows, where the state says something else.
    private func record(_ certificate: NodeCertificate, of node: NodeID, _ member: MemberID) async {
        guard certificate.trusted.count <= NodeCertificate.trustedMax else { return }
        // Nil: this member does not lead any more.
        guard let isKnown = watched({ $0.recorded[node] == certificate }), !isKnown else { return }
        do {
            let (row, known) = try await state.read { (try $0.node(node), try $0.certificate(of: node)) }
            // Nodes speak for themselves only.
            guard row?.member == member else { return }
            if known?.shown != certificate {
                let applied = try await core.propose(
                    .changeCertificates(.record(node: node, certificate)), deadline: .seconds(2))
                if case .refused(let problem) = applied.outcome { throw problem }
            }
            watched { $0.recorded[node] = certificate }
        } catch {
            log.debug("a node's certificate cannot be recorded now", metadata: ["error": "\(error)"])
        }
    }

    /// A second authority beside the one that issues; `AuthorityExchange` says how it goes on.
    private func addAuthority() async throws {
        let key = try await clusterKey()
        let authority = try CertificateAuthority.make(clusterID: clusterID, now: Date())
        let id = NodeBackend.hex(authority.digest)
        let applied = try await core.propose(
            .changeAuthority(
                .add(
                    AuthorityRow(
                        id: id, certificate: try authority.certificateText,
                        sealedKey: try key.seal(try authority.keyText), createdAt: Clock.now(), phase: .coming))),
            deadline: Self.callDeadline)
        if case .refused(let problem) = applied.outcome { throw problem }
        log.notice("the cluster gets another authority", metadata: ["authority": "\(id)"])
    }

    /// Goes on with an exchange of the authority, whoever began it.
    private func exchangeAuthority() async {
        guard core.consensus.status.isReady else { return }
        do {
            let exchange = try await state.read { view in
                AuthorityExchange(
                    nodes: try view.nodes().map(\.id), authorities: try view.authorities(),
                    certificates: try view.certificates())
            }
            guard let change = exchange.next else { return }
            _ = try await core.propose(.changeAuthority(change), deadline: .seconds(2))
            switch change {
            case .issue(let id):
                log.notice("certificates are of another authority from now on", metadata: ["authority": "\(id)"])
            case .drop(let id): log.notice("an authority is not believed any more", metadata: ["authority": "\(id)"])
            case .add: break
            }
        } catch {
            log.debug("the authority cannot be exchanged now", metadata: ["error": "\(error)"])
        }
    }

    /// A node that votes only since a moment ago may lead before it has asked the others for it.
    private func clusterKey() async throws -> ClusterKey {
        guard let key = try await calls.clusterKey() else {
            throw Problem(.busy, "the leader does not hold the cluster's key yet", hint: "try again in a moment")
        }
        return key
    }

    private func issue(_ request: String, to node: NodeRow) async throws -> (certificate: String, authorities: [String])
    {
        let rows = try await state.read { try $0.authorities() }.filter { $0.phase != .gone }
        guard let newest = rows.first(where: { $0.phase == .issuing }) else {
            throw Problem(.conflict, "this cluster has no authority yet", hint: "wait a moment, then join again")
        }
        let authority = try CertificateAuthority(
            certificate: newest.certificate, key: try await clusterKey().open(newest.sealedKey))
        let signed: CertificateSigningRequest
        do { signed = try CertificateSigningRequest(pemEncoded: request) } catch {
            throw Problem(.badRequest, "the request for a certificate cannot be read: \(error)")
        }
        let certificate = try authority.issue(
            signed, to: CertificateAuthority.Subject(name: node.name, node: node.id.raw, clusterID: clusterID),
            now: Date())
        return (try CertificateAuthority.text(of: certificate), rows.map(\.certificate))
    }

    // MARK: - Who answers

    /// What is known of the nodes in one term of this leader.
    private struct Watch {
        var term: UInt64
        var detector: FailureDetector
        /// What is in the state for certain.
        var recorded: [NodeID: NodeCertificate] = [:]
        /// How far the names and rules of each node are, as it said last.
        var inForce: [NodeID: UInt64] = [:]
    }

    /// Nil while this member does not lead.
    @discardableResult
    private func watched<Value>(_ body: (inout Watch) -> Value) -> Value? {
        let status = core.consensus.status
        return watch.withLock { watch in
            guard status.isReady else {
                watch = nil
                return nil
            }
            var known =
                watch.flatMap { $0.term == status.term ? $0 : nil }
                ?? Watch(term: status.term, detector: FailureDetector(since: Clock.monotonic()))
            defer { watch = known }
            return body(&known)
        }
    }

    private func detector<Value>(_ body: (inout FailureDetector) -> Value) -> Value? {
        watched { body(&$0.detector) }
    }

    private func heard(of node: NodeID, inForce: UInt64) {
        watched { watch in
            watch.detector.heard(of: node, at: Clock.monotonic())
            watch.inForce[node] = inForce
        }
    }

    /// A node that is down serves nobody; one that is only suspect may still do.
    private func isReleased(_ index: UInt64) async throws -> Bool {
        let nodes = try await state.read { try $0.nodes() }.filter { $0.liveness != .down }
        guard let inForce = watched({ $0.inForce }) else { throw CoreOwner.noLeader }
        return nodes.allSatisfy { inForce[$0.id, default: 0] >= index }
    }

    private func judge() async {
        guard core.consensus.status.isReady else {
            watch.withLock { $0 = nil }
            return
        }
        do {
            let (nodes, meta) = try await state.read { (try $0.nodes(), try $0.meta()) }
            let judged = detector { detector in
                detector.limits = FailureDetector.Limits(downMilliseconds: meta.downAfterMilliseconds)
                let isYoung =
                    !meta.previousClusterID.isEmpty
                    && Clock.now() - meta.succeededAt < detector.limits.massMilliseconds
                return detector.judge(nodes, isYoung: isYoung, at: Clock.monotonic())
            }
            guard let items = judged, !items.isEmpty else { return }
            for item in items {
                log.notice(
                    "a node is \(item.liveness.rawValue)",
                    metadata: ["node": "\(nodes.first { $0.id == item.node }?.name ?? item.node.raw)"])
            }
            _ = try await core.propose(.setLiveness(SetLiveness(items: items)), deadline: .seconds(2))
        } catch {
            log.debug("which nodes answer cannot be recorded now", metadata: ["error": "\(error)"])
        }
    }

    // MARK: - Votes

    static let lookInterval = Duration.milliseconds(250)

    /// Looks after nodes and votes whenever something changed, and four times a second.
    func run() async throws {
        await cancelWhenGracefulShutdown {
            await withDiscardingTaskGroup { group in
                group.addTask { [self] in
                    while !Task.isCancelled {
                        nodesChanged()
                        try? await Task.sleep(for: Self.lookInterval)
                    }
                }
                group.addTask { [self] in
                    for await _ in changes {
                        await judge()
                        await giveMembers()
                        await steer()
                        await exchangeAuthority()
                    }
                }
            }
        }
    }

    /// After a recovery: nodes that were members of the cluster before are none of this one, and may come back as observers.
    private func giveMembers() async {
        guard core.consensus.status.isReady else { return }
        do {
            let (meta, nodes) = try await state.read { (try $0.meta(), try $0.nodes()) }
            guard !meta.previousClusterID.isEmpty else { return }
            for node in nodes
            where node.member != core.member && meta.configuration.membership.removed.contains(node.member) {
                _ = try await core.propose(.giveMember(NodeChange(node: node.id)), deadline: .seconds(2))
                log.notice("a node of the cluster before may come back", metadata: ["node": "\(node.name)"])
            }
        } catch {
            log.debug("nodes of the cluster before get no member ids now", metadata: ["error": "\(error)"])
        }
    }

    private func steer() async {
        for _ in 0..<64 {
            let status = core.consensus.status
            guard status.isReady, let membership = status.configuration?.membership else { return }
            let members = status.progress.filter { $0.silentTicks < 20 || $0.id == core.member }.map(\.id)
            do {
                let nodes = try await state.read { try $0.nodes() }
                let observers = nodes.filter { !membership.contains($0.member) }
                let heard = detector { detector in
                    observers.filter { detector.hears($0.id, at: Clock.monotonic()) }.map(\.member)
                }
                let answering = Set(members + (heard ?? []))
                guard
                    let change = MembershipPlan.next(
                        nodes: nodes, membership: membership, answering: answering, leader: core.member)
                else { return }
                try await core.changeMembership(change)
                log.info("the membership changes", metadata: ["change": "\(change)"])
            } catch {
                log.debug("the membership cannot change now", metadata: ["error": "\(error)"])
                return
            }
        }
    }
}
