// SPDX-License-Identifier: Apache-2.0
internal import GRDB
internal import Model
internal import Raft

/// Applies commands one by one inside the transaction of their batch. The rows a command changes carry its index as their
/// version.
final class Applier {
    let db: Database
    private(set) var index: UInt64 = 0
    private(set) var now = Timestamp(milliseconds: 0)
    var touched = Touched()
    var events = EventDraft()

    init(db: Database) {
        self.db = db
    }

    /// Nothing is left of the command before.
    func begin(index: UInt64, now: Timestamp) {
        self.index = index
        self.now = now
        if !touched.isEmpty { touched = Touched() }
        events.clear()
    }

    /// - Parameter version: of the object, when it is not the one this command gives it.
    func note(
        _ kind: StateEvent.Kind, _ namespace: String, _ name: String, _ change: StateEvent.Change,
        version: UInt64? = nil
    ) {
        events.note(
            StateEvent(
                index: index, sub: 0, kind: kind, namespace: namespace, name: name, change: change,
                version: version ?? index))
    }

    func note(_ kind: StateEvent.Kind, _ key: ObjectKey, _ change: StateEvent.Change) {
        note(kind, key.namespace, key.name, change)
    }

    func noteService(_ app: ObjectKey, _ service: String, _ change: StateEvent.Change) {
        note(.service, app.namespace, "\(app.name)/\(service)", change)
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
        case .moveTasks(let change): try moveTasks(change)
        case .removeTasks(let change): try removeTasks(change)
        case .endRollout(let change): try endRollout(change)
        case .putVolume(let change): try putVolume(change)
        case .deleteVolume(let change): try deleteVolume(change)
        case .removeVolume(let change): try removeVolume(change)
        case .putConfig(let change): try putConfig(change)
        case .deleteConfig(let change): try deleteConfig(change)
        case .compareState: .done(.unchanged)
        case .putAuthority(let change): try putAuthority(change)
        case .putJoinToken(let change): try putJoinToken(change)
        case .removeJoinToken(let change): try removeJoinToken(change)
        case .admitNode(let change): try admitNode(change)
        case .removeNode(let change): try removeNode(change)
        case .setNode(let change): try setNode(change)
        case .setLiveness(let change): try setLiveness(change)
        case .rotateJoinToken(let change): try rotateJoinToken(change)
        case .changeCertificates(let change): try changeCertificates(change)
        case .changeAuthority(let change): try changeAuthority(change)
        case .putAPIToken(let change): try putAPIToken(change)
        case .removeAPIToken(let change): try removeAPIToken(change)
        case .setCluster(let change): try setCluster(change)
        case .giveMember(let change): try giveMember(change)
        case .succeedCluster(let change): try succeedCluster(change)
        }
    }

    func initializeCluster(_ change: InitializeCluster) throws -> Applied.Outcome {
        let meta = try StateMachine.meta(db)
        guard meta.clusterID.isEmpty else { return .done(.unchanged) }
        try db.run(
            "UPDATE meta SET cluster_id = ?, container_range = ?, virtual_range = ? WHERE id = 1",
            [change.clusterID, change.ranges.containers.description, change.ranges.virtual.description])
        note(.cluster, "", "membership", .created, version: meta.configuration.index)
        return .done(.created)
    }

    func setCluster(_ change: SetCluster) throws -> Applied.Outcome {
        let meta = try StateMachine.meta(db)
        guard let milliseconds = change.downAfterMilliseconds, milliseconds != meta.downAfterMilliseconds else {
            return .done(.unchanged)
        }
        guard MetaRow.downAfterRange.contains(milliseconds) else {
            return .refused(
                Problem(
                    .badRequest, "a node cannot be down after \(milliseconds) ms",
                    hint: "between 3 seconds and an hour"))
        }
        try db.run("UPDATE meta SET down_after_ms = ? WHERE id = 1", [milliseconds])
        return .done(.changed)
    }

    func succeedCluster(_ change: SucceedCluster) throws -> Applied.Outcome {
        // The same outcome everywhere: where it was decided offline, the state says it already, but for the time. Each
        // of its nodes says it again.
        let meta = try StateMachine.meta(db)
        let isKnown = (meta.clusterID, meta.previousClusterID) == (change.clusterID, change.previousClusterID)
        guard !isKnown || meta.succeededAt.milliseconds == 0 else { return .done(.unchanged) }
        try db.run(
            "UPDATE meta SET cluster_id = ?, previous_cluster_id = ?, succeeded_at = ? WHERE id = 1",
            [change.clusterID, change.previousClusterID, now.milliseconds])
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
