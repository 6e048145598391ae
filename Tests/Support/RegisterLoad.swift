// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc
internal import Synchronization

/// Clients that write, compare and set, read and delete configs through every member, each on a thread of its own, and
/// remember what they saw: the history that a cluster is judged by.
///
/// Every value is written once at most, so that a value read says which write it came from.
public final class RegisterLoad: Sendable {
    public struct Options: Sendable {
        public var clients = 8
        public var keys = 24
        /// Only plain writes, for measuring how long none is taken.
        public var writesOnly = false
        /// Above it a client gives up on an answer; the write is in doubt then.
        public var timeout = Duration.seconds(3)
        /// Between two requests of one client: leaves a busy machine room for the members.
        public var pause = Duration.milliseconds(2)
        /// Every value is filled up to this length, in bytes.
        public var valueBytes = 0
        public init() {}
    }

    public typealias Operation = HistoryOperation<String>

    private struct Record {
        var operations: [Operation] = []
        /// When each acknowledged write was acknowledged.
        var writes: [UInt64] = []
        /// Data by version: two members that disagree show here.
        var data: [UInt64: String] = [:]
        var faults: [String] = []
        var running = 0
        var refusals: [String: Int] = [:]
    }

    private let sockets: [String]
    private let options: Options
    private let seed: UInt64
    private let prefix: String
    private let record = Mutex(Record())
    private let ended = Mutex(false)
    /// Members that are not asked, such as one that is paused for a long time.
    private let avoided = Mutex<Set<Int>>([])

    public init(_ cluster: TestCluster, seed: UInt64, prefix: String = "key", options: Options = Options()) {
        sockets = cluster.members.map(\.socket)
        self.options = options
        self.seed = seed
        self.prefix = prefix
    }

    /// Nanoseconds of the clock that all times of a history are in.
    public static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    public func start() {
        record.withLock { $0.running = options.clients }
        for client in 0..<options.clients {
            Thread.detachNewThread {
                self.run(client)
                self.record.withLock { $0.running -= 1 }
            }
        }
    }

    public func avoid(_ members: Set<Int>) { avoided.withLock { $0 = members } }

    /// Ends the clients after what they are doing.
    public func stop() async throws {
        ended.withLock { $0 = true }
        try await eventually("the clients ended", within: .seconds(30)) { self.record.withLock { $0.running } == 0 }
    }

    /// Versions that clients were told or have read.
    public var versions: [Int] { record.withLock { $0.data.keys.map { Int($0) } } }
    /// The clients were told to end.
    public var isStopped: Bool { ended.withLock { $0 } }
    public var acknowledged: Int { record.withLock { $0.writes.count } }
    public var count: Int { record.withLock { $0.operations.count } }

    /// Waits until that many more writes are acknowledged.
    public func waitProgress(_ writes: Int, within limit: Duration = .seconds(30)) async throws {
        let wanted = acknowledged + writes
        try await eventually("\(writes) more writes are acknowledged", within: limit) { self.acknowledged >= wanted }
    }

    /// The longest time within the span in which no client had a write acknowledged.
    public func longestSilence(from start: UInt64, to end: UInt64) -> Duration {
        let times = [start] + record.withLock { $0.writes.filter { $0 > start && $0 < end } }.sorted() + [end]
        return .nanoseconds(zip(times, times.dropFirst()).map { Int64($1 - $0) }.max() ?? 0)
    }

    /// When the first write called after `start` was acknowledged.
    public func firstWrite(calledAfter start: UInt64) -> UInt64? {
        record.withLock { record in
            record.operations.filter { $0.result == .written && $0.called > start }.compactMap(\.returned).min()
        }
    }

    /// What the clients did, in numbers.
    public var summary: String {
        record.withLock { record in
            let doubt = record.operations.count { $0.result == .unknown }
            let refused = record.refusals.sorted { $0.key < $1.key }.map { "\($0.value) x \($0.key)" }
            return
                "\(record.operations.count) operations, \(record.writes.count) writes acknowledged, \(doubt) in doubt"
                + (refused.isEmpty ? "" : "; " + refused.joined(separator: ", "))
        }
    }

    // MARK: Judging

    /// Reads every key through every member, adds that to the history and asks whether registers could have done it.
    ///
    /// The final reads come after everything else: an acknowledged write that is lost, or a stale read, fits nowhere.
    /// - Throws: `TestFailure` naming the key.
    public func judge() async throws {
        try await stop()
        for member in sockets.indices {
            let connection = try HTTPConnection(socket: sockets[member], timeout: .seconds(20))
            for key in 0..<options.keys { try finalRead(name(key), over: connection, member) }
        }
        let (operations, faults) = record.withLock { ($0.operations, $0.faults) }
        guard faults.isEmpty else { throw TestFailure("\(faults.prefix(5)); \(summary)") }
        let verdict = Linearizability.check(operations)
        guard verdict == .linearizable else { throw TestFailure("\(verdict); \(summary)") }
    }

    private func finalRead(_ name: String, over connection: HTTPConnection, _ member: Int) throws {
        try eventuallyBlocking("a final read of \(name)") {
            let called = Self.now()
            let reply = try connection.exchange("GET", "/v1/configs/\(name)")
            guard reply.status == 200 || reply.status == 404 else { throw TestFailure("\(reply.status) \(reply.body)") }
            note(read: reply, name, client: -1 - member, called)
        }
    }

    private func eventuallyBlocking(_ what: String, _ body: () throws -> Void) throws {
        let end = Self.now() + 20_000_000_000
        while true {
            do {
                return try body()
            } catch let error as TestFailure {
                guard Self.now() < end else { throw TestFailure("not within 20 s: \(what); \(error)") }
                usleep(50_000)
            }
        }
    }

