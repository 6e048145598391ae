// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import Testing
import X509

@testable import Daemon

@Suite struct IdentityProofTests {
    private let authority: CertificateAuthority
    private let subject = CertificateAuthority.Subject(name: "n2", node: "nodeid", clusterID: "c1")
    private let own: CertificateRequest
    /// Issued so long ago that it has expired.
    private let certificate: String

    init() throws {
        let past = Date() - 200 * 86_400
        authority = try CertificateAuthority.make(clusterID: "c1", now: past)
        own = try CertificateRequest(name: "n2")
        certificate = try CertificateAuthority.text(of: authority.issue(own.request, to: subject, now: past))
    }

    private func proof(certificate: String? = nil, key: CertificateRequest? = nil) throws -> IdentityProof {
        try IdentityProof(
            certificate: certificate ?? self.certificate, key: try (key ?? own).keyText,
            request: try CertificateRequest(name: "n2").request)
    }

    private func refusal(_ proof: IdentityProof, by authorities: [String]? = nil) throws -> Problem? {
        let authorities = try authorities ?? [authority.certificateText]
        do throws(Problem) {
            _ = try proof.verify(by: authorities)
            return nil
        } catch { return error }
    }

    @Test func `who has the key of an expired certificate is who it names`() throws {
        let claim = try proof().verify(by: [authority.certificateText])
        #expect(claim.clusterID == "c1" && claim.node == "nodeid")
        #expect(Date(claim.notAfter) < Date())
    }

    @Test func `another key, another authority, another request or no node proves nothing`() throws {
        let stranger = try CertificateRequest(name: "n2")
        #expect(try refusal(proof(key: stranger))?.code == .unauthenticated)
        let foreign = try CertificateAuthority.make(clusterID: "c1", now: Date())
        #expect(try refusal(proof(), by: [foreign.certificateText])?.detail.contains("not signed") == true)
        #expect(try refusal(proof(), by: [])?.code == .unauthenticated)
        let forged = try CertificateAuthority.text(of: foreign.issue(own.request, to: subject, now: Date()))
        #expect(try refusal(proof(certificate: forged))?.code == .unauthenticated)
        // Somebody in between exchanges the request for his own.
        var exchanged = try proof()
        exchanged.request = try stranger.request.serializeAsPEM().pemString
        #expect(try refusal(exchanged)?.code == .unauthenticated)
        // The authority's own certificate names no node.
        var authorityItself = try proof()
        authorityItself.certificate = try authority.certificateText
        #expect(try refusal(authorityItself)?.code == .unauthenticated)
    }

    @Test(arguments: ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
    func `what cannot be read is refused`(text: String) throws {
        let good = try proof()
        for place in 0..<3 {
            var bad = good
            switch place {
            case 0: bad.certificate = text
            case 1: bad.request = text
            default: bad.signature = text
            }
            #expect(try refusal(bad) != nil)
        }
    }
}
