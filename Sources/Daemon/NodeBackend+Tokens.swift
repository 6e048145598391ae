// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Store

/// Tokens for the API, and whom certificates name.
extension NodeBackend {
    static let apiTokenLife = Duration.seconds(90 * 86_400)
    static let apiTokenLifeMax = Duration.seconds(3_650 * 86_400)
    static let apiTokenNameBytesMax = 64

    func apiToken(_ id: String) async throws -> APITokenRow? {
        try await state.read { try $0.apiToken(id) }
    }

    func node(named names: [String]) async throws -> String? {
        try await state.read { [identity] view in
            let clusters = [identity.clusterID, identity.formerClusterID].compactMap { $0 }
            return try view.nodes().first { node in
                clusters.contains { names.contains(PeerConfiguration.uri(clusterID: $0, node: node.id)) }
            }?.name
        }
    }

    func createAPIToken(_ request: APITokenRequest) async throws -> APITokenView {
        guard let own = membership.cluster?.api else {
            throw Problem(
                .conflict, "this node does not serve the API on TCP, so that a token would be of no use",
                hint: membership.cluster == nil
                    ? "make it the first of a cluster: hivemind cluster init" : "use the socket, as root")
        }
        guard let role = APIRole(rawValue: request.role ?? APIRole.viewer.rawValue) else {
            throw Problem(
                .badRequest, "\(Validation.shown(request.role ?? "")) is no role",
                hint: "use \(APIRole.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        let name = request.name ?? ""
        guard name.utf8.count <= Self.apiTokenNameBytesMax,
            name.unicodeScalars.allSatisfy({ $0.value >= 32 && $0.value != 127 })
        else {
            throw Problem(
                .invalidName, "\(Validation.shown(name)) is no name of a token",
                hint: "at most \(Self.apiTokenNameBytesMax) bytes of text on one line")
        }
        if let namespace = request.namespace {
            try Validation.name(namespace, kind: "namespace")
            guard role != .admin else {
                throw Problem(
                    .badRequest, "an admin is not bound to a namespace", hint: "make it an operator of `\(namespace)`")
            }
        }
        let life = try Self.apiTokenLife(request.ttl)
        var generator = SystemRandomNumberGenerator()
        func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) } }
        let (authorities, nodes) = try await state.read { (try $0.authorities(), try $0.nodes()) }
        guard let authority = authorities.first,
            let token = APIToken(identity: bytes(APIToken.identityBytes), secret: bytes(APIToken.secretBytes))
        else { throw Problem(.noLeader, "the cluster has no authority yet", hint: "try again in a moment") }
        let now = Clock.now()
        let row = APITokenRow(
            id: token.id, name: name, hash: Self.hex(Authentication.digest(of: token)), role: role,
            namespace: request.namespace, createdAt: now, expiresAt: now + Int64(life / .milliseconds(1)))
        let applied = try await core.propose(.putAPIToken(row), deadline: Self.writeDeadline)
        if case .refused(let problem) = applied.outcome { throw problem }
        log.notice(
            "an API token was made",
            metadata: ["token": "\(row.id)", "role": "\(role.rawValue)", "expires": "\(row.expiresAt)"])
        var view = APITokenView(row)
        view.token = token.text
        view.authorityDigest = authority.id
        // This node first, then some that can stand in for it.
        let others = nodes.filter { !$0.apiAddress.isEmpty && $0.liveness != .down && $0.id != identity.id }
            .sorted { $0.member < $1.member }.map(\.apiAddress)
        view.addresses = Array((["\(own)"] + others).prefix(JoinToken.addressesMax))
        return view
    }

    private static func apiTokenLife(_ ttl: String?) throws(Problem) -> Duration {
        guard let ttl else { return apiTokenLife }
        let life: Duration
        do { life = .milliseconds(try DurationText.milliseconds(ttl)) } catch {
            throw Problem(.badRequest, "ttl \(Validation.shown(ttl)): \(error.why)", hint: "a number and a unit: 30d")
        }
        guard life >= .seconds(1), life <= apiTokenLifeMax else {
            throw Problem(.badRequest, "a token lives between a second and ten years", hint: "for example 30d")
        }
        return life
    }

    func apiTokens() async throws -> ItemList<APITokenView> {
        try await list { try $0.apiTokens().map { APITokenView($0) } }
    }

    func revokeAPIToken(_ id: String) async throws -> UInt64 {
        try await catchUp()
        guard try await state.read({ try $0.apiToken(id) }) != nil else {
            throw Problem(
                .notFound, "no API token \(Validation.shown(id))", hint: "`hivemind auth token ls` shows them")
        }
        let version = try await core.propose(
            .removeAPIToken(APITokenChange(id: id)), deadline: Self.writeDeadline
        ).version
        log.notice("an API token was revoked", metadata: ["token": "\(id)"])
        return version
    }
}

extension APITokenView {
    init(_ row: APITokenRow) {
        self.init(
            id: row.id, name: row.name, role: row.role.rawValue, namespace: row.namespace, createdAt: row.createdAt,
            expiresAt: row.expiresAt)
    }
}
