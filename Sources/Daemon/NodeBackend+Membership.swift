// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
internal import Glibc
internal import Model
internal import Raft
internal import Store
internal import X509

/// How a node comes to a cluster and leaves it, and the tokens that let others in.
extension NodeBackend {
    static let tokenLifeMax = Duration.seconds(365 * 86_400)

    // MARK: - Founding

    func initializeCluster(_ request: ClusterInitRequest) async throws -> ClusterInitView {
        guard membership.cluster == nil else {
            throw Problem(
                .conflict, "this node belongs to cluster `\(identity.clusterID)` already",
                hint: "let others in with a token: hivemind cluster token create")
        }
        if request.encrypt == true { throw try await refusalToEncrypt() }
        let place = try await place(request.advertise, peerPort: request.peerPort, apiPort: request.apiPort)
        let now = Date()
        let authority = try CertificateAuthority.make(clusterID: identity.clusterID, now: now)
        let key = ClusterKey()
        let own = try CertificateRequest(name: identity.name)
        let certificate = try authority.issue(
            own.request,
            to: CertificateAuthority.Subject(
                name: identity.name, node: identity.id.raw, clusterID: identity.clusterID), now: now)
        let files = try Turn.files(membership.dataDirectory)
        try files.write(
            certificate: try CertificateAuthority.text(of: certificate), key: try own.keyText,
            authorities: [try authority.certificateText])
        try files.write(key)
        // An authority without a node that uses it does no harm; a node without its authority would.
        let applied = try await core.propose(
            .putAuthority(
                AuthorityRow(
                    id: Self.hex(authority.digest), certificate: try authority.certificateText,
                    sealedKey: try key.seal(try authority.keyText), createdAt: Clock.now())),
            deadline: Self.writeDeadline)
        if case .refused(let problem) = applied.outcome { throw problem }
        var file = try NodeFile.read(membership.dataDirectory)
        file.place = place
        try Turn(kind: .found, node: file).write(membership.dataDirectory)
        log.notice("this node lets others in from now on", metadata: ["address": "\(place.advertise)"])
        membership.turn()
        return ClusterInitView(
            id: identity.clusterID, node: identity.name,
            address: "\(PeerAddress(host: place.advertise, port: place.apiPort))", recoveryCode: key.recoveryCode)
    }

    /// Nothing is ever sent in clear where somebody asked for the contrary.
    private func refusalToEncrypt() async throws -> Problem {
        let support = try await effects.networking.encryption()
        let faults = [support.wireGuard.map { "WireGuard: \($0)" }, support.esp.map { "IPsec: \($0)" }]
            .compactMap { $0 }
        let hint =
            "join the machines by an encrypted network of your own and give its address with --advertise, or leave "
            + "--encrypt out where the network between them is trusted"
        guard faults.count == 2 else {
            return Problem(
                .conflict,
                "this kernel has \(support.wireGuard == nil ? "WireGuard" : "IPsec"), but \(BuildInfo.version) of "
                    + "hivemind cannot encrypt what containers of different nodes say yet",
                hint: hint)
        }
        return Problem(.conflict, "this kernel cannot encrypt: \(faults.joined(separator: "; "))", hint: hint)
    }

    private func place(_ advertise: String?, peerPort: Int?, apiPort: Int?) async throws -> NodeFile.ClusterPlace {
        let host = advertise ?? DaemonMain.primaryAddress()
        guard let address = IPv4Address(host) else {
            throw Problem(
                .badRequest, "`\(host)` is no IPv4 address",
                hint: "give an address of this machine: --advertise 10.0.0.1")
        }
        guard DaemonMain.ownAddresses().contains(host) else {
            throw Problem(
                .badRequest, "\(address) is no address of this machine",
                hint: "it has \(DaemonMain.ownAddresses().joined(separator: ", "))")
        }
        let meta = try await state.read { try $0.meta() }
        guard let row = try await state.read({ [id = identity.id] in try $0.node(id) }) else {
            throw Problem(.noLeader, "this node has not taken its place yet", hint: "try again in a moment")
        }
        return NodeFile.ClusterPlace(
            advertise: host, peerPort: peerPort ?? PeerAddress.standardPort, apiPort: apiPort ?? 4_483,
            subnet: row.subnet, ranges: meta.ranges, seeds: [])
    }

    // MARK: - Joining

