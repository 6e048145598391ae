// SPDX-License-Identifier: Apache-2.0

/// What the API needs to let this node found, join or leave a cluster.
struct NodeMembership: Sendable {
    var dataDirectory: String
    /// Nil for a node that is alone.
    var cluster: PeerConfiguration?
    /// Nil where nobody can be let in: alone, or in a cluster that is a list of peers.
    var duties: LeaderDuties?
    /// The others said that this node was removed and never comes back.
    var isRemoved: @Sendable () -> Bool
    /// Begins the life that was written as a `Turn`.
    var turn: @Sendable () -> Void
}
