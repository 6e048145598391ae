// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
internal import HTTPTypes
internal import HummingbirdCore
internal import Logging
internal import Model
internal import NIOCore
internal import NIOSSL
internal import Store

/// Finds out who asks, before anything else of a request is looked at.
enum Authentication: Sendable {
    /// The kernel decided who may open the socket.
    case socket
    /// Over TLS: by a certificate of the cluster, or a token.
    case remote(LogGate)

    static let header = "Bearer "

    /// - Throws: `unauthenticated`, saying whether the token is absent, malformed, unknown or expired.
    func caller(_ headers: HTTPFields, _ backend: any Backend, _ channel: any Channel) async throws -> Caller {
        switch self {
        case .socket: return .root
        case .remote:
            if let text = headers[.authorization] { return try await Self.caller(text, backend) }
            if let caller = try await Self.caller(certificateOf: channel, backend) { return caller }
            throw Problem(
                .unauthenticated, "the request has no token", hint: "send `Authorization: Bearer hm_…`; \(Self.advice)")
        }
    }

    /// For what goes on after its head: nil when whoever asked may do so for ever.
    func watch(
        _ headers: HTTPFields, _ backend: any Backend, _ channel: any Channel
    ) -> (@Sendable () async throws -> Void)? {
        guard case .remote = self else { return nil }
        return { _ = try await caller(headers, backend, channel) }
    }

    private static let advice = "an admin makes one on a node: hivemind auth token create"

    // MARK: - Tokens

    private static func caller(_ text: String, _ backend: any Backend) async throws -> Caller {
        guard text.utf8.count <= header.utf8.count + APIToken.textBytesMax,
            text.prefix(header.count).lowercased() == header.lowercased(),
            let token = APIToken(String(text.dropFirst(header.count)))
        else {
            throw Problem(
                .unauthenticated, "the token is malformed: mistyped, cut off, or no API token",
                hint: "it begins with `hm_` and is one word, as `hivemind auth token create` printed it")
        }
        let row = try await backend.apiToken(token.id)
        // The same work whether there is such a token or not: an answer's time tells nothing.
        let isRight = ConstantTime.isEqual(
            digest(of: token), row.flatMap { NodeBackend.bytes(hex: $0.hash) } ?? [UInt8](repeating: 0, count: 32))
        guard isRight, let row else {
            throw Problem(
                .unauthenticated, "the token is not known here: revoked, expired long ago, or of another cluster",
                hint: advice)
        }
        guard row.expiresAt > Clock.now() else {
            throw Problem(.unauthenticated, "token \(row.id) expired at \(row.expiresAt)", hint: advice)
        }
        return Caller(
            kind: .token, name: row.name, token: row.id, role: row.role, namespace: row.namespace,
            expiresAt: row.expiresAt)
    }

    static func digest(of token: APIToken) -> [UInt8] { Array(SHA256.hash(data: Data(token.secret))) }

    // MARK: - Certificates

    /// The handshake has seen that it is signed by the cluster's authority; here it must be that of a node that is there.
    private static func caller(certificateOf channel: any Channel, _ backend: any Backend) async throws -> Caller? {
        let certificate = try await channel.nioSSL_peerCertificate().get()
        guard let certificate else { return nil }
        let names = try PeerCertificates.names(of: certificate)
        guard let name = try await backend.node(named: names) else {
            throw Problem(
                .unauthenticated, "the certificate names no node of this cluster: removed, or of another use",
                hint: "use a token instead; \(advice)")
        }
        return Caller(kind: .certificate, name: name, role: .admin)
    }

    // MARK: - Log

    /// A refusal, for whoever looks after the cluster; never what was shown.
    func note(_ problem: Problem, _ request: Request, _ channel: any Channel) {
        guard case .remote(let gate) = self, problem.code == .unauthenticated || problem.code == .forbidden else {
            return
        }
        let from = channel.remoteAddress?.ipAddress ?? "unknown"
        gate.log(
            .warning, "a request was refused", key: "\(from) \(problem.code.rawValue)",
            metadata: [
                "from": "\(from)", "method": "\(request.method.rawValue)",
                "path": "\(Validation.shown(request.uri.path))", "error": "\(problem.detail)",
            ])
    }
}

/// Comparing secrets takes as long for one that is nearly right as for any other.
enum ConstantTime {
    static func isEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        guard left.count == right.count else { return false }
        return zip(left, right).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }
}
