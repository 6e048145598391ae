// SPDX-License-Identifier: Apache-2.0
internal import GRDB
public import Model

/// The applied state at one moment: all reads of one view see the same index.
public struct StateView {
    let db: Database

    public func meta() throws -> MetaRow { try StateMachine.meta(db) }

    public func nodes() throws -> [NodeRow] {
        try db.rows("SELECT * FROM nodes ORDER BY name").map(NodeRow.init)
    }

    public func node(_ id: NodeID) throws -> NodeRow? {
        try db.row("SELECT * FROM nodes WHERE id = ?", [id.raw]).map(NodeRow.init)
    }

    /// Longest gone first.
    public func removedNodes() throws -> [RemovedNodeRow] {
        try db.rows("SELECT * FROM removed_nodes ORDER BY removed_at, member").map(RemovedNodeRow.init)
    }

    /// The one that issues first, then the newest first; also those that are gone.
    public func authorities() throws -> [AuthorityRow] {
        try db.rows("SELECT * FROM authorities ORDER BY phase = 'issuing' DESC, created_at DESC, id")
            .map(AuthorityRow.init)
    }

    public func certificates() throws -> [CertificateRow] {
        try db.rows("SELECT * FROM certificates ORDER BY node").map(CertificateRow.init)
    }

    public func certificate(of node: NodeID) throws -> CertificateRow? {
        try db.row("SELECT * FROM certificates WHERE node = ?", [node.raw]).map(CertificateRow.init)
    }

    public func joinTokens() throws -> [JoinTokenRow] {
        try db.rows("SELECT * FROM join_tokens ORDER BY created_at, id").map(JoinTokenRow.init)
    }

    public func joinToken(_ id: String) throws -> JoinTokenRow? {
        try db.row("SELECT * FROM join_tokens WHERE id = ?", [id]).map(JoinTokenRow.init)
    }

    /// Oldest first; expired ones too, for as long as they are kept.
    public func apiTokens() throws -> [APITokenRow] {
        try db.rows("SELECT * FROM api_tokens ORDER BY created_at, id").map(APITokenRow.init)
    }

    public func apiToken(_ id: String) throws -> APITokenRow? {
        try db.row("SELECT * FROM api_tokens WHERE id = ?", [id]).map(APITokenRow.init)
    }

    public func apps(namespace: String? = nil) throws -> [AppRow] {
        try db.rows(
            "SELECT * FROM apps WHERE namespace = coalesce(?, namespace) ORDER BY namespace, name", [namespace]
        ).map(AppRow.init)
    }

    public func app(_ key: ObjectKey) throws -> AppRow? {
        try db.row("SELECT * FROM apps WHERE namespace = ? AND name = ?", [key.namespace, key.name]).map(AppRow.init)
    }

    /// All services of an app, or of every app; also those leaving it.
    public func services(
        namespace: String? = nil, app: String? = nil
    ) throws -> [ServiceRow] {
        try db.rows(
            """
            \(ServiceRow.select) WHERE s.namespace = coalesce(?, s.namespace) AND s.app = coalesce(?, s.app)
            ORDER BY s.namespace, s.app, s.name
            """, [namespace, app]
        ).map(ServiceRow.init)
    }

    /// Also those leaving the app.
    public func services(of key: ObjectKey) throws -> [ServiceRow] {
        try db.rows(
            "\(ServiceRow.select) WHERE s.namespace = ? AND s.app = ? ORDER BY s.name", [key.namespace, key.name]
        ).map(ServiceRow.init)
    }

    /// Oldest first.
    public func tasks(app key: ObjectKey) throws -> [TaskRow] {
        try taskRows(
            "\(TaskRow.select) WHERE t.namespace = ? AND t.app = ? ORDER BY t.sequence",
            [key.namespace, key.name])
    }

    public func tasks(namespace: String? = nil) throws -> [TaskRow] {
        try taskRows(
            "\(TaskRow.select) WHERE t.namespace = coalesce(?, t.namespace) ORDER BY t.namespace, t.app, t.sequence",
            [namespace])
    }

