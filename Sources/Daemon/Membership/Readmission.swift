// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import HTTPClient
internal import Logging
internal import Model
internal import Store
internal import X509

/// A node whose certificate opens no connection any more asks for another one: at the API of the other nodes, whose own
/// certificates it checks, with a proof that it is who it was.
struct Readmission: Sendable {
    static let limits = HTTPLimits(
        connect: .seconds(2), total: .seconds(6), stall: .seconds(6), bodyBytesMax: 1 << 20)
    /// Between two rounds of asking; the first pause is the shortest, each other one twice as long.
    static let pauses = Duration.milliseconds(250)...Duration.seconds(4)

    let clusterID: String
    let own: NodeID
    let name: String
    let state: StateMachine
    let files: ClusterFiles
    let log: Logger
    private let client = HTTPClient()

    init(clusterID: String, own: NodeID, name: String, state: StateMachine, files: ClusterFiles, log: Logger) {
        self.clusterID = clusterID
        self.own = own
        self.name = name
        self.state = state
        self.files = files
        self.log = log
    }

    // MARK: - An expired certificate

    /// End of the certificate on disk; nil when there is none that can be read, which others say better.
    func expiry() -> Date? {
        text(of: files.certificates.certificate).flatMap { try? Certificate(pemEncoded: $0) }?.notValidAfter
    }

    /// Before this node connects to anybody: waits until it has a certificate that is good, when its own has expired.
    /// - Throws: `DaemonError` when the cluster does not take it back.
    func renewIfExpired() async throws {
        guard let expiry = expiry(), expiry <= Date() else { return }
        log.warning(
            "this node's certificate has expired, it asks for another one",
            metadata: ["expired": "\(expiry.formatted(.iso8601))"])
        var faults: [String] = []
        var pause = Self.pauses.lowerBound
        while true {
            do {
                if try await renew(&faults) { return }
            } catch let problem as Problem where [.forbidden, .unauthenticated].contains(problem.code) {
                throw DaemonError(
                    "this node's certificate expired at \(expiry.formatted(.iso8601)) and the cluster does not renew it: "
                        + problem.detail, hint: problem.hint)
            }
            log.warning(
                "nobody renews this node's certificate yet", metadata: ["tried": "\(faults.joined(separator: "; "))"])
            faults = []
            try await Task.sleep(for: pause)
            pause = min(pause * 2, Self.pauses.upperBound)
        }
    }

    /// One attempt, with whoever can.
    /// - Returns: whether there is another certificate on disk.
    /// - Throws: `Problem` when it was refused.
    func renew(_ faults: inout [String]) async throws -> Bool {
        if try await issueToItself() { return true }
        let request = try CertificateRequest(name: name)
        for address in try await addresses() {
            guard let welcome = try await prove(request, at: address, &faults) else { continue }
            try files.write(
                certificate: welcome.certificate, key: try request.keyText, authorities: welcome.authorities)
            log.notice("this node's certificate was renewed", metadata: ["by": "\(address)"])
            return true
        }
        return false
    }

    /// Who holds the key of the authority needs nobody: a cluster that was off for as long as all certificates live must
    /// come back.
    private func issueToItself() async throws -> Bool {
        guard let key = files.clusterKey() else { return false }
        let (rows, row) = try await state.read { [own] in (try $0.authorities(), try $0.node(own)) }
        let believed = rows.filter { $0.phase != .gone }
        guard let row, let issuing = believed.first(where: { $0.phase == .issuing }) else { return false }
        let authority = try CertificateAuthority(certificate: issuing.certificate, key: try key.open(issuing.sealedKey))
        try files.issue(
            by: authority, to: CertificateAuthority.Subject(name: row.name, node: own.raw, clusterID: clusterID),
            authorities: believed.map(\.certificate), now: Date())
        log.notice("this node's certificate had expired: as a voter it issued another one to itself")
        return true
    }

    // MARK: - Asking others

    private func text(of path: String) -> String? {
        FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) }
    }

    /// APIs of the other nodes.
    private func addresses() async throws -> [String] {
        try await state.read { try $0.nodes() }.filter { $0.id != own && !$0.apiAddress.isEmpty }.map(\.apiAddress)
    }

    private func trust() throws -> HTTPRequest.Trust {
        guard let authorities = text(of: files.certificates.authority) else {
            throw DaemonError("cannot read `\(files.certificates.authority)`")
        }
        return .authority(authorities)
    }

    /// - Returns: nil when nobody answers there, or nobody leads; `faults` says which.
    /// - Throws: `Problem` when the node is refused.
    private func prove(
        _ request: CertificateRequest, at address: String, _ faults: inout [String]
    ) async throws -> JoinWelcome? {
        guard let certificate = text(of: files.certificates.certificate), let key = text(of: files.certificates.key)
        else { throw DaemonError("cannot read `\(files.certificates.certificate)` and its key") }
        let proof = try IdentityProof(certificate: certificate, key: key, request: request.request)
        let answer: HTTPResponse
        do {
            answer = try await client.send(
                HTTPRequest(
                    method: "POST", url: "https://\(address)/v1/renew", headers: ["Content-Type": "application/json"],
                    body: .bytes(Array(try JSON.encode(proof))), limits: Self.limits, followsRedirects: false,
                    trust: try trust()))
        } catch {
            faults.append("\(address): \(error)")
            return nil
        }
        if answer.isSuccess { return try JSON.decode(JoinWelcome.self, from: Data(answer.body)) }
        let problem =
            (try? JSON.decode(Problem.self, from: Data(answer.body)))
            ?? Problem(.internal, "answers with HTTP status \(answer.status)")
        if [.forbidden, .unauthenticated].contains(problem.code) { throw problem }
        faults.append("\(address): \(problem.detail)")
        return nil
    }
}

extension ClusterFiles {
    /// A new key and its certificate, made by an authority that is at hand.
    func issue(
        by authority: CertificateAuthority, to subject: CertificateAuthority.Subject, authorities: [String], now: Date
    ) throws {
        let request = try CertificateRequest(name: subject.name)
        let certificate = try authority.issue(request.request, to: subject, now: now)
        try write(
            certificate: try CertificateAuthority.text(of: certificate), key: try request.keyText,
            authorities: authorities)
    }
}
