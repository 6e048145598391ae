// SPDX-License-Identifier: Apache-2.0
internal import Model

/// What one node asks of another one, whoever leads. JSON, in a forwarded request.
enum NodeCall: Codable, Sendable {
    /// Begins to read what an app's tasks wrote there.
    case openLogs(LogsCall)
    /// The lines that follow, at most a page, after a second at the latest.
    case nextLogs(session: UInt64)
    case closeLogs(session: UInt64)
    /// The addresses its links have.
    case addresses
    /// The ways from it to all others, tried out.
    case probe
    /// Where the data of volumes lies there, and how much it is if that is to be measured.
    case volumes(VolumesCall)
    /// Ways to and from a machine that wants to join.
    case knock(KnockCall)
    /// The sender votes: what opens the cluster's secrets, from a voter that holds it.
    case clusterKey
}

/// How a machine that wants to join is tried. It does its part at the same time.
struct KnockCall: Codable, Sendable {
    var address: IPv4Address
    /// Where it listens and answers with the nonce; empty where it cannot.
    var ports: [Int]
    /// 16 bytes, hexadecimal.
    var nonce: String
}

struct KnockAnswer: Codable, Sendable {
    /// Ports that could not be reached, with why.
    var closed: [Int: String]
    /// What came to the overlay's port.
    var heard: Knocks
    /// Why that could not be tried.
    var fault: String?
}

struct VolumesCall: Codable, Sendable {
    /// Volumes of that node alone.
    var keys: [ObjectKey]
    var isMeasured: Bool
}

struct VolumeFacts: Codable, Sendable {
    var key: ObjectKey
    var path: String
    var usedBytes: Int64?
}

struct LogsCall: Codable, Sendable {
    var key: ObjectKey
    var filter: LogFilter
    /// Times up to which the reader knows the lines of a task.
    var resume: [TaskID: Timestamp]
}

/// What came of a call: a problem, or what its kind has.
struct NodeAnswer: Codable, Sendable {
    var problem: Problem?
    var session: UInt64?
    var lines: [AppLogLine]?
    /// Nothing follows these lines.
    var isEnd: Bool?
    var addresses: [TaskID: IPv4Address]?
    var paths: [PathDiagnosis]?
    var knock: KnockAnswer?
    var volumes: [VolumeFacts]?
    /// Base32 of the cluster key.
    var key: String?
}
