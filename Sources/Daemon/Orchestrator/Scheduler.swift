// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// Picks node and address for tasks to be created.
///
/// Pure: nodes, addresses, time and generator are given.
public struct Scheduler: Sendable {
    public var nodes: [NodeRow]
    /// Per node: addresses in use and resting ones with the time they were given back.
    public var addresses: [NodeID: (used: Set<IPv4Address>, released: [IPv4Address: Timestamp])]
    public var now: Timestamp

    public init(
        nodes: [NodeRow],
        addresses: [NodeID: (used: Set<IPv4Address>, released: [IPv4Address: Timestamp])],
        now: Timestamp
    ) {
        self.nodes = nodes
        self.addresses = addresses
        self.now = now
    }

    /// Places up to `count` tasks; fewer when addresses run out, with the reason.
    public mutating func place(
        _ service: ServiceRow, count: Int, using random: inout some RandomNumberGenerator
    ) -> (tasks: [NewTask], refusal: Reason?) {
        var tasks: [NewTask] = []
        for _ in 0..<count {
            // Fewest containers first, so that nodes fill evenly.
            let ready = nodes.filter { $0.liveness == .ready && $0.availability == .active }.sorted {
                (addresses[$0.id]?.used.count ?? 0, $0.id) < (addresses[$1.id]?.used.count ?? 0, $1.id)
            }
            guard !ready.isEmpty else { return (tasks, Reason(.noNode, "no node is ready")) }
            var chosen: (NodeRow, IPv4Address)?
            for node in ready {
                let known = addresses[node.id] ?? ([], [:])
                if let address = AddressPool.next(
                    in: node.subnet, usable: AddressPool.containerOffsets(of: node.subnet), used: known.used,
                    released: known.released, now: now)
                {
                    chosen = (node, address)
                    break
                }
            }
            guard let (node, address) = chosen else {
                let size = ready.map { AddressPool.containerOffsets(of: $0.subnet).count }.reduce(0, +)
                return (
                    tasks,
                    Reason(
                        .addressExhausted, "none of \(size) container addresses is free",
                        hint:
                            "addresses given back rest for \(AddressPool.restMilliseconds / 1000) s; else scale something down"
                    )
                )
            }
            addresses[node.id, default: ([], [:])].used.insert(address)
            addresses[node.id]?.released[address] = nil
            tasks.append(
                NewTask(
                    id: TaskID(IdentifierMaker.make(using: &random)), app: service.app, service: service.name,
                    generation: service.generation, node: node.id, address: address))
        }
        return (tasks, nil)
    }
}
