// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
internal import Model
internal import NIOSSL
internal import Store
internal import Synchronization
internal import X509

/// PEM files: the cluster's authority, this member's certificate (intermediates after it) and its private key.
struct CertificateFiles: Hashable, Sendable {
    var authority: String
    var certificate: String
    var key: String
}

/// What members show each other, read from files and checked. Both sides of every connection show a certificate of the
/// cluster's authority, over TLS 1.3.
final class PeerCertificates: Sendable {
    struct Contexts: Sendable {
        var client: NIOSSLContext
        var server: NIOSSLContext
        /// For the API: the other side may show a certificate, and is shown the authority's with the own.
        var api: NIOSSLContext
        /// End of the own certificate.
        var expiry: Date
        /// Things an operator should mend, though they do not stop the member.
        var warnings: [String]
        /// What the others are shown, and whom this member believes.
        var shown: NodeCertificate
        /// PEM by id.
        var authorities: [String: String]
        /// DNS names and URIs in the own certificate.
        var names: [String]
    }

    let files: CertificateFiles
    private let name: String
    private let contexts: Mutex<Contexts>

    /// - Parameter name: this member's; its certificate must carry it as DNS subject alternative name.
    /// - Throws: `DaemonError` naming the file and what is wrong with it.
    static func load(_ files: CertificateFiles, name: String) async throws(DaemonError) -> PeerCertificates {
        PeerCertificates(files, name: name, contexts: try await read(files, name: name, now: Date()))
    }

    private init(_ files: CertificateFiles, name: String, contexts: Contexts) {
        self.files = files
        self.name = name
        self.contexts = Mutex(contexts)
    }

    var current: Contexts { contexts.withLock { $0 } }

    /// Reads the files again; new connections use them. What they hold now stays in use when they are not good.
    func reload() async throws(DaemonError) {
        let fresh = try await Self.read(files, name: name, now: Date())
        contexts.withLock { $0 = fresh }
    }

    /// DNS names and URIs a certificate was given.
    static func names(of certificate: NIOSSLCertificate) throws -> [String] {
        names(of: try Certificate(derEncoded: try certificate.toDERBytes()))
    }

    private static func names(of certificate: Certificate) -> [String] {
        // An extension that cannot be read names nobody.
        guard let names = try? certificate.extensions.subjectAlternativeNames else { return [] }
        return names.compactMap {
            switch $0 {
            case .dnsName(let name), .uniformResourceIdentifier(let name): name
            default: nil
            }
        }
    }

    // MARK: - Reading

    private static func read(
        _ files: CertificateFiles, name: String, now: Date
    ) async throws(DaemonError) -> Contexts {
        let authorities = try certificates(in: files.authority)
        let chain = try certificates(in: files.certificate)
        let key = try privateKey(in: files.key)
        let leaf = chain[0].parsed
        try checkTimes(leaf, of: files.certificate, now: now)
        for authority in authorities { try checkTimes(authority.parsed, of: files.authority, now: now) }
        guard key.parsed.publicKey == leaf.publicKey else {
            throw DaemonError("the key `\(files.key)` does not belong to the certificate `\(files.certificate)`")
        }
        try await checkChain(chain.map(\.parsed), authorities.map(\.parsed), files)
        let names = names(of: leaf)
        guard names.contains(where: { $0.lowercased() == name.lowercased() }) else {
            let said = names.isEmpty ? "no DNS name" : names.map { "`\($0)`" }.joined(separator: ", ")
            throw DaemonError(
                "the certificate `\(files.certificate)` names \(said), but this member is `\(name)`",
                hint: "issue it with the DNS subject alternative name `\(name)`")
        }
        try checkUsage(leaf, of: files.certificate)
        do {
            return try makeContexts(authorities, chain, files, key: key.pem)
        } catch {
            throw DaemonError("TLS cannot be set up with `\(files.certificate)` and `\(files.key)`: \(error)")
        }
    }

