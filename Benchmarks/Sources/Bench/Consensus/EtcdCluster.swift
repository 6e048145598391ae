// SPDX-License-Identifier: Apache-2.0
import Foundation

/// etcd with its defaults (fsync on), everything on loopback. Clients use the leader's port.
final class EtcdCluster: StoreCluster {
    let name = "etcd"
    let members: [String]
    private let directory: String
    private var programs: [String: Program] = [:]

    init(directory: String, members: Int) throws {
        self.directory = directory
        self.members = (1...members).map { "e\($0)" }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let key = Array("k0".utf8)
        let value = [UInt8](repeating: UInt8(ascii: "v"), count: 256)
        try Self.message(Self.field(1, key) + Self.field(2, value)).write(to: URL(fileURLWithPath: file("put.grpc")))
        try Self.message(Self.field(1, key)).write(to: URL(fileURLWithPath: file("range.grpc")))
        let text = Data(key).base64EncodedString()
        try "{\"key\":\"\(text)\",\"value\":\"\(Data(value).base64EncodedString())\"}"
            .write(toFile: file("put.json"), atomically: true, encoding: .utf8)
        try "{\"key\":\"\(text)\"}".write(toFile: file("range.json"), atomically: true, encoding: .utf8)
    }

    private func file(_ name: String) -> String { "\(directory)/\(name)" }
    private func port(_ member: String) -> Int { 23790 + (members.firstIndex(of: member) ?? 0) }
    private func url(_ member: String) -> String { "http://127.0.0.1:\(port(member))" }
    private func peerURL(_ member: String) -> String { "http://127.0.0.1:\(port(member) + 100)" }

    func start(_ member: String) throws {
        guard programs[member] == nil else { return }
        programs[member] = try Program(
            [
                "etcd", "--name", member, "--data-dir", file(member), "--listen-client-urls", url(member),
                "--advertise-client-urls", url(member), "--listen-peer-urls", peerURL(member),
                "--initial-advertise-peer-urls", peerURL(member), "--initial-cluster",
                members.map { "\($0)=\(peerURL($0))" }.joined(separator: ","),
            ], output: file("\(member).log"))
    }

    func kill(_ member: String) {
        programs[member]?.kill(SIGKILL)
        programs.removeValue(forKey: member)?.wait()
    }

    func stop(_ member: String) {
        programs[member]?.kill(SIGTERM)
        programs.removeValue(forKey: member)?.wait()
    }

    func pid(_ member: String) -> pid_t? { programs[member]?.pid }

    func leader() -> String? {
        members.first { member in
            guard let status = status(member), let leader = status["leader"] as? String, leader != "0",
                let own = (status["header"] as? [String: Any])?["member_id"] as? String
            else { return false }
            return leader == own
        }
    }

    private func status(_ member: String) -> [String: Any]? { post(member, "/v3/maintenance/status", "{}") }

    func accepts(_ member: String) -> Bool {
        post(member, "/v3/kv/put", "{\"key\":\"cHJvYmU=\",\"value\":\"cHJvYmU=\"}") != nil
    }

    func answers(_ member: String) -> Bool { post(member, "/v3/kv/range", "{\"key\":\"cHJvYmU=\"}") != nil }

    func applied(_ member: String) -> UInt64? {
        (status(member)?["raftAppliedIndex"] as? String).flatMap { UInt64($0) }
    }

    /// In transactions of up to 100 puts: only what is there afterwards counts, not how it got there.
    func fill(count: Int, names: Int, bytes: Int) throws {
        let leader = try waitForLeader()
        guard let connection = Connection(port: UInt16(port(leader)), seconds: 30) else {
            throw BenchError("etcd does not answer")
        }
        let value = Data(repeating: UInt8(ascii: "v"), count: bytes).base64EncodedString()
        let size = min(100, max(1, (1 << 20) / bytes))
        for first in stride(from: 0, to: count, by: size) {
            let puts = (first..<min(count, first + size)).map { index in
                let key = Data("f\(index % names)".utf8).base64EncodedString()
                return "{\"requestPut\":{\"key\":\"\(key)\",\"value\":\"\(value)\"}}"
            }
            let reply = try connection.exchange(
                "POST", "/v3/kv/txn", "{\"success\":[\(puts.joined(separator: ","))]}")
            guard reply.status == 200 else {
                throw BenchError("etcd refused a transaction: \(String(decoding: reply.body, as: UTF8.self))")
            }
        }
    }

    // MARK: Loads

    func nativePuts() throws -> Load { try native("put.grpc", "Put") }
    func nativeReads() throws -> Load { try native("range.grpc", "Range") }
    func gatewayPuts() throws -> Load { try gateway("put.json", "put") }
    func gatewayReads() throws -> Load { try gateway("range.json", "range") }

    private func native(_ body: String, _ call: String) throws -> Load {
        Load(
            arguments: [
                "-d", file(body), "-H", "content-type: application/grpc", "-H", "te: trailers",
                "\(url(try waitForLeader()))/etcdserverpb.KV/\(call)",
            ], directory: directory)
    }

    private func gateway(_ body: String, _ call: String) throws -> Load {
        Load(
            arguments: ["--h1", "-d", file(body), "\(url(try waitForLeader()))/v3/kv/\(call)"], directory: directory)
    }

    private func post(_ member: String, _ path: String, _ body: String) -> [String: Any]? {
        guard let connection = Connection(port: UInt16(port(member)), seconds: 1),
            let reply = try? connection.exchange("POST", path, body), reply.status == 200
        else { return nil }
        return (try? JSONSerialization.jsonObject(with: reply.body)) as? [String: Any]
    }

    // MARK: Protocol buffers by hand

    private static func field(_ number: UInt8, _ bytes: [UInt8]) -> [UInt8] {
        var length: [UInt8] = []
        var rest = bytes.count
        repeat {
            length.append(UInt8(rest & 127) | (rest > 127 ? 128 : 0))
            rest >>= 7
        } while rest > 0
        return [number << 3 | 2] + length + bytes
    }

    private static func message(_ bytes: [UInt8]) -> Data {
        Data([0] + withUnsafeBytes(of: UInt32(bytes.count).bigEndian) { Array($0) } + bytes)
    }
}
