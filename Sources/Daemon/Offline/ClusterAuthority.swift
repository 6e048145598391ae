// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Store

/// The authority of a stopped cluster and the key that opens it, in the hands of an offline verb.
struct ClusterAuthority {
    var issuing: CertificateAuthority
    /// PEM, all that are believed.
    var believed: [String]
    var key: ClusterKey
    /// Set when it was made just now, instead of the one in the state.
    var row: AuthorityRow?

    /// Nil when the state has none: the cluster is one node, or a list of peers.
    /// - Parameters:
    ///   - files: may hold the cluster's key.
    ///   - code: the recovery code, wins over the files.
    /// - Throws: `Problem` when neither opens it.
    static func open(_ state: StateMachine, files: ClusterFiles?, code: String?) throws -> ClusterAuthority? {
        let rows = try state.read { try $0.authorities() }.filter { $0.phase != .gone }
        guard let issuing = rows.first(where: { $0.phase == .issuing }) else { return nil }
        let key: ClusterKey
        if let code {
            key = try parse(code)
        } else if let held = files?.clusterKey() {
            key = held
        } else {
            throw Problem(
                .conflict, "the key of the cluster's authority is sealed, and this node does not hold what opens it",
                hint: "give the recovery code `hivemind cluster init` printed: --recovery-code-file FILE")
        }
        do throws(DaemonError) {
            return ClusterAuthority(
                issuing: try CertificateAuthority(certificate: issuing.certificate, key: key.open(issuing.sealedKey)),
                believed: rows.map(\.certificate), key: key)
        } catch {
            throw Problem(
                .conflict, code == nil ? error.message : "the recovery code is not that of this cluster",
                hint: "give the code `hivemind cluster init` printed for this cluster")
        }
    }

    static func make(clusterID: String, now: Date) throws -> ClusterAuthority {
        let (authority, key) = (try CertificateAuthority.make(clusterID: clusterID, now: now), ClusterKey())
        return ClusterAuthority(
            issuing: authority, believed: [try authority.certificateText], key: key,
            row: AuthorityRow(
                id: NodeBackend.hex(authority.digest), certificate: try authority.certificateText,
                sealedKey: try key.seal(try authority.keyText), createdAt: Clock.now()))
    }

    static func parse(_ code: String) throws(Problem) -> ClusterKey {
        guard let key = Base32.bytes(code).flatMap({ ClusterKey($0) }) else {
            throw Problem(
                .badRequest, "the recovery code is mistyped or cut off",
                hint: "thirteen groups of four letters and digits, as `hivemind cluster init` printed it")
        }
        return key
    }

    /// Certificate, key and what a voter holds, for a node as it is to be.
    func issue(to node: NodeFile, into files: ClusterFiles) throws {
        try files.issue(
            by: issuing,
            to: CertificateAuthority.Subject(name: node.name, node: node.id.raw, clusterID: node.clusterId),
            authorities: believed, now: Date())
        try files.write(key)
    }
}
