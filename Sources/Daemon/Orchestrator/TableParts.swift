// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Store

/// The tables of all apps, kept app by app: nothing in one app's part depends on another app, so a change costs what the
/// apps it touches have, not what the cluster has.
struct TableParts: Sendable {
    private typealias Part = (names: NameTable, balancing: BalancingTable)

    private let node: NodeID
    private var parts: [ObjectKey: Part] = [:]
    private var silent: [NodeID: NodeRow.Liveness] = [:]

    /// - Parameter node: the one the tables are for.
    init(node: NodeID) { self.node = node }

    /// Everything anew.
    mutating func read(_ state: StateView) throws {
        silent = try Self.silent(state)
        parts = [:]
        for app in try state.apps() { parts[app.key] = try part(state, app.key) }
    }

    /// - Parameter nodes: whether something about nodes changed.
    /// - Returns: whether the tables are other than before.
    mutating func update(_ state: StateView, apps: Set<ObjectKey>, nodes: Bool) throws -> Bool {
        var touched = apps
        if nodes {
            let silent = try Self.silent(state)
            if silent != self.silent {
                self.silent = silent
                touched.formUnion(parts.keys)
            }
        }
        var isChanged = false
        for key in touched {
            let new = try part(state, key), old = parts[key]
            if new?.names == old?.names, new?.balancing == old?.balancing { continue }
            parts[key] = new
            isChanged = true
        }
        return isChanged
    }

    /// As `Tables.make` gives it for the whole state.
    func joined(index: UInt64) -> (names: NameTable, balancing: BalancingTable) {
        let sorted = parts.sorted { $0.key < $1.key }.map(\.value)
        return (
            NameTable(
                index: index, services: sorted.flatMap(\.names.services),
                clients: sorted.flatMap(\.names.clients).sorted { $0.address < $1.address }),
            BalancingTable(
                index: index, services: sorted.flatMap(\.balancing.services).sorted { $0.vip < $1.vip },
                pinned: sorted.flatMap(\.balancing.pinned).sorted { ($0.port, $0.endpoint) < ($1.port, $1.endpoint) })
        )
    }

    /// Nil for an app that is gone.
    private func part(_ state: StateView, _ key: ObjectKey) throws -> Part? {
        let services = try state.services(of: key), tasks = try state.tasks(app: key)
        guard !services.isEmpty || !tasks.isEmpty else { return nil }
        return Tables.make(
            index: 0, node: node, services: services, tasks: tasks, ports: try state.ports(of: key), silent: silent)
    }

    private static func silent(_ state: StateView) throws -> [NodeID: NodeRow.Liveness] {
        Dictionary(
            try state.nodes().filter { $0.liveness != .ready }.map { ($0.id, $0.liveness) },
            uniquingKeysWith: { first, _ in first })
    }
}
