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
}