    func joinCluster(_ request: ClusterJoinRequest) async throws -> ClusterJoinView {
        let token = try JoinToken(request.token)
        if let cluster = membership.cluster {
            if membership.isRemoved() {
                throw Problem(
                    .conflict, "the cluster removed this node for good, under this id it never comes back",
                    hint: "make it a new one, then join again: hivemind cluster leave --yes")
            }
            // Harmless to repeat: the token names the cluster this node belongs to already.
            let known = try await state.read { try $0.authorities() }
            if known.contains(where: { $0.id == Self.hex(token.digest) }) {
                return ClusterJoinView(id: identity.clusterID, node: identity.name, member: core.member)
            }
            throw Problem(
                .conflict, "this node belongs to cluster `\(cluster.clusterID)`, the token to another",
                hint: "leave that first: hivemind cluster leave")
        }
        if let problem = try await inspect(request, token).findings.problem { throw problem }
        guard let pin = NodeRow.Pin(rawValue: request.role ?? "auto") else {
            throw Problem(.badRequest, "`\(request.role ?? "")` is no role", hint: "voter or observer")
        }
        var place = try await place(request.advertise, peerPort: request.peerPort, apiPort: request.apiPort)
        guard let row = try await state.read({ [id = identity.id] in try $0.node(id) }) else {
            throw Problem(.noLeader, "this node has not taken its place yet", hint: "try again in a moment")
        }
        let own = try CertificateRequest(name: identity.name)
        // Of each attempt its own: an id is used once, also by one whose answer was lost.
        var generator = SystemRandomNumberGenerator()
        let id = NodeID(IdentifierMaker.make(using: &generator))
        let welcome = try await Joining(token: token).apply(
            JoinApplication(
                tokenId: "", secret: "", node: id, name: identity.name, address: place.advertise,
                peerAddress: "\(PeerAddress(host: place.advertise, port: place.peerPort))",
                apiAddress: "\(PeerAddress(host: place.advertise, port: place.apiPort))", pin: pin.rawValue,
                cpuMillis: row.cpuMillis, memoryBytes: row.memoryBytes, version: BuildInfo.version,
                request: try own.request.serializeAsPEM().pemString, now: Clock.now().milliseconds))
        let files = try Turn.files(membership.dataDirectory)
        try files.write(certificate: welcome.certificate, key: try own.keyText, authorities: welcome.authorities)
        (place.subnet, place.ranges, place.seeds) = (welcome.subnet, welcome.ranges, welcome.seeds)
        try Turn(
            kind: .join,
            node: NodeFile(
                id: id, name: identity.name, clusterId: welcome.clusterId, memberId: welcome.member,
                place: place)
        ).write(membership.dataDirectory)
        log.notice(
            "this node joins a cluster", metadata: ["cluster": "\(welcome.clusterId)", "member": "\(welcome.member)"])
        membership.turn()
        return ClusterJoinView(id: welcome.clusterId, node: identity.name, member: welcome.member)
    }

    func checkJoin(_ request: ClusterJoinRequest) async throws -> ClusterJoinCheckView {
        let token = try JoinToken(request.token)
        guard membership.cluster == nil else {
            throw Problem(
                .conflict, "this node belongs to cluster `\(identity.clusterID)` already",
                hint: "`hivemind cluster status` shows its members")
        }
        let (findings, nodes) = try await inspect(request, token)
        return ClusterJoinCheckView(findings: findings, nodes: nodes)
    }

    /// Everything that keeps this machine from joining, at once.
    private func inspect(
        _ request: ClusterJoinRequest, _ token: JoinToken
    ) async throws -> (findings: [JoinFinding], nodes: [String]) {
        var findings: [JoinFinding] = []
        let (apps, volumes, configs) = try await state.read {
            (try $0.apps().count, try $0.volumes().count, try $0.configs(namespace: nil, prefix: "").count)
        }
        if apps > 0 || volumes > 0 || configs > 0 {
            findings.append(
                JoinFinding(
                    .empty, .conflict,
                    "this node has \(apps) apps, \(volumes) volumes and \(configs) configs of its own, which would be lost",
                    hint: "delete them first (hivemind app ls, volume ls, config ls), or join with another machine"))
        }
        var own: NodeFile.ClusterPlace?
        do {
            own = try await place(request.advertise, peerPort: request.peerPort, apiPort: request.apiPort)
        } catch let problem as Problem where problem.code == .badRequest {
            findings.append(JoinFinding(.address, problem.code, problem.detail, hint: problem.hint))
        }
        let ways = await Preflight(
            joining: Joining(token: token), networking: effects.networking, name: identity.name,
            address: own.flatMap { IPv4Address($0.advertise) }, peerPort: own?.peerPort ?? 0,
            apiPort: own?.apiPort ?? 0
        ).run()
        return (findings + ways.findings, ways.nodes)
    }

