// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Orchestrator
internal import Store

/// Addresses, and what lies between nodes.
extension NodeBackend {
    func networks() async throws -> ItemList<NetworkView> {
        try await list { view in
            let meta = try view.meta()
            let nodes = try view.nodes()
            let shares = try nodes.map { node in
                NetworkView.Node(
                    name: node.name, address: node.address, subnet: node.subnet,
                    used: try view.livingTasks(node: node.id).count)
            }
            return [
                NetworkView(
                    name: "containers", kind: "overlay", subnet: meta.ranges.containers,
                    used: shares.reduce(0) { $0 + $1.used }, encryption: "none", nodes: shares),
                NetworkView(
                    name: "services", kind: "virtual", subnet: meta.ranges.virtual,
                    used: try view.services().count { $0.vip != nil }, encryption: "none"),
            ]
        }
    }

    func diagnoseNetwork() async throws -> NetworkDoctorView {
        let answers = try await calls.askAll(.probe, deadline: NodeCalls.probeLimit * 2)
        let names = Dictionary(answers.map { ($0.node.id, $0.node.name) }, uniquingKeysWith: { first, _ in first })
        var (paths, silent): ([NetworkDoctorView.Path], [SilentNode]) = ([], [])
        for (node, answer) in answers {
            do {
                for path in try answer.get().paths ?? [] {
                    paths.append(
                        NetworkDoctorView.Path(
                            from: node.name, to: names[path.node] ?? path.node.raw, finding: path.finding,
                            reason: path.reason))
                }
            } catch { silent.append(SilentNode(node: node.name, why: Self.why(error))) }
        }
        return NetworkDoctorView(paths: paths, silent: silent)
    }

    /// Looks twice: what comes and goes between the state and the kernels is no finding.
    func checkAddresses() async throws -> AddressCheckView {
        var view = try await lookAtAddresses()
        guard !view.findings.isEmpty else { return view }
        try await Task.sleep(for: .seconds(1))
        let again = try await lookAtAddresses()
        let lasting = again.findings.filter { view.findings.contains($0) }
        view = AddressCheckView(compared: again.compared, findings: lasting, silent: again.silent)
        return view
    }

    private func lookAtAddresses() async throws -> AddressCheckView {
        let answers = try await calls.askAll(.addresses, deadline: .seconds(3))
        var links: [NodeID: [TaskID: IPv4Address]] = [:]
        var silent: [SilentNode] = []
        for (node, answer) in answers {
            do { links[node.id] = try answer.get().addresses ?? [:] } catch {
                silent.append(SilentNode(node: node.name, why: Self.why(error)))
            }
        }
        let check = try await state.read { view in
            AddressCheck(
                nodes: try view.nodes(), tasks: try view.tasks(), services: try view.services(),
                ranges: try view.meta().ranges)
        }
        return AddressCheckView(
            compared: links.values.reduce(0) { $0 + $1.count }, findings: check.findings(links), silent: silent)
    }

    private static func why(_ error: any Error) -> String {
        (error as? Problem)?.detail ?? (error as? PeerError)?.message ?? reason(for: error).message
    }
}
