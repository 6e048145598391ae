// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model
internal import Raft

// Machines of the cluster: how they come, what is said about them, how they go.
extension Applier {
    /// More than the ids of any cluster's machines.
    static let joinTokensMax = 1_000

    // MARK: - Coming

    /// What a node says of itself. What others say of it (labels, availability, liveness, role) stays.
    func putNode(_ node: NodeRow) throws -> Applied.Outcome {
        if let refusal = try refusal(of: node) { return .refused(refusal) }
        let subnet = node.subnet.description
        if let other = try db.row("SELECT name FROM nodes WHERE subnet = ? AND id != ?", [subnet, node.id.raw]) {
            return .refused(
                Problem(
                    .conflict, "subnet \(subnet) belongs to node `\(other.text("name"))`",
                    hint: "a data directory whose node.json was lost must be started with its backup"))
        }
        guard let existing = try nodeRow(node.id) else {
            var new = node
            new.role = try role(of: node.member)
            new.joinedAt = now
            return try write(new, .created)
        }
        var next = node
        (next.role, next.pin, next.availability, next.liveness, next.joinedAt) =
            (existing.role, existing.pin, existing.availability, existing.liveness, existing.joinedAt)
        (next.labels, next.taints) = (existing.labels, existing.taints)
        return existing == next ? .done(.unchanged) : try write(next, .updated)
    }

    func admitNode(_ change: AdmitNode) throws -> Applied.Outcome {
        var node = change.node
        if let refusal = try refusal(of: node) { return .refused(refusal) }
        // Ids are no secret: whoever has a token must not get the certificate of a node that is there.
        if let existing = try nodeRow(node.id) {
            return .refused(
                Problem(
                    .conflict, "node \(existing.id) (`\(existing.name)`) is a node of this cluster already",
                    hint: "`hivemind node ls` shows them; one that never came: hivemind node remove \(existing.name)"))
        }
        guard let token = try db.row("SELECT * FROM join_tokens WHERE id = ?", [change.token]).map(JoinTokenRow.init)
        else {
            return .refused(
                Problem(
                    .unauthenticated,
                    "join token \(change.token) is not known here: revoked, or of another cluster",
                    hint: "make a new one on a node of the cluster: hivemind cluster token create"))
        }
        guard token.expiresAt > now else {
            return .refused(
                Problem(
                    .unauthenticated, "join token \(token.id) expired at \(token.expiresAt)",
                    hint: "make a new one on a node of the cluster: hivemind cluster token create"))
        }
        if token.role != .auto, node.pin != .auto, node.pin != token.role {
            return .refused(
                Problem(
                    .forbidden,
                    "join token \(token.id) is for nodes of role \(token.role.rawValue), not \(node.pin.rawValue)",
                    hint:
                        "leave --role out, or make another token: hivemind cluster token create --role \(node.pin.rawValue)"
                ))
        }
        if let left = token.usesLeft {
            guard left > 0 else {
                return .refused(
                    Problem(
                        .unauthenticated, "join token \(token.id) is used up",
                        hint: "make a new one on a node of the cluster: hivemind cluster token create"))
            }
            try db.run(
                "UPDATE join_tokens SET uses_left = ?, version = ? WHERE id = ?", [left - 1, version, token.id])
        }
        guard let subnet = try freeSubnet() else {
            return .refused(
                Problem(
                    .conflict, "no subnet is free for another node",
                    hint: "remove nodes that are gone: hivemind node remove NAME"))
        }
        node.subnet = subnet
        node.member = try nextMember()
        node.role = .observer
        if node.pin == .auto { node.pin = token.role }
        node.availability = .active
        node.liveness = .ready
        node.joinedAt = now
        return try write(node, .created)
    }

    /// Only an id that is of no use any more is replaced.
    func giveMember(_ change: NodeChange) throws -> Applied.Outcome {
        guard var node = try nodeRow(change.node) else { return .refused(Self.noNode(change.node)) }
        let membership = try StateMachine.meta(db).configuration.membership
        guard membership.removed.contains(node.member) else { return .done(.unchanged) }
        node.member = try nextMember()
        node.role = .observer
        return try write(node, .updated)
    }

