// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import GRDB
public import Model
public import Raft

/// Changes of the state that no log entry makes: by a person, offline, when the cluster itself is lost.
extension StateMachine {
    /// Makes this state the beginning of a new cluster, with everything in it as it was: for a survivor whose log goes on.
    ///
    /// Repeating it with the same id changes nothing.
    public func beginCluster(id: String) throws {
        try database.write { db in
            try db.run(
                """
                UPDATE meta SET previous_cluster_id = cluster_id, cluster_id = ?, succeeded_at = 0
                WHERE id = 1 AND cluster_id != ?
                """,
                [id, id])
        }
    }

    /// Makes this state, of a snapshot, the beginning of a new cluster whose log begins after `position`.
    ///
    /// Events are forgotten: `position` must lie above every index the old cluster can have reached, so that nobody who
    /// watched it takes new events for old ones.
    /// - Parameters:
    ///   - own: the node that goes on, alone, and what member it is: nothing is known of the others until they say it. Nil:
    ///     nothing is said of nodes.
    ///   - authority: takes the place of those that are in the state, and ends what they vouched for: join tokens and
    ///     certificates. Nil: they stay.
    public func restore(
        clusterID: String, membership: Membership, at position: LogPosition,
        own: (node: NodeID, member: MemberID)? = nil,
        authority: AuthorityRow? = nil
    ) throws {
        try database.write { db in
            let index = Int64(bitPattern: position.index)
            try db.run("DELETE FROM events")
            try db.run(
                """
                UPDATE meta SET previous_cluster_id = CASE cluster_id WHEN ? THEN previous_cluster_id ELSE cluster_id END,
                    cluster_id = ?, succeeded_at = 0, applied_index = ?, applied_term = ?, configuration_index = ?, membership = ?,
                    events_compacted = ?
                WHERE id = 1
                """,
                [
                    clusterID, clusterID, index, Int64(bitPattern: position.term), index,
                    Data(membership.encoded()), index,
                ])
            if let own {
                try db.run(
                    "UPDATE nodes SET liveness = 'suspect', role = 'observer', changed_index = ? WHERE id != ?",
                    [index, own.node.raw])
                try db.run(
                    "UPDATE nodes SET member = ?, liveness = 'ready', role = 'voter', changed_index = ? WHERE id = ?",
                    [Int64(bitPattern: own.member), index, own.node.raw])
            }
            if let authority {
                for table in ["authorities", "join_tokens", "certificates"] { try db.run("DELETE FROM \(table)") }
                try db.run(
                    "INSERT INTO authorities VALUES (?, ?, ?, ?, ?)",
                    [
                        authority.id, authority.certificate, authority.sealedKey, authority.createdAt.milliseconds,
                        authority.phase.rawValue,
                    ])
            }
        }
    }
}
