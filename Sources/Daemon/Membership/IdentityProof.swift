// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
internal import Model
internal import SwiftASN1
internal import X509

/// What a node shows to get another certificate where its own opens no connection any more: because it expired, or because the
/// cluster goes on under another id. Good for that alone.
struct IdentityProof: Codable, Sendable {
    /// PEM, the one it has.
    var certificate: String
    /// PEM, the request for the next one.
    var request: String
    /// Base64: the request (DER), signed with the key of the certificate it has (ECDSA P-256, SHA-256). Of use to nobody who
    /// has not the key of the request.
    var signature: String

    static let purpose = "hivemind renewal 1\n"

    /// - Parameters: PEM of certificate and key as they are on disk.
    init(certificate: String, key: String, request: CertificateSigningRequest) throws {
        let key = try P256.Signing.PrivateKey(pemRepresentation: key)
        self.certificate = certificate
        self.request = try request.serializeAsPEM().pemString
        signature = try key.signature(for: try Self.said(request)).derRepresentation.base64EncodedString()
    }

    private static func said(_ request: CertificateSigningRequest) throws -> Data {
        var serializer = DER.Serializer()
        try serializer.serialize(request)
        return Data(purpose.utf8) + Data(serializer.serializedBytes)
    }

    /// Whose certificate it is.
    struct Claim: Hashable, Sendable {
        var clusterID: String
        var node: NodeID
        var notBefore: Timestamp
        var notAfter: Timestamp
    }

    /// Everything is checked but the time.
    /// - Parameter authorities: PEM.
    /// - Throws: `Problem` `unauthenticated` when it proves nothing.
    func verify(by authorities: [String]) throws(Problem) -> Claim {
        do {
            let shown = try Certificate(pemEncoded: certificate)
            let asked = try CertificateSigningRequest(pemEncoded: request)
            guard
                try authorities.contains(where: {
                    try Certificate(pemEncoded: $0).publicKey.isValidSignature(shown.signature, for: shown)
                })
            else { throw Self.refusal("is not signed by an authority of this cluster") }
            guard let key = P256.Signing.PublicKey(shown.publicKey), let bytes = Data(base64Encoded: signature),
                key.isValidSignature(
                    try P256.Signing.ECDSASignature(derRepresentation: bytes), for: try Self.said(asked))
            else { throw Self.refusal("is shown by somebody who does not have its key") }
            guard let claim = Self.claim(of: shown) else { throw Self.refusal("names no node") }
            return claim
        } catch let problem as Problem {
            throw problem
        } catch {
            throw Problem(.badRequest, "the proof of a node's identity cannot be read: \(error)")
        }
    }

    private static func refusal(_ why: String) -> Problem {
        Problem(.unauthenticated, "the certificate \(why)", hint: "empty the data directory and join again")
    }

    static func claim(of certificate: Certificate) -> Claim? {
        // An extension that cannot be read names nobody.
        guard let names = try? certificate.extensions.subjectAlternativeNames else { return nil }
        for name in names {
            guard case .uniformResourceIdentifier(let uri) = name, uri.hasPrefix("hivemind://") else { continue }
            let parts = uri.dropFirst("hivemind://".count).split(separator: "/", omittingEmptySubsequences: false)
            guard parts.count == 3, parts[1] == "nodes", !parts[0].isEmpty, !parts[2].isEmpty else { continue }
            return Claim(
                clusterID: String(parts[0]), node: NodeID(String(parts[2])),
                notBefore: certificate.notValidBefore.timestamp, notAfter: certificate.notValidAfter.timestamp)
        }
        return nil
    }
}
