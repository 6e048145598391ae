// SPDX-License-Identifier: Apache-2.0
internal import X509

/// How people and tokens name a cluster's authority.
public enum AuthorityPin {
    /// SHA-256 of the public key, hexadecimal.
    /// - Parameter authority: one certificate, PEM.
    /// - Throws: what is wrong with the PEM or the certificate.
    public static func digest(of authority: String) throws -> String {
        NodeBackend.hex(CertificateAuthority.digest(of: try Certificate(pemEncoded: authority)))
    }
}
