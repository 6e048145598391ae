// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model

/// Applies one command inside the transaction of its batch. The rows it changes carry its index as their version.
final class Applier {
    let db: Database
    let index: UInt64
    let now: Timestamp
    var touched = Touched()

    init(db: Database, index: UInt64, now: Timestamp) {
        self.db = db
        self.index = index
        self.now = now
    }

    var version: Int64 { Int64(bitPattern: index) }

    func apply(_ change: Change) throws -> Applied.Outcome {
        switch change {
        case .initializeCluster(let change): try initializeCluster(change)
        case .putNode(let change): try putNode(change)
        case .putApp(let change): try putApp(change)
        case .scaleService(let change): try scaleService(change)
        case .restartApp(let change): try restartApp(change)
        case .deleteApp(let change): try deleteApp(change)
        case .removeApp(let change): try removeApp(change)
        case .assignTasks(let change): try assignTasks(change)
        case .stopTasks(let change): try stopTasks(change)
        case .recordTasks(let change): try recordTasks(change)
        case .removeTasks(let change): try removeTasks(change)
        case .endRollout(let change): try endRollout(change)
        case .putVolume(let change): try putVolume(change)
        case .deleteVolume(let change): try deleteVolume(change)
        case .removeVolume(let change): try removeVolume(change)
        case .putConfig(let change): try putConfig(change)
        case .deleteConfig(let change): try deleteConfig(change)
        }
    }

    func initializeCluster(_ change: InitializeCluster) throws -> Applied.Outcome {
        let meta = try StateMachine.meta(db)
        guard meta.clusterID.isEmpty else { return .done(.unchanged) }
        try db.run(
            "UPDATE meta SET cluster_id = ?, container_range = ?, virtual_range = ? WHERE id = 1",
            [change.clusterID, change.ranges.containers.description, change.ranges.virtual.description])
        return .done(.created)
    }

    func putNode(_ node: NodeRow) throws -> Applied.Outcome {
        if let other = try db.row("SELECT id FROM nodes WHERE name = ? AND id != ?", [node.name, node.id.raw]) {
            return .refused(
                Problem(
                    .conflict, "node name `\(node.name)` is taken by node \(other.text("id"))",
                    hint: "choose another --node-name"))
        }
        let subnet = node.subnet.description
        if let other = try db.row("SELECT name FROM nodes WHERE subnet = ? AND id != ?", [subnet, node.id.raw]) {
            return .refused(
                Problem(
                    .conflict, "subnet \(subnet) belongs to node `\(other.text("name"))`",
                    hint: "a data directory whose node.json was lost must be started with its backup"))
        }
        try db.run(
            """
            INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (id) DO UPDATE SET name = excluded.name, address = excluded.address, subnet = excluded.subnet,
                role = excluded.role, state = excluded.state, labels = excluded.labels,
                cpu_millis = excluded.cpu_millis, memory_bytes = excluded.memory_bytes, version = excluded.version
            """,
            [
                node.id.raw, node.name, node.address, node.subnet.description, node.role, node.state,
                try encodeText(node.labels), node.cpuMillis, node.memoryBytes, node.version,
            ])
        touched.nodes = true
        return .done(.changed)
    }

    // MARK: - Addresses

    /// Next virtual address for a service, or nil when the range is used up.
    func takeVirtualAddress(owner: String) throws -> IPv4Address? {
        let range = try StateMachine.meta(db).ranges.virtual
        var used: Set<IPv4Address> = []
        var released: [IPv4Address: Timestamp] = [:]
        for row in try db.rows("SELECT address, released_at FROM addresses WHERE kind = 'vip' ORDER BY address") {
            guard let address = IPv4Address(row.text("address")) else { continue }
            if let at = row.optionalTime("released_at") { released[address] = at } else { used.insert(address) }
        }
        guard
            let address = AddressPool.next(
                in: range, usable: AddressPool.virtualOffsets(of: range), used: used, released: released, now: now)
        else { return nil }
        try take(address, kind: "vip", owner: owner)
        return address
    }

    func take(_ address: IPv4Address, kind: String, owner: String) throws {
        try db.run(
            """
            INSERT INTO addresses (address, kind, owner, released_at) VALUES (?, ?, ?, NULL)
            ON CONFLICT (address) DO UPDATE SET kind = excluded.kind, owner = excluded.owner, released_at = NULL
            """,
            [address.description, kind, owner])
    }

    func releaseAddress(owner: String) throws {
        try db.run(
            "UPDATE addresses SET owner = NULL, released_at = ? WHERE owner = ?", [now.milliseconds, owner])
    }
}