    func preflight(_ question: PreflightQuestion) async throws -> PreflightAnswer {
        _ = try duties()
        // The token may be younger than this node's state, a node that left older.
        try await catchUp()
        let now = Clock.now()
        let (token, nodes, ranges) = try await state.read {
            (try $0.joinToken(question.tokenId), try $0.nodes(), try $0.meta().ranges)
        }
        do throws(Problem) {
            try LeaderDuties.check(token, secret: question.secret)
            guard let token, token.expiresAt > now else {
                throw Problem(
                    .unauthenticated, "join token \(question.tokenId) expired",
                    hint: "make a new one on a node of the cluster: hivemind cluster token create")
            }
            if let left = token.usesLeft, left < 1 {
                throw Problem(
                    .unauthenticated, "join token \(token.id) is used up",
                    hint: "make a new one on a node of the cluster: hivemind cluster token create")
            }
        } catch {
            log.warning(
                "a machine's question was refused",
                metadata: ["name": "\(Validation.shown(question.name))", "why": "\(error.detail)"])
            throw error
        }
        var answer = PreflightAnswer(
            findings: [], ranges: ranges,
            nodes: nodes.filter { !$0.peerAddress.isEmpty && $0.liveness == .ready }.map {
                PreflightAnswer.Node(
                    name: $0.name, address: $0.address, peerAddress: $0.peerAddress, apiAddress: $0.apiAddress)
            }, knocks: [:])
        guard let knock = question.knock else {
            answer.findings = Self.objections(to: question, nodes)
            return answer
        }
        for (node, result) in try await calls.askAll(.knock(knock), deadline: NodeCalls.knockLimit * 1.5) {
            // Who cannot be asked now is no reason against the machine.
            if case .success(let there) = result { answer.knocks[node.name] = there.knock }
        }
        return answer
    }

    /// What needs no ways between the machines. Pure but for the clock.
    static func objections(to question: PreflightQuestion, _ nodes: [NodeRow]) -> [JoinFinding] {
        var findings = [
            LeaderDuties.versionFinding(question.version), LeaderDuties.clockFinding(question.now),
        ].compactMap { $0 }
        if question.name != NodeIdentity.label(question.name) {
            findings.append(
                JoinFinding(
                    .name, .invalidName, "`\(question.name)` is no node name",
                    hint: "letters, digits and dashes, at most 40"))
        }
        if let other = nodes.first(where: { $0.name == question.name }) {
            findings.append(
                JoinFinding(
                    .name, .conflict, "the cluster has a node `\(question.name)` already, at \(other.address)",
                    hint: "start the daemon with another --node-name, or if that one is gone: "
                        + "hivemind node remove \(question.name)"))
        }
        return findings
    }

    func admit(_ application: JoinApplication) async throws -> JoinWelcome {
        guard let welcome = try await duties().ask(.admit(application)).welcome else {
            throw Problem(.internal, "the leader let the machine in without a welcome")
        }
        return welcome
    }

    func authorities() async throws -> AuthorityView {
        AuthorityView(
            authorities: try await state.read { try $0.authorities() }.filter { $0.phase != .gone }.map(\.certificate))
    }

    func renew(_ proof: IdentityProof) async throws -> JoinWelcome {
        try await duties().takeBack(proof)
    }

    func duties() throws(Problem) -> LeaderDuties {
        guard let duties = membership.duties else {
            throw Problem(
                .conflict, "this node lets nobody in",
                hint: membership.cluster == nil
                    ? "make it the first of a cluster: hivemind cluster init"
                    : "its members are a list of peers: add the machine there")
        }
        return duties
    }

    // MARK: - Tokens

