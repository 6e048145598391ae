// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import GRDB
public import Raft

/// Changes of the state that no log entry makes: by a person, offline, when the cluster itself is lost.
extension StateMachine {
    /// Makes this state the beginning of a new cluster, with everything in it as it was: for a survivor whose log goes on.
    ///
    /// Repeating it with the same id changes nothing.
    public func beginCluster(id: String) throws {
        try database.write { db in
            try db.run(
                "UPDATE meta SET previous_cluster_id = cluster_id, cluster_id = ? WHERE id = 1 AND cluster_id != ?",
                [id, id])
        }
    }

    /// Makes this state, of a snapshot, the beginning of a new cluster whose log begins after `position`.
    ///
    /// Events are forgotten: `position` must lie above every index the old cluster can have reached, so that nobody who
    /// watched it takes new events for old ones.
    public func restore(clusterID: String, membership: Membership, at position: LogPosition) throws {
        try database.write { db in
            let index = Int64(bitPattern: position.index)
            try db.run("DELETE FROM events")
            try db.run(
                """
                UPDATE meta SET previous_cluster_id = CASE cluster_id WHEN ? THEN previous_cluster_id ELSE cluster_id END,
                    cluster_id = ?, applied_index = ?, applied_term = ?, configuration_index = ?, membership = ?,
                    events_compacted = ?
                WHERE id = 1
                """,
                [
                    clusterID, clusterID, index, Int64(bitPattern: position.term), index,
                    Data(membership.encoded()), index,
                ])
        }
    }
}
