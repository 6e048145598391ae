// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model

// The authorities of the cluster and what nodes show of them.
extension Applier {
    /// Of authorities that are gone: more than a machine that was away for years needs to know.
    static let goneAuthoritiesMax = 16

    func putAuthority(_ authority: AuthorityRow) throws -> Applied.Outcome {
        guard try db.row("SELECT id FROM authorities WHERE id = ?", [authority.id]) == nil else {
            return .done(.unchanged)
        }
        try db.run(
            "INSERT INTO authorities VALUES (?, ?, ?, ?, ?)",
            [
                authority.id, authority.certificate, authority.sealedKey, authority.createdAt.milliseconds,
                authority.phase.rawValue,
            ])
        touched.nodes = true
        return .done(.created)
    }

    func changeAuthority(_ change: AuthorityChange) throws -> Applied.Outcome {
        let view = StateView(db: db)
        let authorities = try view.authorities()
        let exchange = AuthorityExchange(
            nodes: try view.nodes().map(\.id), authorities: authorities, certificates: try view.certificates())
        if case .add(var authority) = change {
            guard exchange.step == .none else {
                return .refused(
                    Problem(
                        .conflict, "another exchange of the cluster's authority is under way",
                        hint: "see whom it waits for: hivemind security certs status"))
            }
            guard authorities.contains(where: { $0.phase == .issuing }) else {
                return .refused(
                    Problem(.conflict, "the cluster has no authority", hint: "hivemind cluster init makes one"))
            }
            authority.phase = .coming
            return try putAuthority(authority)
        }
        // Decided of a state that is past: whoever proposed it looks again.
        guard change == exchange.next else { return .done(.unchanged) }
        switch change {
        case .add: return .done(.unchanged)
        case .issue(let id):
            try db.run("UPDATE authorities SET phase = 'going' WHERE phase = 'issuing'")
            try db.run("UPDATE authorities SET phase = 'issuing' WHERE id = ?", [id])
            // They name the authority that goes: nobody could join with them.
            try db.run("DELETE FROM join_tokens")
        case .drop(let id):
            try db.run("UPDATE authorities SET phase = 'gone', sealed_key = '' WHERE id = ?", [id])
            try db.run(
                """
                DELETE FROM authorities WHERE phase = 'gone' AND id NOT IN
                    (SELECT id FROM authorities WHERE phase = 'gone' ORDER BY created_at DESC, id LIMIT ?)
                """, [Self.goneAuthoritiesMax])
        }
        touched.nodes = true
        return .done(.changed)
    }

    func changeCertificates(_ change: CertificateChange) throws -> Applied.Outcome {
        switch change {
        case .record(let node, let shown):
            guard try db.row("SELECT id FROM nodes WHERE id = ?", [node.raw]) != nil else {
                return .refused(Self.noNode(node))
            }
            let known = try db.row("SELECT * FROM certificates WHERE node = ?", [node.raw]).map(CertificateRow.init)
            guard known?.shown != shown else { return .done(.unchanged) }
            // What was asked for is done with when another serial is shown.
            let renew = known?.renewSerial == shown.serial ? known?.renewSerial : nil
            try db.run(
                "INSERT OR REPLACE INTO certificates VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    node.raw, shown.serial, shown.authority, shown.notBefore.milliseconds,
                    shown.notAfter.milliseconds, try encodeText(shown.trusted), renew, now.milliseconds,
                ])
        case .renew(let nodes):
            for node in nodes {
                try db.run("UPDATE certificates SET renew_serial = serial WHERE node = ?", [node.raw])
            }
        }
        touched.nodes = true
        return .done(.changed)
    }
}