    public func task(_ id: TaskID) throws -> TaskRow? {
        try db.row("\(TaskRow.select) WHERE t.id = ?", [id.raw]).map(TaskRow.init)
    }

    /// Those that are to move and have not ended, oldest first.
    public func movingTasks(limit: Int) throws -> [(id: TaskID, app: ObjectKey)] {
        try db.rows(
            """
            SELECT id, namespace, app FROM tasks
            WHERE moving = 1 AND goal = 'run' AND state NOT IN ('stopped', 'failed') ORDER BY sequence, id LIMIT ?
            """, [limit]
        ).map { (TaskID($0.text("id")), ObjectKey(namespace: $0.text("namespace"), name: $0.text("app"))) }
    }

    /// The node of a task and whether it has ended; nil when it has no row. Cheaper than the whole row.
    public func place(of id: TaskID) throws -> (node: NodeID, isEnded: Bool)? {
        try db.row("SELECT node, state IN ('stopped', 'failed') AS ended FROM tasks WHERE id = ?", [id.raw])
            .map { (NodeID($0.text("node")), $0.flag("ended")) }
    }

    /// At most two: enough to know whether a prefix is unique.
    public func tasks(prefix: String) throws -> [TaskRow] {
        try taskRows(
            "\(TaskRow.select) WHERE substr(t.id, 1, length(?)) = ? ORDER BY t.id LIMIT 2",
            [prefix, prefix])
    }

    /// Tasks of one node that have not ended, by id.
    public func livingTasks(node: NodeID) throws -> [TaskRow] {
        try taskRows(
            "\(TaskRow.select) WHERE t.node = ? AND t.state NOT IN ('stopped', 'failed') ORDER BY t.id",
            [node.raw])
    }

    /// Ids of every task of a node that still has a row: their logs are kept.
    public func taskIDs(node: NodeID) throws -> [TaskID] {
        try db.rows("SELECT id FROM tasks WHERE node = ? ORDER BY id", [node.raw]).map { TaskID($0.text("id")) }
    }

    public func rollout(app key: ObjectKey) throws -> RolloutRow? {
        try db.row(
            "SELECT * FROM rollouts WHERE namespace = ? AND app = ? ORDER BY sequence DESC LIMIT 1",
            [key.namespace, key.name]
        ).map(RolloutRow.init)
    }

    public func rollout(id: String) throws -> RolloutRow? {
        try db.row("SELECT * FROM rollouts WHERE id = ?", [id]).map(RolloutRow.init)
    }

    public func ports() throws -> [PortRow] {
        try db.rows("SELECT * FROM published_ports ORDER BY protocol, host_port").map(PortRow.init)
    }

    public func ports(of key: ObjectKey) throws -> [PortRow] {
        try db.rows(
            "SELECT * FROM published_ports WHERE namespace = ? AND app = ? ORDER BY protocol, host_port",
            [key.namespace, key.name]
        ).map(PortRow.init)
    }

    /// Services that have a port of each of their nodes for themselves.
    public func hostPorts() throws -> [PortRow] {
        try db.rows("SELECT * FROM host_ports ORDER BY protocol, host_port, namespace, app, service").map(PortRow.init)
    }

    public func volumes(namespace: String? = nil) throws -> [VolumeRow] {
        try db.rows(
            "SELECT * FROM volumes WHERE namespace = coalesce(?, namespace) ORDER BY namespace, name", [namespace]
        ).map { try volume(row: $0) }
    }

    public func volume(_ key: ObjectKey) throws -> VolumeRow? {
        try db.row("SELECT * FROM volumes WHERE namespace = ? AND name = ?", [key.namespace, key.name])
            .map { try volume(row: $0) }
    }

    private func volume(row: Row) throws -> VolumeRow {
        let key = ObjectKey(namespace: row.text("namespace"), name: row.text("name"))
        let users = try db.rows(
            "SELECT app FROM volume_users WHERE namespace = ? AND volume = ? ORDER BY app", [key.namespace, key.name]
        ).map { $0.text("app") }
        return VolumeRow(
            key: key, driver: row.text("driver"), node: row.optionalText("node").map { NodeID($0) },
            deleting: row.flag("deleting"), version: row.index("version"), createdAt: row.time("created_at"),
            users: users)
    }

