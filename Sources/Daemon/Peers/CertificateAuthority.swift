// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
internal import Model
internal import SwiftASN1
internal import X509

/// The cluster's own authority: it signs what its nodes show one another, and nothing else.
///
/// The key stays with the voters. Everything here is a value of its arguments but for the random serial numbers.
struct CertificateAuthority: Sendable {
    static let authorityDays = 3_650
    static let nodeDays = 90
    /// How far back a certificate begins, for clocks that are behind.
    static let backdate: TimeInterval = 86_400

    let certificate: Certificate
    private let key: Certificate.PrivateKey

    /// A new authority of a new cluster.
    static func make(clusterID: String, now: Date) throws -> CertificateAuthority {
        let key = Certificate.PrivateKey(P256.Signing.PrivateKey())
        let name = try DistinguishedName {
            OrganizationName(clusterID)
            // Of each its own: whoever looks for the issuer of a certificate finds one.
            CommonName("hivemind authority \(NodeBackend.hex(Array(digest(of: key.publicKey).prefix(4))))")
        }
        let certificate = try Certificate(
            version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: key.publicKey,
            notValidBefore: now - backdate, notValidAfter: now + TimeInterval(authorityDays) * 86_400,
            issuer: name, subject: name,
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                Critical(KeyUsage(keyCertSign: true, cRLSign: true))
                SubjectKeyIdentifier(hash: key.publicKey)
            },
            issuerPrivateKey: key)
        return CertificateAuthority(certificate: certificate, key: key)
    }

    private init(certificate: Certificate, key: Certificate.PrivateKey) {
        self.certificate = certificate
        self.key = key
    }

    /// - Throws: `DaemonError` when the two are no pair or not PEM.
    init(certificate: String, key: String) throws(DaemonError) {
        do {
            self.certificate = try Certificate(pemEncoded: certificate)
            self.key = try Certificate.PrivateKey(pemEncoded: key)
        } catch {
            throw DaemonError("the cluster's authority cannot be read: \(error)")
        }
        guard self.key.publicKey == self.certificate.publicKey else {
            throw DaemonError("the authority's key does not belong to its certificate")
        }
    }

    /// PEM.
    var certificateText: String {
        get throws { try Self.text(of: certificate) }
    }

    static func text(of certificate: Certificate) throws -> String { try certificate.serializeAsPEM().pemString }

    /// PEM; for a file only its owner reads.
    var keyText: String {
        get throws { try key.serializeAsPEM().pemString }
    }

    /// What a join token carries: SHA-256 of the public key.
    var digest: [UInt8] { Self.digest(of: certificate) }

    static func digest(of authority: Certificate) -> [UInt8] {
        digest(of: authority.publicKey)
    }

    private static func digest(of key: Certificate.PublicKey) -> [UInt8] {
        Array(SHA256.hash(data: key.subjectPublicKeyInfoBytes))
    }

    /// The digest in hexadecimal, as the state names it.
    static func id(of authority: Certificate) -> String { NodeBackend.hex(digest(of: authority)) }

    /// Whom a certificate names.
    struct Subject: Hashable, Sendable {
        /// DNS subject alternative name.
        var name: String
        var node: String
        var clusterID: String

        /// Subject alternative name that says which node of which cluster this is, whatever it is called.
        var uri: String { "hivemind://\(clusterID)/nodes/\(node)" }
    }

    /// For both ends of connections between nodes. Nothing of `request` counts but its key, whose possession it proves.
    /// - Throws: `DaemonError` when the request is not signed with its own key.
    func issue(
        _ request: CertificateSigningRequest, to subject: Subject, now: Date
    ) throws(DaemonError) -> Certificate {
        guard request.publicKey.isValidSignature(request.signature, for: request) else {
            throw DaemonError("the request for a certificate is not signed with its own key")
        }
        do {
            return try Certificate(
                version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: request.publicKey,
                notValidBefore: max(now - Self.backdate, certificate.notValidBefore),
                notValidAfter: min(now + TimeInterval(Self.nodeDays) * 86_400, certificate.notValidAfter),
                issuer: certificate.subject,
                subject: try DistinguishedName {
                    OrganizationName(subject.clusterID)
                    CommonName(subject.name)
                },
                extensions: try Certificate.Extensions {
                    Critical(BasicConstraints.notCertificateAuthority)
                    Critical(KeyUsage(digitalSignature: true))
                    try ExtendedKeyUsage([.serverAuth, .clientAuth])
                    SubjectKeyIdentifier(hash: request.publicKey)
                    AuthorityKeyIdentifier(keyIdentifier: SubjectKeyIdentifier(hash: key.publicKey).keyIdentifier)
                    SubjectAlternativeNames([
                        .dnsName(subject.name), .uniformResourceIdentifier(subject.uri),
                    ])
                },
                issuerPrivateKey: key)
        } catch {
            throw DaemonError("the certificate of `\(subject.name)` cannot be made: \(error)")
        }
    }
}

/// A node's key and its request for a certificate.
struct CertificateRequest: Sendable {
    let key: Certificate.PrivateKey
    let request: CertificateSigningRequest

    /// PEM; for a file only its owner reads.
    var keyText: String {
        get throws { try key.serializeAsPEM().pemString }
    }

    init(name: String) throws {
        key = Certificate.PrivateKey(P256.Signing.PrivateKey())
        request = try CertificateSigningRequest(
            version: .v1, subject: try DistinguishedName { CommonName(name) }, privateKey: key,
            attributes: CertificateSigningRequest.Attributes(), signatureAlgorithm: .ecdsaWithSHA256)
    }
}

extension Date {
    init(_ timestamp: Timestamp) { self.init(timeIntervalSince1970: Double(timestamp.milliseconds) / 1000) }

    /// To the millisecond below.
    var timestamp: Timestamp { Timestamp(milliseconds: Int64((timeIntervalSince1970 * 1000).rounded(.down))) }
}

/// When a certificate is to be renewed: from the middle of its life on, each node at a moment of its own.
enum Renewal {
    /// Of its own for each member.
    static func spread(of member: UInt64) -> Double { Double(member % 97) / 97 }

    /// - Parameter spread: in 0..<1, of this node; what a whole cluster got in one minute is not renewed in one minute.
    static func due(from start: Date, to end: Date, spread: Double) -> Date {
        let life = end.timeIntervalSince(start)
        return start + life * (0.5 + 0.1 * spread)
    }
}
