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

    private let clusterID: String
    private let core: CoreOwner
    private let state: StateMachine
    private let files: ClusterFiles
    private let log: Logger
    private let changes: AsyncStream<Void>
    private let changesInput: AsyncStream<Void>.Continuation
    private let watch = Mutex<Watch?>(nil)

    init(clusterID: String, core: CoreOwner, state: StateMachine, files: ClusterFiles, log: Logger) {
        self.clusterID = clusterID
        self.core = core
        self.state = state
        self.files = files
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
        case .clusterKey:
            guard core.status.consensus.configuration?.membership.isVoter(member) == true, let key = files.clusterKey()
            else { throw Problem(.forbidden, "member \(member) does not vote, or this leader has no key") }
            return LeaderAnswer(key: Base32.text(key.bytes))
        case .renew(let request):
            guard let node = try await state.read({ try $0.nodes() }).first(where: { $0.member == member }) else {
                throw Problem(.notFound, "member \(member) is no node of this cluster")
            }
            let (certificate, authorities) = try await issue(request, to: node)
            log.info("a certificate is renewed", metadata: ["node": "\(node.name)"])
            return LeaderAnswer(certificate: certificate, authorities: authorities)
        case .removeNode(let id):
            try await remove(id)
            return LeaderAnswer()
        case .report(let report):
            heard(of: report.node)
            if let certificate = report.certificate { await record(certificate, of: report.node, member) }
            return LeaderAnswer()
        case .rotateAuthority:
            try await addAuthority()
            return LeaderAnswer()
        }
    }

    // MARK: - Letting go

    private func remove(_ id: NodeID) async throws {
        guard let node = try await state.read({ try $0.node(id) }) else { return }
        if core.status.consensus.configuration?.membership.contains(node.member) == true {
            try await core.changeMembership(.remove(node.member))
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
        guard isEqual(given, wanted), token != nil else {
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
        let token = try await state.read { try $0.joinToken(application.tokenId) }
        do throws(Problem) { try Self.check(token, secret: application.secret) } catch {
            log.warning(
                "a machine was not let in: its join token is not known", metadata: ["name": "\(application.name)"])
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
        return JoinWelcome(
            clusterId: clusterID, member: row.member, subnet: row.subnet, ranges: meta.ranges,
            certificate: certificate, authorities: authorities,
            seeds: nodes.filter { !$0.peerAddress.isEmpty && $0.id != row.id }.map {
                NodeFile.Seed(node: $0.id, member: $0.member, name: $0.name, peerAddress: $0.peerAddress)
            })
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
        guard let key = files.clusterKey() else {
            throw Problem(.conflict, "the leader does not hold the cluster's key yet", hint: "try again in a moment")
        }
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

    private func issue(_ request: String, to node: NodeRow) async throws -> (certificate: String, authorities: [String])
    {
        let rows = try await state.read { try $0.authorities() }.filter { $0.phase != .gone }
        guard let newest = rows.first(where: { $0.phase == .issuing }) else {
            throw Problem(.conflict, "this cluster has no authority yet", hint: "wait a moment, then join again")
        }
        guard let key = files.clusterKey() else {
            throw Problem(
                .conflict, "the leader does not hold the cluster's key yet", hint: "wait a moment, then join again")
        }
        let authority = try CertificateAuthority(certificate: newest.certificate, key: try key.open(newest.sealedKey))
        let signed: CertificateSigningRequest
        do { signed = try CertificateSigningRequest(pemEncoded: request) } catch {
            throw Problem(.badRequest, "the request for a certificate cannot be read: \(error)")
        }
        let certificate = try authority.issue(
            signed, to: CertificateAuthority.Subject(name: node.name, node: node.id.raw, clusterID: clusterID),
            now: Date())
        return (try CertificateAuthority.text(of: certificate), rows.map(\.certificate))
    }

    private static func isEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        guard left.count == right.count else { return false }
        return zip(left, right).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }

    // MARK: - Who answers

    /// What is known of the nodes in one term of this leader.
    private struct Watch {
        var term: UInt64
        var detector: FailureDetector
        /// What is in the state for certain.
        var recorded: [NodeID: NodeCertificate] = [:]
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

    private func heard(of node: NodeID) { detector { $0.heard(of: node, at: Clock.monotonic()) } }

    private func judge() async {
        guard core.consensus.status.isReady else {
            watch.withLock { $0 = nil }
            return
        }
        do {
            let nodes = try await state.read { try $0.nodes() }
            guard let items = detector({ $0.judge(nodes, at: Clock.monotonic()) }), !items.isEmpty else { return }
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
                        await steer()
                        await exchangeAuthority()
                    }
                }
            }
        }
    }

    private func steer() async {
        for _ in 0..<64 {
            let status = core.consensus.status
            guard status.isReady, let membership = status.configuration?.membership else { return }
            let answering = Set(
                status.progress.filter { $0.silentTicks < 20 || $0.id == core.member }.map(\.id))
            do {
                let nodes = try await state.read { try $0.nodes() }
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
