// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// Compares the addresses the state gave away with those that links have. Pure.
public struct AddressCheck: Sendable {
    public var nodes: [NodeRow]
    public var tasks: [TaskRow]
    public var services: [ServiceRow]
    public var ranges: AddressRanges

    public init(nodes: [NodeRow], tasks: [TaskRow], services: [ServiceRow], ranges: AddressRanges) {
        self.nodes = nodes
        self.tasks = tasks
        self.services = services
        self.ranges = ranges
    }

    /// - Parameter links: for each node that was asked, the addresses its links have, by the task they are for.
    /// - Returns: sorted by address; a task that just comes or goes may be among them for a moment.
    public func findings(_ links: [NodeID: [TaskID: IPv4Address]]) -> [AddressFinding] {
        var found: [AddressFinding] = []
        let living = tasks.filter { !$0.status.state.isTerminal }
        for node in nodes {
            if let there = links[node.id] { found += compare(node, living.filter { $0.node == node.id }, there) }
        }
        found += doubled(living, links)
        for service in services {
            if let vip = service.vip, !ranges.virtual.contains(vip) {
                found.append(
                    AddressFinding(
                        .outside, vip, node: nil,
                        "service `\(service.app.name)/\(service.name)` has an address outside of \(ranges.virtual)",
                        hint: "report this as a bug; deleting and deploying the app again gives it another"))
            }
        }
        return found.sorted { ($0.address, $0.kind.rawValue, $0.message) < ($1.address, $1.kind.rawValue, $1.message) }
    }

    private func compare(
        _ node: NodeRow, _ living: [TaskRow], _ links: [TaskID: IPv4Address]
    ) -> [AddressFinding] {
        var found: [AddressFinding] = []
        let known = Dictionary(living.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        for (id, address) in links.sorted(by: { $0.key < $1.key }) {
            if let task = known[id] {
                if task.address != address {
                    found.append(
                        AddressFinding(
                            .wrong, address, node: node.name,
                            "the link of task \(id) has it, the state says \(task.address)",
                            hint: "hivemind app restart \(task.app.name) gives the task a new link"))
                }
            } else {
                found.append(
                    AddressFinding(
                        .leaked, address, node: node.name, "a link of task \(id) has it, and there is no such task",
                        hint: "restart the daemon of \(node.name): it removes what no task needs"))
            }
        }
        for task in living.sorted(by: { $0.id < $1.id }) {
            if !node.subnet.contains(task.address) {
                found.append(
                    AddressFinding(
                        .outside, task.address, node: node.name,
                        "task \(task.id) has an address outside of the node's \(node.subnet)",
                        hint: "hivemind app restart \(task.app.name) gives it another"))
            }
            if task.status.state == .running, task.goal == .run, links[task.id] == nil {
                found.append(
                    AddressFinding(
                        .missing, task.address, node: node.name, "task \(task.id) runs and no link has its address",
                        hint: "hivemind app restart \(task.app.name) makes it anew"))
            }
        }
        return found
    }

    private func doubled(_ living: [TaskRow], _ links: [NodeID: [TaskID: IPv4Address]]) -> [AddressFinding] {
        var holders: [IPv4Address: Set<String>] = [:]
        for task in living { holders[task.address, default: []].insert("task \(task.id)") }
        for (_, there) in links { for (id, address) in there { holders[address, default: []].insert("task \(id)") } }
        for service in services {
            if let vip = service.vip { holders[vip, default: []].insert("service \(service.app.name)/\(service.name)") }
        }
        return holders.filter { $0.value.count > 1 }.sorted { $0.key < $1.key }.map { address, names in
            AddressFinding(
                .duplicate, address, node: nil, "\(names.sorted().joined(separator: " and ")) have it",
                hint: "restart the app of one of them: hivemind app restart NAME")
        }
    }
}
