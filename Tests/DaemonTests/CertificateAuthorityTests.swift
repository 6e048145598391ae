// SPDX-License-Identifier: Apache-2.0
import Foundation
import TestSupport
import Testing
import X509

@testable import Daemon

@Suite struct `Certificate authority` {
    private let now = Date()
    private let subject = CertificateAuthority.Subject(name: "n2", node: "nodeid", clusterID: "c1")

    /// The files members are configured with, of a node of `authority`.
    private func files(
        _ authority: CertificateAuthority, in directory: TemporaryDirectory, at time: Date
    ) throws -> CertificateFiles {
        let request = try CertificateRequest(name: "n2")
        let certificate = try authority.issue(request.request, to: subject, now: time)
        return CertificateFiles(
            authority: try directory.write(authority.certificateText, to: "ca.pem"),
            certificate: try directory.write(try CertificateAuthority.text(of: certificate), to: "node.pem"),
            key: try directory.write(try request.keyText, to: "key.pem"))
    }

    @Test func `what it issues is what members take from one another`() async throws {
        let directory = try TemporaryDirectory("ca")
        defer { directory.remove() }
        let authority = try CertificateAuthority.make(clusterID: "c1", now: now)
        let loaded = try await PeerCertificates.load(try files(authority, in: directory, at: now), name: "n2")
        let days = loaded.current.expiry.timeIntervalSince(now) / 86_400
        #expect((89.9...90.1).contains(days))
        await #expect(throws: DaemonError.self) {
            _ = try await PeerCertificates.load(
                CertificateFiles(
                    authority: directory.path + "/ca.pem", certificate: directory.path + "/node.pem",
                    key: directory.path + "/key.pem"), name: "n3")
        }
    }

    @Test func `a clock that is a few hours behind takes a new certificate, an old one is refused`() async throws {
        let directory = try TemporaryDirectory("ca")
        defer { directory.remove() }
        let authority = try CertificateAuthority.make(clusterID: "c1", now: now - 200 * 86_400)
        _ = try await PeerCertificates.load(try files(authority, in: directory, at: now + 6 * 3_600), name: "n2")
        let old = try files(authority, in: directory, at: now - 91 * 86_400)
        let error = await #expect(throws: DaemonError.self) { _ = try await PeerCertificates.load(old, name: "n2") }
        #expect(error?.message.contains("expired") == true)
    }

    @Test func `its files bring it back, and only with its own key`() throws {
        let authority = try CertificateAuthority.make(clusterID: "c1", now: now)
        let again = try CertificateAuthority(certificate: authority.certificateText, key: authority.keyText)
        #expect(again.digest == authority.digest)
        #expect(authority.digest.count == 32)
        let other = try CertificateAuthority.make(clusterID: "c1", now: now)
        #expect(other.digest != authority.digest)
        #expect(throws: DaemonError.self) {
            try CertificateAuthority(certificate: authority.certificateText, key: other.keyText)
        }
        #expect(throws: DaemonError.self) { try CertificateAuthority(certificate: "no", key: "no") }
    }

    @Test func `a certificate of another cluster is not of this one`() async throws {
        let directory = try TemporaryDirectory("ca")
        defer { directory.remove() }
        let ours = try CertificateAuthority.make(clusterID: "c1", now: now)
        let theirs = try CertificateAuthority.make(clusterID: "c1", now: now)
        var mixed = try files(theirs, in: directory, at: now)
        mixed.authority = try directory.write(ours.certificateText, to: "ours.pem")
        let error = await #expect(throws: DaemonError.self) { _ = try await PeerCertificates.load(mixed, name: "n2") }
        #expect(error?.message.contains("not signed by the authority") == true)
    }

    @Test func `a request signed with another key is refused`() throws {
        let authority = try CertificateAuthority.make(clusterID: "c1", now: now)
        let honest = try CertificateRequest(name: "n2").request
        let forged = try CertificateSigningRequest(
            version: .v1, subject: honest.subject, publicKey: try CertificateRequest(name: "n2").request.publicKey,
            attributes: honest.attributes, signatureAlgorithm: honest.signatureAlgorithm, signature: honest.signature)
        #expect(throws: DaemonError.self) { try authority.issue(forged, to: subject, now: now) }
    }

    @Test func `no certificate outlives its authority`() throws {
        let authority = try CertificateAuthority.make(clusterID: "c1", now: now)
        let late = now + TimeInterval(CertificateAuthority.authorityDays - 10) * 86_400
        let certificate = try authority.issue(try CertificateRequest(name: "n2").request, to: subject, now: late)
        #expect(certificate.notValidAfter == authority.certificate.notValidAfter)
    }

    @Test func `renewal is due between the middle and three fifths of a life`() {
        let end = now + 90 * 86_400
        #expect(Renewal.due(from: now, to: end, spread: 0) == now + 45 * 86_400)
        #expect(Renewal.due(from: now, to: end, spread: 0.999) < now + 54 * 86_400)
    }
}