    private static func makeContexts(
        _ authorities: [Pair], _ chain: [Pair], _ files: CertificateFiles, key: [UInt8]
    ) throws -> Contexts {
        let roots = NIOSSLTrustRoots.certificates(authorities.map(\.wire))
        let own = NIOSSLPrivateKeySource.privateKey(try NIOSSLPrivateKey(bytes: key, format: .pem))
        let shown = chain.map { NIOSSLCertificateSource.certificate($0.wire) }
        var server = TLSConfiguration.makeServerConfigurationWithMTLS(
            certificateChain: shown, privateKey: own, trustRoots: roots)
        var client = TLSConfiguration.makeClientConfiguration()
        client.trustRoots = roots
        client.certificateChain = shown
        client.privateKey = own
        server.shutdownTimeout = .seconds(1)
        client.shutdownTimeout = .seconds(1)
        server.minimumTLSVersion = .tlsv13
        client.minimumTLSVersion = .tlsv13
        // Names are checked against the list of members after the handshake: addresses come and go.
        server.certificateVerification = .noHostnameVerification
        client.certificateVerification = .noHostnameVerification
        var api = TLSConfiguration.makeServerConfiguration(
            certificateChain: shown + authorities.map { .certificate($0.wire) }, privateKey: own)
        api.minimumTLSVersion = .tlsv13
        api.trustRoots = roots
        api.certificateVerification = .optionalVerification
        api.shutdownTimeout = .seconds(1)
        var warnings: [String] = []
        if let mode = mode(of: files.key), mode & 0o077 != 0 {
            warnings.append(
                "the key `\(files.key)` can be read by others than its owner: chmod 600 \(files.key)")
        }
        var known: [String: String] = [:]
        for authority in authorities {
            known[CertificateAuthority.id(of: authority.parsed)] = try CertificateAuthority.text(of: authority.parsed)
        }
        let leaf = chain[0].parsed
        return Contexts(
            client: try NIOSSLContext(configuration: client), server: try NIOSSLContext(configuration: server),
            api: try NIOSSLContext(configuration: api), expiry: leaf.notValidAfter, warnings: warnings,
            shown: NodeCertificate(
                serial: NodeBackend.hex(Array(leaf.serialNumber.bytes)),
                authority: authorities.first { $0.parsed.publicKey.isValidSignature(leaf.signature, for: leaf) }
                    .map { CertificateAuthority.id(of: $0.parsed) } ?? "",
                notBefore: leaf.notValidBefore.timestamp, notAfter: leaf.notValidAfter.timestamp,
                trusted: known.keys.sorted()), authorities: known, names: names(of: leaf))
    }

    /// One certificate, for TLS and to be looked at.
    private struct Pair {
        var wire: NIOSSLCertificate
        var parsed: Certificate
    }

    private struct Key {
        var pem: [UInt8]
        var parsed: Certificate.PrivateKey
    }

    private static func certificates(in path: String) throws(DaemonError) -> [Pair] {
        let bytes = try contents(of: path)
        do {
            let pairs = try NIOSSLCertificate.fromPEMBytes(bytes).map {
                Pair(wire: $0, parsed: try Certificate(derEncoded: try $0.toDERBytes()))
            }
            if !pairs.isEmpty { return pairs }
        } catch {
            throw DaemonError("`\(path)` holds no certificate that can be read: \(error)", hint: "it must be PEM")
        }
        throw DaemonError("`\(path)` holds no certificate", hint: "it must be PEM")
    }

    private static func privateKey(in path: String) throws(DaemonError) -> Key {
        let bytes = try contents(of: path)
        do {
            return Key(
                pem: bytes, parsed: try Certificate.PrivateKey(pemEncoded: String(decoding: bytes, as: UTF8.self)))
        } catch {
            throw DaemonError(
                "`\(path)` holds no private key that can be read", hint: "it must be PEM and without passphrase")
        }
    }

    private static func contents(of path: String) throws(DaemonError) -> [UInt8] {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw DaemonError("cannot read `\(path)`: \(String(cString: strerror(errno)))")
        }
        guard data.count <= 1 << 20 else { throw DaemonError("`\(path)` is larger than 1 MiB: no certificate") }
        return Array(data)
    }

    private static func mode(of path: String) -> mode_t? {
        var status = stat()
        return stat(path, &status) == 0 ? status.st_mode : nil
    }

    // MARK: - Checks

    private static func checkTimes(_ certificate: Certificate, of path: String, now: Date) throws(DaemonError) {
        if now < certificate.notValidBefore {
            throw DaemonError(
                "the certificate `\(path)` is not valid before \(text(certificate.notValidBefore)), it is \(text(now))",
                hint: "see that the clock is right")
        }
        if now > certificate.notValidAfter {
            throw DaemonError(
                "the certificate `\(path)` expired at \(text(certificate.notValidAfter)), it is \(text(now))",
                hint: "issue a new one, or see that the clock is right")
        }
    }

    private static func checkChain(
        _ chain: [Certificate], _ authorities: [Certificate], _ files: CertificateFiles
    ) async throws(DaemonError) {
        var verifier = Verifier(rootCertificates: CertificateStore(authorities)) { RFC5280Policy() }
        let result = await verifier.validate(
            leaf: chain[0], intermediates: CertificateStore(chain.dropFirst()))
        guard case .validCertificate = result else {
            throw DaemonError(
                "the certificate `\(files.certificate)` is not signed by the authority in `\(files.authority)`",
                hint: "issue it with that authority, or give the right one as \"ca\"")
        }
    }

    private static func checkUsage(_ certificate: Certificate, of path: String) throws(DaemonError) {
        // Absent means any; an extension that cannot be read was refused with the chain.
        guard let usage = try? certificate.extensions.extendedKeyUsage, !usage.contains(.any) else { return }
        guard usage.contains(.clientAuth), usage.contains(.serverAuth) else {
            throw DaemonError(
                "the certificate `\(path)` is not for both ends of a connection",
                hint: "issue it with extendedKeyUsage = serverAuth, clientAuth")
        }
    }

    private static func text(_ date: Date) -> String { date.formatted(.iso8601) }
}