    public func configs(namespace: String? = nil, prefix: String = "") throws -> [ConfigView] {
        try db.rows(
            """
            SELECT * FROM configs WHERE namespace = coalesce(?, namespace) AND substr(name, 1, length(?)) = ?
            ORDER BY namespace, name
            """, [namespace, prefix, prefix]
        ).map(config)
    }

    public func config(_ key: ObjectKey) throws -> ConfigView? {
        try db.row("SELECT * FROM configs WHERE namespace = ? AND name = ?", [key.namespace, key.name]).map(config)
    }

    private func config(_ row: Row) -> ConfigView {
        ConfigView(
            name: row.text("name"), namespace: row.text("namespace"), data: row.text("data"),
            version: row.index("version"))
    }

    /// Where volumes lie; those no task has come to yet are left out.
    public func volumeHomes() throws -> [ObjectKey: NodeID] {
        Dictionary(
            try db.rows("SELECT namespace, name, node FROM volumes WHERE node IS NOT NULL ORDER BY namespace, name")
                .map { (ObjectKey(namespace: $0.text("namespace"), name: $0.text("name")), NodeID($0.text("node"))) },
            uniquingKeysWith: { first, _ in first })
    }

    /// How many tasks of each generation of each service every node has that have not ended.
    public func taskCounts() throws -> [TaskCountRow] {
        try db.rows(TaskCountRow.select(where: "")).map(TaskCountRow.init)
    }

    /// The same for one app.
    public func taskCounts(of key: ObjectKey) throws -> [TaskCountRow] {
        try db.rows(TaskCountRow.select(where: "AND namespace = ? AND app = ?"), [key.namespace, key.name])
            .map(TaskCountRow.init)
    }

    /// What tasks of each generation have set aside for them; those without are left out.
    public func reservations() throws -> [ReservationRow] {
        try db.rows(ReservationRow.select(where: "")).map { try ReservationRow(row: $0) }
    }

    /// The same for one app.
    public func reservations(of key: ObjectKey) throws -> [ReservationRow] {
        try db.rows(ReservationRow.select(where: "AND namespace = ? AND app = ?"), [key.namespace, key.name])
            .map { try ReservationRow(row: $0) }
    }

    /// Addresses in use and resting, for placement.
    public func addresses(
        in subnet: IPv4Subnet
    ) throws -> (used: Set<IPv4Address>, released: [IPv4Address: Timestamp]) {
        var used: Set<IPv4Address> = []
        var released: [IPv4Address: Timestamp] = [:]
        // Text of a /24 begins alike, so that the key finds it; `/` follows `.`.
        let stem = subnet.prefix == 24 ? String(subnet.network.description.dropLast()) : ""
        let rows = try db.rows(
            """
            SELECT address, released_at FROM addresses
            WHERE kind = 'task' AND address >= ? AND address < ? ORDER BY address
            """, stem.isEmpty ? ["", ":"] : [stem, "\(stem.dropLast())/"])
        for row in rows {
            guard let address = IPv4Address(row.text("address")), subnet.contains(address) else { continue }
            if let at = row.optionalTime("released_at") { released[address] = at } else { used.insert(address) }
        }
        return (used, released)
    }

    /// Replicas share their spec: it is read and decoded once for each generation of a service, not once per task.
    private func taskRows(_ sql: String, _ arguments: StatementArguments) throws -> [TaskRow] {
        struct Generation: Hashable {
            var namespace: String, app: String, service: String
            var number: Int
        }
        var specs: [Generation: ServiceSpec] = [:]
        let rows = try Row.fetchCursor(try db.cachedStatement(sql: sql), arguments: arguments)
        var tasks: [TaskRow] = []
        while let row = try rows.next() {
            let generation = Generation(namespace: row[1], app: row[2], service: row[3], number: row[4])
            let spec = try specs[generation] ?? TaskRow.spec(row)
            specs[generation] = spec
            tasks.append(try TaskRow(row: row, spec: spec))
        }
        return tasks
    }
}