    // MARK: A client

    private func name(_ key: Int) -> String { "\(prefix)-\(key)" }

    private func run(_ client: Int) {
        var random = TestRandom(seed: seed &* 1_000 &+ UInt64(client))
        var connections: [Int: HTTPConnection] = [:]
        var known: [String: (data: String, version: UInt64)] = [:]
        var number = 0
        while !ended.withLock({ $0 }) {
            let away = avoided.withLock { $0 }
            let choices = sockets.indices.filter { !away.contains($0) }
            guard let member = choices.randomElement(using: &random) else { continue }
            let key = name(Int.random(in: 0..<options.keys, using: &random))
            let kind = options.writesOnly ? 0 : Int.random(in: 0..<10, using: &random)
            number += 1
            do throws(HTTPFault) {
                let connection: HTTPConnection
                if let open = connections[member], open.isUsable {
                    connection = open
                } else {
                    connection = try HTTPConnection(socket: sockets[member], timeout: options.timeout)
                    connections[member] = connection
                }
                request(kind, key, data: "\(client).\(number)", client, over: connection, &known)
            } catch {
                // It reached nobody: nothing to remember, and no need to ask this one again at once.
                count("no connection")
                usleep(2_000)
            }
            let (_, attoseconds) = options.pause.components
            usleep(UInt32(attoseconds / 1_000_000_000_000))
        }
    }

    private func request(
        _ kind: Int, _ key: String, data: String, _ client: Int, over connection: HTTPConnection,
        _ known: inout [String: (data: String, version: UInt64)]
    ) {
        let path = "/v1/configs/\(key)", body = "{\"data\": \"\(data)\(filling(data))\"}"
        let called = Self.now()
        var action = Operation.Action.read
        do throws(HTTPFault) {
            switch kind {
            case 0...2:
                action = .write(data)
                let reply = try connection.exchange("PUT", path, body: body)
                note(write: reply, action, key, data, client, called)
            case 3, 4:
                let seen = known[key]
                action = .swap(expected: seen?.data, new: data)
                let condition = seen.map { ("If-Match", "\"\($0.version)\"") } ?? ("If-None-Match", "*")
                let reply = try connection.exchange("PUT", path, body: body, headers: [condition])
                note(write: reply, action, key, data, client, called)
                known[key] = nil
            case 5 where data.hasSuffix("0"):
                action = .write(nil)
                let reply = try connection.exchange("DELETE", path)
                note(write: reply, action, key, nil, client, called)
            default:
                let reply = try connection.exchange("GET", path)
                known[key] = note(read: reply, key, client: client, called)
            }
        } catch {
            count(action == .read ? "read without answer" : "write without answer")
            add(Operation(client: client, key: key, action: action, called: called))
        }
    }

    /// Stands behind a space and is no part of what is remembered.
    private func filling(_ data: String) -> String {
        let missing = options.valueBytes - data.utf8.count - 1
        return missing > 0 ? " " + String(repeating: "x", count: missing) : ""
    }

    private func withoutFilling(_ data: String) -> String { String(data.prefix { $0 != " " }) }

    // MARK: Remembering

    private func add(_ operation: Operation) { record.withLock { $0.operations.append(operation) } }
    private func count(_ what: String) { record.withLock { $0.refusals[what, default: 0] += 1 } }
    private func fault(_ text: String) { record.withLock { $0.faults.append(text) } }

    private func code(_ reply: HTTPConnection.Reply) -> String {
        let code = (try? JSONValue(parsing: reply.body))?["code"].string ?? ""
        return "\(reply.status) \(code)"
    }

    private func note(
        write reply: HTTPConnection.Reply, _ action: Operation.Action, _ key: String, _ data: String?, _ client: Int,
        _ called: UInt64
    ) {
        let returned = Self.now()
        var operation = Operation(client: client, key: key, action: action, called: called)
        switch reply.status {
        case 200..<300:
            operation.returned = returned
            if case .swap = action { operation.result = .swapped(true) } else { operation.result = .written }
            if let data {
                guard let view = try? JSONValue(parsing: reply.body), let version = view["version"].int,
                    view["data"].string.map(withoutFilling) == data
                else { return fault("\(key): wrote \(data), was told \(reply.body)") }
                hold(data, at: UInt64(version), key)
            }
            record.withLock { $0.writes.append(returned) }
        case 412:
            guard case .swap = action else { return fault("\(key): 412 for a write without a condition") }
            operation.returned = returned
            operation.result = .swapped(false)
        case 404 where action == .write(nil):
            operation.returned = returned
            operation.result = .written
        case 400..<500: return count(code(reply))
        default: count(code(reply))
        }
        add(operation)
    }

    @discardableResult
    private func note(
        read reply: HTTPConnection.Reply, _ key: String, client: Int, _ called: UInt64
    ) -> (data: String, version: UInt64)? {
        let returned = Self.now()
        var operation = Operation(client: client, key: key, action: .read, called: called, returned: returned)
        var seen: (data: String, version: UInt64)?
        switch reply.status {
        case 200:
            guard let view = try? JSONValue(parsing: reply.body),
                let data = view["data"].string.map(withoutFilling), let version = view["version"].int
            else {
                fault("\(key): read \(reply.body)")
                return nil
            }
            seen = (data, UInt64(version))
            hold(data, at: UInt64(version), key)
            operation.result = .read(data)
        case 404: operation.result = .read(nil)
        default:
            count("read " + code(reply))
            return nil
        }
        add(operation)
        return seen
    }

    private func hold(_ data: String, at version: UInt64, _ key: String) {
        record.withLock { record in
            if let other = record.data[version], other != data {
                record.faults.append("\(key): version \(version) is \(other) and \(data)")
            }
            record.data[version] = data
        }
    }
}