    private func refusal(of node: NodeRow) throws -> Problem? {
        if let other = try db.row("SELECT id FROM nodes WHERE name = ? AND id != ?", [node.name, node.id.raw]) {
            return Problem(
                .conflict, "node name `\(node.name)` is taken by node \(other.text("id"))",
                hint:
                    "choose another --node-name; if it was an earlier attempt of this machine that did not end, remove it "
                    + "on a node of the cluster: hivemind node remove \(node.name)")
        }
        if let gone = try db.row("SELECT * FROM removed_nodes WHERE id = ?", [node.id.raw]).map(RemovedNodeRow.init) {
            return Problem(
                .conflict, "node \(gone.id) (`\(gone.name)`) was removed from the cluster at \(gone.removedAt)",
                hint: "to come back as a new node, start the daemon with an empty data directory and join again")
        }
        return nil
    }

    private func nodeRow(_ id: NodeID) throws -> NodeRow? {
        try db.row("SELECT * FROM nodes WHERE id = ?", [id.raw]).map(NodeRow.init)
    }

    private func role(of member: UInt64) throws -> NodeRow.Role {
        let membership = try StateMachine.meta(db).configuration.membership
        return membership.isVoter(member) ? .voter : membership.contains(member) ? .standby : .observer
    }

    /// Above every id that is or was in use.
    private func nextMember() throws -> UInt64 {
        let membership = try StateMachine.meta(db).configuration.membership
        let known = try db.rows("SELECT member FROM nodes UNION ALL SELECT member FROM removed_nodes ORDER BY member")
            .map { $0.index("member") }
        return ((known + membership.members + membership.removed).max() ?? 0) + 1
    }

    /// The first one nobody has. Those of removed nodes come last, the longest gone first: machines may still use them.
    private func freeSubnet() throws -> IPv4Subnet? {
        let range = try StateMachine.meta(db).ranges.containers
        let used = Set(try db.rows("SELECT subnet FROM nodes ORDER BY subnet").map { $0.text("subnet") })
        let gone = try db.rows("SELECT * FROM removed_nodes ORDER BY removed_at, member").map(RemovedNodeRow.init)
        let resting = Set(gone.map(\.subnet.description))
        for place in 0..<(UInt32(1) << UInt32(24 - min(24, range.prefix))) {
            let subnet = IPv4Subnet(IPv4Address(value: range.network.value + place << 8), prefix: 24)
            if !used.contains(subnet.description), !resting.contains(subnet.description) { return subnet }
        }
        return gone.map(\.subnet).first { !used.contains($0.description) && range.contains($0.network) }
    }

    private func write(_ node: NodeRow, _ change: StateEvent.Change) throws -> Applied.Outcome {
        try db.run(
            """
            INSERT INTO nodes (id, name, member, address, peer_address, api_address, subnet, role, pin,
                availability, liveness, labels, taints, cpu_millis, memory_bytes, version, joined_at, changed_index)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (id) DO UPDATE SET name = excluded.name, member = excluded.member, address = excluded.address,
                peer_address = excluded.peer_address, api_address = excluded.api_address, subnet = excluded.subnet,
                role = excluded.role, pin = excluded.pin, availability = excluded.availability,
                liveness = excluded.liveness, labels = excluded.labels, taints = excluded.taints,
                cpu_millis = excluded.cpu_millis, memory_bytes = excluded.memory_bytes, version = excluded.version,
                changed_index = excluded.changed_index
            """,
            [
                node.id.raw, node.name, Int64(bitPattern: node.member), node.address, node.peerAddress,
                node.apiAddress, node.subnet.description, node.role.rawValue, node.pin.rawValue,
                node.availability.rawValue, node.liveness.rawValue, try encodeText(node.labels),
                try encodeText(node.taints), node.cpuMillis, node.memoryBytes, node.version,
                node.joinedAt.milliseconds, version,
            ])
        note(.node, "", node.name, change)
        touched.nodes = true
        return .done(.changed)
    }

    // MARK: - Being

    func setNode(_ change: SetNode) throws -> Applied.Outcome {
        guard let existing = try nodeRow(change.node) else { return .refused(Self.noNode(change.node)) }
        var node = existing
        node.availability = change.availability ?? node.availability
        node.pin = change.pin ?? node.pin
        for (label, value) in change.labels.sorted(by: { $0.key < $1.key }) { node.labels[label] = value }
        node.taints = Set(node.taints).union(change.addTaints).subtracting(change.removeTaints).sorted()
        return existing == node ? .done(.unchanged) : try write(node, .updated)
    }

    func setLiveness(_ change: SetLiveness) throws -> Applied.Outcome {
        var outcome = Applied.Outcome.done(.unchanged)
        for item in change.items {
            guard var node = try nodeRow(item.node), node.liveness != item.liveness else { continue }
            node.liveness = item.liveness
            outcome = try write(node, .updated)
        }
        return outcome
    }

    // MARK: - Going