    func createJoinToken(_ request: JoinTokenRequest) async throws -> JoinTokenView {
        _ = try duties()
        guard let pin = NodeRow.Pin(rawValue: request.role ?? "auto") else {
            throw Problem(.badRequest, "`\(request.role ?? "")` is no role", hint: "voter or observer")
        }
        var life = Duration.seconds(86_400)
        if let ttl = request.ttl {
            do { life = .milliseconds(try DurationText.milliseconds(ttl)) } catch {
                throw Problem(.badRequest, "ttl `\(ttl)`: \(error.why)", hint: "a number and a unit, for example 24h")
            }
        }
        guard life >= .seconds(1), life <= Self.tokenLifeMax else {
            throw Problem(.badRequest, "a token lives between a second and a year", hint: "for example 24h")
        }
        if let uses = request.uses, uses < 1 {
            throw Problem(
                .badRequest, "a token is good for one machine at least", hint: "leave `uses` out for any number")
        }
        let token = try await freshToken()
        let now = Clock.now()
        let row = JoinTokenRow(
            id: token.id, hash: Self.hash(of: token), role: pin, usesLeft: request.uses, createdAt: now,
            expiresAt: now + Int64(life / .milliseconds(1)))
        let applied = try await core.propose(.putJoinToken(row), deadline: Self.writeDeadline)
        if case .refused(let problem) = applied.outcome { throw problem }
        return JoinTokenView(row, token: token.text)
    }

    func rotateJoinToken(_ id: String?) async throws -> JoinTokenView {
        _ = try duties()
        try await catchUp()
        let now = Clock.now()
        let good = try await state.read { try $0.joinTokens() }.filter { $0.expiresAt > now }
        if id == nil, good.count != 1 {
            throw Problem(
                .conflict, good.isEmpty ? "there is no join token" : "there are \(good.count) join tokens",
                hint: good.isEmpty
                    ? "make one: hivemind cluster token create"
                    : "say which one: hivemind cluster token rotate \(good[0].id)")
        }
        let old = id ?? good[0].id
        let token = try await freshToken()
        let applied = try await core.propose(
            .rotateJoinToken(RotateJoinToken(id: old, newID: token.id, hash: Self.hash(of: token))),
            deadline: Self.writeDeadline)
        if case .refused(let problem) = applied.outcome { throw problem }
        guard let row = try await state.read({ try $0.joinToken(token.id) }) else {
            throw Problem(.conflict, "the new join token was revoked at once", hint: "hivemind cluster token create")
        }
        log.notice("a join token was exchanged", metadata: ["token": "\(old)", "new token": "\(token.id)"])
        return JoinTokenView(row, token: token.text)
    }

    private static func hash(of token: JoinToken) -> String { hex(Array(SHA256.hash(data: Data(token.secret)))) }

