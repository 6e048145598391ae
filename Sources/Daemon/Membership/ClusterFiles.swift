// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
internal import Glibc
internal import Model
internal import Raft

/// What only the voters hold: it opens the secrets of the state. Never shown, never logged.
struct ClusterKey: Sendable, CustomStringConvertible, CustomReflectable {
    static let byteCount = 32

    private let key: SymmetricKey

    init() { key = SymmetricKey(size: .bits256) }

    /// Nil unless there are 32 bytes.
    init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        key = SymmetricKey(data: bytes)
    }

    var bytes: [UInt8] { key.withUnsafeBytes { Array($0) } }

    /// What a person keeps on paper: groups of four base32 letters.
    var recoveryCode: String {
        let letters = Array(Base32.text(bytes))
        return stride(from: 0, to: letters.count, by: 4)
            .map { String(letters[$0..<min($0 + 4, letters.count)]) }.joined(separator: "-")
    }

    /// Base64 of nonce, ciphertext and tag (AES-256-GCM).
    func seal(_ text: String) throws -> String {
        guard let sealed = try AES.GCM.seal(Data(text.utf8), using: key).combined else {
            throw CryptoKitError.incorrectParameterSize
        }
        return sealed.base64EncodedString()
    }

    /// - Throws: `DaemonError` when it was sealed with another key or is damaged.
    func open(_ text: String) throws(DaemonError) -> String {
        do {
            guard let data = Data(base64Encoded: text) else { throw CryptoKitError.incorrectParameterSize }
            return String(decoding: try AES.GCM.open(try AES.GCM.SealedBox(combined: data), using: key), as: UTF8.self)
        } catch {
            throw DaemonError(
                "a secret of the cluster cannot be opened with this node's cluster key",
                hint: "the key of another cluster is in this data directory, or the state is damaged")
        }
    }

    var description: String { "cluster key" }
    var customMirror: Mirror { Mirror(self, children: []) }
}

/// `identity/` of a data directory: certificate, key and authority of a node that belongs to a cluster.
struct ClusterFiles: Sendable {
    static let directoryName = "identity"

    let directory: String

    init(dataDirectory: String) { directory = "\(dataDirectory)/\(Self.directoryName)" }

    init(directory: String) { self.directory = directory }

    var certificates: CertificateFiles {
        CertificateFiles(
            authority: directory + "/ca.pem", certificate: directory + "/node.pem", key: directory + "/node.key")
    }

    private var keyPath: String { directory + "/cluster.key" }

    private static let next = ".next"

    /// Ends an exchange of certificate and key that was cut off: both are the old ones or both the new ones.
    /// - Throws: `DaemonError`.
    func settle() throws {
        let (key, certificate) = (certificates.key + Self.next, certificates.certificate + Self.next)
        // The certificate was written last: with it both are whole, without it the key is of no use.
        guard access(certificate, F_OK) == 0 else {
            guard unlink(key) == 0 || errno == ENOENT else { throw Self.fault("remove", key) }
            return
        }
        for (from, to) in [(key, certificates.key), (certificate, certificates.certificate)] {
            guard rename(from, to) == 0 || errno == ENOENT else { throw Self.fault("rename", from) }
        }
        let opened = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard opened >= 0 else { throw Self.fault("open", directory) }
        defer { close(opened) }
        guard fsync(opened) == 0 else { throw Self.fault("sync", directory) }
    }

    private static func fault(_ verb: String, _ path: String) -> DaemonError {
        DaemonError("cannot \(verb) `\(path)`: \(String(cString: strerror(errno)))")
    }

    /// - Parameter authorities: PEM, all that are believed.
    func write(authorities: [String]) throws {
        try DurableFile.write(Data(authorities.joined(separator: "\n").utf8), to: certificates.authority)
    }

    /// - Parameters: PEM; `authorities` are all that are believed.
    func write(certificate: String, key: String, authorities: [String]) throws {
        if mkdir(directory, 0o700) != 0, errno != EEXIST {
            throw DaemonError("cannot make `\(directory)`: \(String(cString: strerror(errno)))")
        }
        try write(authorities: authorities)
        try DurableFile.write(Data(key.utf8), to: certificates.key + Self.next)
        try DurableFile.write(Data(certificate.utf8), to: certificates.certificate + Self.next)
        try settle()
    }

    /// Nil on a node that does not hold it.
    func clusterKey() -> ClusterKey? {
        FileManager.default.contents(atPath: keyPath).flatMap { Base32.bytes(String(decoding: $0, as: UTF8.self)) }
            .flatMap { ClusterKey($0) }
    }

    func write(_ key: ClusterKey) throws {
        try DurableFile.write(Data(Base32.text(key.bytes).utf8), to: keyPath)
    }
}

extension PeerConfiguration {
    /// The cluster a node came to by `cluster init` or a token; nil for a node that is alone.
    init?(_ identity: NodeIdentity, dataDirectory: String) {
        guard let place = identity.place else { return nil }
        let address = PeerAddress(host: place.advertise, port: place.peerPort)
        let own = Peer(id: identity.member, name: identity.name, address: address)
        let seeds = place.seeds.compactMap { seed in
            PeerAddress(seed.peerAddress).map {
                Peer(
                    id: seed.member, name: seed.name, address: $0,
                    uri: Self.uri(clusterID: identity.clusterID, node: seed.node),
                    formerURI: identity.formerClusterID.map { Self.uri(clusterID: $0, node: seed.node) })
            }
        }
        self.init(
            clusterID: identity.clusterID, own: own, members: [own] + seeds.filter { $0.id != own.id },
            listen: PeerAddress(host: place.advertise, port: place.peerPort),
            files: ClusterFiles(dataDirectory: dataDirectory).certificates, isFixed: false,
            api: PeerAddress(host: place.advertise, port: place.apiPort))
    }

    static func uri(clusterID: String, node: NodeID) -> String {
        CertificateAuthority.Subject(name: "", node: node.raw, clusterID: clusterID).uri
    }
}
