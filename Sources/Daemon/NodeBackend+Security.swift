// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Store

/// What nodes show one another, and the authority that vouches for it.
extension NodeBackend {
    func certificates() async throws -> CertificatesView {
        _ = try duties()
        let (meta, nodes, authorities, rows) = try await state.read { view in
            (try view.meta(), try view.nodes(), try view.authorities(), try view.certificates())
        }
        let exchange = AuthorityExchange(nodes: nodes.map(\.id), authorities: authorities, certificates: rows)
        let step: String? =
            switch exchange.step {
            case .none: nil
            case .spreading: "spreading"
            case .renewing: "renewing"
            }
        let now = Clock.now()
        return CertificatesView(
            authorities: authorities.filter { $0.phase != .gone }.map {
                AuthorityStateView(id: $0.id, phase: $0.phase.rawValue, createdAt: $0.createdAt)
            },
            exchange: step.map { step in
                AuthorityExchangeView(
                    step: step,
                    waitingFor: nodes.filter { exchange.waiting.contains($0.id) }.map(\.name))
            },
            items: nodes.map { node in Self.view(of: rows.first { $0.node == node.id }, node, now: now) },
            index: meta.appliedIndex)
    }

    private static func view(of row: CertificateRow?, _ node: NodeRow, now: Timestamp) -> CertificateView {
        var view = CertificateView(node: node.name, state: node.state)
        guard let row else { return view }
        view.subject = node.name
        view.serial = row.shown.serial
        view.authority = row.shown.authority
        view.notBefore = row.shown.notBefore
        view.notAfter = row.shown.notAfter
        view.daysLeft = Int((Double(row.shown.notAfter - now) / 86_400_000).rounded(.down))
        view.renewsAt =
            Renewal.due(
                from: Date(row.shown.notBefore), to: Date(row.shown.notAfter), spread: Renewal.spread(of: node.member)
            ).timestamp
        view.isRenewing = row.isToBeRenewed
        return view
    }

    func renewCertificates(_ request: CertificateRenewRequest) async throws -> CertificatesView {
        _ = try duties()
        try await catchUp()
        var nodes: [NodeID] = []
        if let names = request.nodes {
            for name in names { nodes.append(try await nodeRow(name).id) }
        } else {
            nodes = try await state.read { try $0.nodes() }.map(\.id)
        }
        let applied = try await core.propose(.changeCertificates(.renew(nodes)), deadline: Self.writeDeadline)
        if case .refused(let problem) = applied.outcome { throw problem }
        return try await certificates()
    }

    func rotateAuthority() async throws -> CertificatesView {
        _ = try await duties().ask(.rotateAuthority)
        _ = try await readBarrier(.linearizable)
        return try await certificates()
    }
}