    /// A token nobody has, that leads to this node and some that can stand in for it.
    private func freshToken() async throws -> JoinToken {
        var generator = SystemRandomNumberGenerator()
        func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) } }
        let (authorities, nodes) = try await state.read { (try $0.authorities(), try $0.nodes()) }
        let own = membership.cluster?.api.map { ["\($0)"] } ?? []
        let others = nodes.filter { !$0.apiAddress.isEmpty && $0.liveness != .down && $0.id != identity.id }
            .sorted { $0.member < $1.member }.map(\.apiAddress)
        guard let digest = authorities.first.flatMap({ Self.bytes(hex: $0.id) }),
            let token = JoinToken(
                identity: bytes(JoinToken.identityBytes), secret: bytes(JoinToken.secretBytes), digest: digest,
                addresses: Array((own + others).prefix(JoinToken.addressesMax)))
        else { throw Problem(.noLeader, "the cluster has no authority or address yet", hint: "try again in a moment") }
        return token
    }

    func joinTokens() async throws -> ItemList<JoinTokenView> {
        let now = Clock.now()
        return try await state.read { view in
            ItemList(
                items: try view.joinTokens().filter { $0.expiresAt > now }.map { JoinTokenView($0, token: nil) },
                index: try view.meta().appliedIndex)
        }
    }

    func revokeJoinToken(_ id: String) async throws -> UInt64 {
        try await catchUp()
        guard try await state.read({ try $0.joinToken(id) }) != nil else {
            throw Problem(.notFound, "no join token `\(id)`", hint: "`hivemind cluster token ls` shows them")
        }
        return try await core.propose(.removeJoinToken(JoinTokenChange(id: id)), deadline: Self.writeDeadline).version
    }

    // MARK: - Going

    func removeNode(_ nameOrID: String) async throws -> UInt64 {
        // A state that is behind may have the name for another node, one that is gone.
        try await catchUp()
        let node = try await nodeRow(nameOrID)
        guard try await state.read({ try $0.nodes().count }) > 1 else {
            throw Problem(.conflict, "`\(node.name)` is the only node of its cluster", hint: "stop its daemon instead")
        }
        if node.id == identity.id, core.status.isLeader {
            // Whoever decides of this node's going stays.
            _ = try await core.transferLeadership(to: nil)
        }
        _ = try await duties().ask(.removeNode(node.id))
        return core.proposals.appliedIndex
    }

    /// Before a change that depends on what is known here.
    /// For a write that depends on what the state says: this node's may be behind.
    func catchUp() async throws {
        // Reading what is old, as the read's own advice has it, would not do.
        do { _ = try await readBarrier(.linearizable) } catch let problem as Problem where problem.code == .noLeader {
            throw CoreOwner.noLeader
        }
    }

    // MARK: - What is said about a node

    func patchNode(_ nameOrID: String, _ patch: NodePatch) async throws -> NodeView {
        let node = try await nodeRow(nameOrID)
        var change = SetNode(node: node.id, labels: patch.labels ?? [:])
        if let text = patch.availability {
            guard let availability = NodeRow.Availability(rawValue: text) else {
                throw Problem(.badRequest, "`\(text)` is no availability", hint: "active, cordoned or drained")
            }
            change.availability = availability
        }
        if let text = patch.role {
            guard let pin = NodeRow.Pin(rawValue: text) else {
                throw Problem(.badRequest, "`\(text)` is no role", hint: "auto, voter or observer")
            }
            change.pin = pin
        }
        try Validation.node(patch)
        guard Set(node.labels.keys).union(change.labels.keys).count <= Validation.nodeLabelsMax else {
            throw Problem(.badRequest, "`\(node.name)` would have more than \(Validation.nodeLabelsMax) labels")
        }
        (change.addTaints, change.removeTaints) = (patch.addTaints ?? [], patch.removeTaints ?? [])
        guard Set(node.taints).union(change.addTaints).count <= Validation.nodeTaintsMax else {
            throw Problem(.badRequest, "`\(node.name)` would have more than \(Validation.nodeTaintsMax) taints")
        }
        let applied = try await core.propose(.setNode(change), deadline: Self.writeDeadline)
        if case .refused(let problem) = applied.outcome { throw problem }
        return try await self.node(node.id.raw)
    }

    func nodeRow(_ nameOrID: String) async throws -> NodeRow {
        guard
            let node = try await state.read({ try $0.nodes() }).first(where: {
                $0.name == nameOrID || $0.id.raw == nameOrID
            })
        else { throw Problem(.notFound, "no node `\(nameOrID)`", hint: "`hivemind node ls` shows what there is") }
        return node
    }

    func leaveCluster() async throws {
        guard let cluster = membership.cluster, !cluster.isFixed else {
            throw Problem(
                .conflict, "this node came to no cluster by a token",
                hint: "`hivemind cluster status` shows its members")
        }
        if !membership.isRemoved() {
            try await catchUp()
            let others = try await state.read { try $0.nodes().count { $0.id != self.identity.id } }
            if others > 0 { _ = try await removeNode(identity.id.raw) }
        }
        try Turn(kind: .leave, node: nil).write(membership.dataDirectory)
        log.notice("this node leaves its cluster", metadata: ["cluster": "\(cluster.clusterID)"])
        membership.turn()
    }

    static func hex(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    static func bytes(hex: String) -> [UInt8]? {
        let digits = Array(hex.utf8)
        guard digits.count.isMultiple(of: 2) else { return nil }
        var bytes: [UInt8] = []
        for place in stride(from: 0, to: digits.count, by: 2) {
            guard let byte = UInt8(String(decoding: digits[place...place + 1], as: UTF8.self), radix: 16) else {
                return nil
            }
            bytes.append(byte)
        }
        return bytes
    }
}

extension JoinTokenView {
    init(_ row: JoinTokenRow, token: String?) {
        self.init(
            id: row.id, token: token, role: row.role.rawValue, usesLeft: row.usesLeft, createdAt: row.createdAt,
            expiresAt: row.expiresAt)
    }
}