    /// The node and everything that is tied to it go at once; its ids are remembered. Who still is in the log's membership
    /// has to leave that first.
    func removeNode(_ change: NodeChange) throws -> Applied.Outcome {
        guard let node = try nodeRow(change.node) else { return .done(.unchanged) }
        guard try role(of: node.member) == .observer else {
            return .refused(
                Problem(
                    .conflict, "node `\(node.name)` is still a member of the log", hint: "remove the member first"))
        }
        let reason = Reason(.nodeLost, "node `\(node.name)` was removed from the cluster")
        let tasks = try db.rows(
            "SELECT id FROM tasks WHERE node = ? AND state NOT IN ('stopped', 'failed') ORDER BY id", [node.id.raw]
        ).map { TaskID($0.text("id")) }
        // Not wanted any more either: what ended by itself would count as one of its service for ever.
        _ = try stopTasks(StopTasks(tasks: tasks, reason: reason))
        for task in tasks { try lose(task, reason) }
        try removeVolumes(of: node.id)
        try db.run("DELETE FROM nodes WHERE id = ?", [node.id.raw])
        try db.run("DELETE FROM certificates WHERE node = ?", [node.id.raw])
        try db.run(
            "INSERT OR REPLACE INTO removed_nodes VALUES (?, ?, ?, ?, ?)",
            [
                Int64(bitPattern: node.member), node.id.raw, node.name, node.subnet.description, now.milliseconds,
            ])
        note(.node, "", node.name, .deleted)
        touched.nodes = true
        return .done(.changed)
    }

    /// Ends a task whose node will not say any more how it ended.
    private func lose(_ id: TaskID, _ reason: Reason) throws {
        guard let task = try taskHead(id), !task.status.state.isTerminal else { return }
        var status = task.status
        (status.state, status.ready, status.reason) = (.failed, false, reason)
        // Not wanted any more, so that another takes its place.
        _ = try stopTasks(StopTasks(tasks: [id], reason: reason))
        _ = try recordTasks(RecordTasks(reports: [TaskReport(task: id, status: status)]))
    }

    static func noNode(_ id: NodeID) -> Problem {
        Problem(.notFound, "no node \(id)", hint: "`hivemind node ls` shows what there is")
    }

    // MARK: - Tokens

    func putJoinToken(_ token: JoinTokenRow) throws -> Applied.Outcome {
        // What has expired is of no use to anybody, and makes room.
        try db.run("DELETE FROM join_tokens WHERE expires_at <= ?", [now.milliseconds])
        let count = try db.row("SELECT count(*) AS n FROM join_tokens")?.integer("n") ?? 0
        guard count < Self.joinTokensMax else {
            return .refused(
                Problem(
                    .conflict, "there are \(count) join tokens already",
                    hint: "revoke some: hivemind cluster token revoke ID"))
        }
        try db.run(
            "INSERT INTO join_tokens VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                token.id, token.hash, token.role.rawValue, token.usesLeft, token.createdAt.milliseconds,
                token.expiresAt.milliseconds, version,
            ])
        return .done(.created)
    }

    func rotateJoinToken(_ change: RotateJoinToken) throws -> Applied.Outcome {
        guard let old = try db.row("SELECT * FROM join_tokens WHERE id = ?", [change.id]).map(JoinTokenRow.init) else {
            return .refused(
                Problem(.notFound, "no join token `\(change.id)`", hint: "`hivemind cluster token ls` shows them"))
        }
        guard old.expiresAt > now, old.usesLeft != 0 else {
            return .refused(
                Problem(
                    .conflict,
                    "join token \(old.id) \(old.usesLeft == 0 ? "is used up" : "expired at \(old.expiresAt)")",
                    hint: "make a new one: hivemind cluster token create"))
        }
        // A new id, too: an application that was checked against the old secret must find nothing when it is applied.
        try db.run("DELETE FROM join_tokens WHERE id = ?", [old.id])
        let life = old.expiresAt.milliseconds - old.createdAt.milliseconds
        return try putJoinToken(
            JoinTokenRow(
                id: change.newID, hash: change.hash, role: old.role, usesLeft: old.usesLeft, createdAt: now,
                expiresAt: now + life))
    }

    func removeJoinToken(_ change: JoinTokenChange) throws -> Applied.Outcome {
        guard try db.row("SELECT id FROM join_tokens WHERE id = ?", [change.id]) != nil else {
            return .done(.unchanged)
        }
        try db.run("DELETE FROM join_tokens WHERE id = ?", [change.id])
        return .done(.changed)
    }
}
