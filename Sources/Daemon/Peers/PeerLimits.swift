// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

/// Bounds of what lies between members. Tests narrow them; the daemon runs with these.
struct PeerLimits: Sendable {
    /// From the first byte to the welcome.
    var handshake = TimeAmount.seconds(5)
    var connect = TimeAmount.seconds(2)
    /// The dialling side asks this often whether the other is there; unanswered `silentPings` times, the connection is dead.
    var ping = TimeAmount.seconds(1)
    var silentPings = 4
    /// Waits between attempts to connect grow from the first to the second, each cut by up to half at random.
    var retryFirst = TimeAmount.milliseconds(50)
    var retryLast = TimeAmount.seconds(1)
    /// Connections others may have open to this member, and those of them that have not been greeted yet.
    var acceptedMax = 1_024
    var greetingMax = 64

    /// Messages waiting for one peer, in bytes of memory and in number. Beyond it they are lost, as a network may lose them.
    var raftBytesMax = 32 << 20
    var raftMessagesMax = 16_384
    /// The same while there is no connection: the oldest are lost first.
    var raftUnconnectedMax = 64
    var raftUnconnectedBytesMax = 256 << 10

    /// Requests of this member to one peer that have no answer yet, in number and in bytes.
    var requestsMax = 4_096
    var requestBytesMax = 64 << 20
    /// Requests of one peer this member works on at a time, in number and in bytes.
    var servedMax = 4_096
    var servedBytesMax = 64 << 20

    /// Bytes a second of one outgoing snapshot.
    var snapshotBytesPerSecond = 20_000_000
    /// Without progress for so long, a snapshot's stream is given up.
    var snapshotStall = TimeAmount.seconds(30)
    /// For checking and installing what arrived.
    var snapshotVerdict = TimeAmount.seconds(120)
    /// Chunks sent and not yet acknowledged.
    var snapshotWindow = 4
    var snapshotsOutgoingMax = 2
    var snapshotsIncomingMax = 2

    init() {}
}
