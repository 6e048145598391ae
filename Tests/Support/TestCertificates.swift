// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc

/// A certificate authority of a test, made with the `openssl` program: issues what members of a cluster show each other.
public struct TestAuthority: Sendable {
    /// Files of one certificate, PEM.
    public struct Issued: Hashable, Sendable {
        public var certificate: String
        public var key: String

        public init(certificate: String, key: String) {
            self.certificate = certificate
            self.key = key
        }
    }

    public static let isAvailable = Host.program("openssl") != nil

    public let directory: String
    /// The authority's own certificate, PEM.
    public let certificate: String

    /// - Parameter directory: an existing one; everything made lies in it, below `name`.
    public init(in directory: String, name: String = "ca") async throws {
        self.directory = directory + "/" + name
        certificate = self.directory + "/ca.pem"
        try FileManager.default.createDirectory(atPath: self.directory + "/issued", withIntermediateDirectories: true)
        try Data(Self.configuration(self.directory).utf8).write(to: URL(fileURLWithPath: file("openssl.cnf")))
        try Data().write(to: URL(fileURLWithPath: file("index.txt")))
        try Data("1000\n".utf8).write(to: URL(fileURLWithPath: file("serial")))
        try await Self.openssl(
            ["req", "-x509", "-config", file("openssl.cnf"), "-extensions", "authority"] + Self.newKey + [
                "-keyout", file("ca.key"), "-out", certificate, "-days", "3650", "-subj", "/CN=Test authority \(name)",
            ])
    }

    /// - Parameters:
    ///   - name: of the files and, unless `dnsNames` says otherwise, the DNS subject alternative name.
    ///   - validFrom, validTo: seconds from now.
    ///   - usage: the extended key usage; empty for none.
    public func issue(
        _ name: String, dnsNames: [String]? = nil, validFrom: Int = -3_600, validTo: Int = 86_400,
        usage: String = "serverAuth,clientAuth", as fileName: String? = nil
    ) async throws -> Issued {
        let stem = file(fileName ?? name)
        let issued = Issued(certificate: stem + ".pem", key: stem + ".key")
        let names = dnsNames ?? [name]
        var extensions = "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n"
        if !names.isEmpty { extensions += "subjectAltName = \(names.map { "DNS:\($0)" }.joined(separator: ","))\n" }
        if !usage.isEmpty { extensions += "extendedKeyUsage = \(usage)\n" }
        try Data(extensions.utf8).write(to: URL(fileURLWithPath: stem + ".ext"))
        try await Self.openssl(
            ["req", "-new", "-config", file("openssl.cnf")] + Self.newKey + [
                "-keyout", issued.key, "-out", stem + ".csr", "-subj", "/CN=\(name)",
            ])
        try await Self.openssl([
            "ca", "-batch", "-notext", "-config", file("openssl.cnf"), "-startdate", Self.time(validFrom), "-enddate",
            Self.time(validTo), "-extfile", stem + ".ext", "-in", stem + ".csr", "-out", issued.certificate,
        ])
        return issued
    }

    private func file(_ name: String) -> String { directory + "/" + name }

    private static let newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    private static func openssl(_ arguments: [String]) async throws {
        _ = try await Shell.run(["openssl"] + arguments).checked()
    }

    private static func time(_ seconds: Int) -> String {
        var moment = time_t(Date().timeIntervalSince1970) + seconds
        var parts = tm()
        gmtime_r(&moment, &parts)
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "\(parts.tm_year + 1900)" + two(parts.tm_mon + 1) + two(parts.tm_mday) + two(parts.tm_hour)
            + two(parts.tm_min) + two(parts.tm_sec) + "Z"
    }

    private static func configuration(_ directory: String) -> String {
        """
        [req]
        distinguished_name = name
        prompt = no
        [name]
        CN = test
        [authority]
        basicConstraints = critical, CA:TRUE
        keyUsage = critical, keyCertSign, cRLSign
        subjectKeyIdentifier = hash
        [ca]
        default_ca = this
        [this]
        dir = \(directory)
        new_certs_dir = $dir/issued
        database = $dir/index.txt
        serial = $dir/serial
        certificate = $dir/ca.pem
        private_key = $dir/ca.key
        default_md = sha256
        policy = any
        unique_subject = no
        [any]
        commonName = supplied
        """
    }
}
