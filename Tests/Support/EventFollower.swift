// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Synchronization

/// Follows the events of a cluster through whichever member answers, and resumes with `Last-Event-ID` after every
/// disconnect, on a thread of its own.
public final class EventFollower: Sendable {
    public struct Event: Hashable, Sendable, CustomStringConvertible {
        public var index: Int
        public var sub: Int
        public var kind: String
        public var name: String
        public var change: String
        public var version: Int
        public var description: String { "\(index).\(sub) \(kind) \(name) \(change) at \(version)" }
    }

    private struct Record {
        var events: [Event] = []
        var faults: [String] = []
        var connections = 0
        /// The place the stream is known to have come to, by events and bookmarks.
        var place = 0
        /// Whom it listens to.
        var member: Int?
        var hasEnded = false
    }

    private let sockets: [String]
    private let choices: [Int]
    private let seed: UInt64
    private let start: Int
    private let record = Mutex(Record())
    private let ended = Mutex(false)

    /// - Parameters:
    ///   - members: whom it asks; nil for all of them.
    ///   - start: only events after this index are wanted.
    public init(_ cluster: TestCluster, members: [Int]? = nil, after start: Int, seed: UInt64) {
        sockets = cluster.members.map(\.socket)
        choices = members ?? Array(cluster.indices)
        self.start = start
        self.seed = seed
    }

    public func follow() { Thread.detachNewThread { self.run() } }

    public var events: [Event] { record.withLock { $0.events } }
    public var faults: [String] { record.withLock { $0.faults } }
    public var connections: Int { record.withLock { $0.connections } }
    public var member: Int? { record.withLock { $0.member } }
    public var place: Int { record.withLock { $0.place } }

    public func stop() async throws {
        ended.withLock { $0 = true }
        try await eventually("the follower ended") { self.record.withLock { $0.hasEnded } }
    }

    private func run() {
        var random = TestRandom(seed: seed)
        var last = "\(start)"
        while !ended.withLock({ $0 }) {
            guard let member = choices.randomElement(using: &random) else { return }
            do throws(HTTPFault) {
                // Bookmarks come every few seconds: silence beyond that is a dead member.
                let connection = try HTTPConnection(socket: sockets[member], timeout: .seconds(8))
                let reply = try connection.stream("/v1/events?kind=config", headers: [("Last-Event-ID", last)])
                guard reply.status == 200 else {
                    if reply.status / 100 == 4 { fault("\(reply.status) after \(last)") }
                    Thread.sleep(forTimeInterval: 0.02)
                    continue
                }
                record.withLock {
                    $0.connections += 1
                    $0.member = member
                }
                try read(connection, &last)
            } catch { Thread.sleep(forTimeInterval: 0.01) }
        }
        record.withLock { $0.hasEnded = true }
    }

    /// Takes frames until the connection ends. An id counts once its frame is complete.
    private func read(_ connection: HTTPConnection, _ last: inout String) throws(HTTPFault) {
        var id: String?
        var kind = ""
        var data = ""
        while !ended.withLock({ $0 }) {
            let line = try connection.line()
            if line.isEmpty {
                if let id {
                    last = id
                    note(place: id)
                }
                if !data.isEmpty { take(kind, data) }
                (id, kind, data) = (nil, "", "")
            } else if line.hasPrefix("id: ") {
                id = String(line.dropFirst(4))
            } else if line.hasPrefix("event: ") {
                kind = String(line.dropFirst(7))
            } else if line.hasPrefix("data: ") {
                data += line.dropFirst(6)
            }
        }
    }

    private func note(place id: String) {
        guard let index = Int(id.prefix { $0 != "." }) else { return fault("the id \(id) is no place") }
        record.withLock { $0.place = max($0.place, index) }
    }

    private func fault(_ text: String) { record.withLock { $0.faults.append(text) } }

    private func take(_ kind: String, _ data: String) {
        guard kind == "config", let view = try? JSONValue(parsing: data), let index = view["index"].int,
            let sub = view["sub"].int, let version = view["version"].int
        else { return fault("\(kind): \(data)") }
        let event = Event(
            index: index, sub: sub, kind: view["kind"].string ?? "", name: view["name"].string ?? "",
            change: view["change"].string ?? "", version: version)
        record.withLock { record in
            if let previous = record.events.last, (previous.index, previous.sub) >= (index, sub) {
                record.faults.append("\(event) after \(previous)")
            }
            record.events.append(event)
        }
    }
}
