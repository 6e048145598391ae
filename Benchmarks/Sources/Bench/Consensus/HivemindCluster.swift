// SPDX-License-Identifier: Apache-2.0
import Foundation
import Synchronization

/// Daemons with simulated containers; members find each other on loopback, clients use the leader's unix socket.
final class HivemindCluster: StoreCluster {
    let name = "Hivemind"
    let members: [String]
    private let directory: String
    private let hivemind: String
    private var programs: [String: Program] = [:]

    static let nameCount = 1000

    init(directory: String, hivemind: String, members: Int) throws {
        self.directory = directory
        self.hivemind = hivemind
        self.members = (1...members).map { "m\($0)" }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        if members > 1 { try writePeers() }
        let value = String(repeating: "v", count: 256)
        try "{\"data\":\"\(value)\"}".write(toFile: "\(directory)/put.json", atomically: true, encoding: .utf8)
        try (0..<Self.nameCount).map { "http://localhost/v1/configs/k\($0)\n" }.joined()
            .write(toFile: "\(directory)/names", atomically: true, encoding: .utf8)
    }

    func socket(_ member: String) -> String { "\(directory)/\(member).sock" }

    func start(_ member: String) throws {
        guard programs[member] == nil else { return }
        var arguments = [
            hivemind, "daemon", "--runtime", "simulated", "--data-dir", "\(directory)/\(member)", "--socket",
            socket(member), "--node-name", member,
        ]
        if members.count > 1 { arguments += ["--peers", "\(directory)/\(member).peers.json"] }
        programs[member] = try Program(arguments, output: "\(directory)/\(member).log")
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
        for member in members {
            if let name = object(member, "GET", "/v1/cluster")?["leader"] as? String, members.contains(name) {
                return name
            }
        }
        return nil
    }

    func accepts(_ member: String) -> Bool {
        object(member, "PUT", "/v1/configs/probe", "{\"data\":\"probe\"}") != nil
    }

    func answers(_ member: String) -> Bool {
        object(member, "GET", "/v1/configs/probe?consistency=linearizable") != nil
    }

    func applied(_ member: String) -> UInt64? {
        (object(member, "GET", "/v1/status")?["applied_index"] as? NSNumber)?.uint64Value
    }

    /// From several connections, each with a share of the names: h2load's would all write the same ones.
    func fill(count: Int, names: Int, bytes: Int) throws {
        let path = socket(try waitForLeader())
        let body = "{\"data\":\"\(String(repeating: "v", count: bytes))\"}"
        let failure = Mutex<(any Error)?>(nil)
        let connections = 32
        let done = DispatchGroup()
        for first in 0..<connections {
            done.enter()
            Thread.detachNewThread {
                defer { done.leave() }
                do {
                    guard let connection = Connection(path) else { throw BenchError("no daemon at \(path)") }
                    for index in stride(from: first, to: count, by: connections) {
                        let name = "k\(index % names)"
                        let reply = try connection.exchange("PUT", "/v1/configs/\(name)", body)
                        guard (200..<300).contains(reply.status) else {
                            let text = String(decoding: reply.body, as: UTF8.self)
                            throw BenchError("write \(index) was not taken: \(reply.status) \(text)")
                        }
                    }
                } catch {
                    failure.withLock { $0 = error }
                }
            }
        }
        done.wait()
        if let error = failure.withLock({ $0 }) { throw error }
    }

    // MARK: Loads

    func puts() throws -> Load {
        Load(
            arguments: [
                "--h1", "-H", ":method: PUT", "-H", "content-type: application/json", "-d", "\(directory)/put.json",
                "-i", "\(directory)/names", "-B", "unix:\(socket(try waitForLeader()))",
            ], directory: directory)
    }

    func reads() throws -> Load {
        Load(
            arguments: [
                "--h1", "-i", "\(directory)/names", "-B", "unix:\(socket(try waitForLeader()))",
            ], directory: directory)
    }

    private func object(_ member: String, _ method: String, _ path: String, _ body: String? = nil) -> [String: Any]? {
        guard let connection = Connection(unix: socket(member), seconds: 1),
            let reply = try? connection.exchange(method, path, body), (200..<300).contains(reply.status)
        else { return nil }
        return (try? JSONSerialization.jsonObject(with: reply.body)) as? [String: Any]
    }

    // MARK: Peers

    private func writePeers() throws {
        func openssl(_ arguments: String...) throws { try Program.run(["openssl"] + arguments) }
        let ca = "\(directory)/ca"
        try openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "\(ca).key")
        try openssl(
            "req", "-x509", "-new", "-key", "\(ca).key", "-subj", "/CN=bench", "-days", "2", "-out", "\(ca).pem")
        let list: [[String: Any]] = members.enumerated().map { index, member in
            ["id": index + 1, "name": member, "address": "127.0.0.1:\(44841 + index)"]
        }
        for member in members {
            let own = "\(directory)/\(member)"
            try "subjectAltName=DNS:\(member)\n".write(toFile: "\(own).ext", atomically: true, encoding: .utf8)
            try openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "\(own).key")
            chmod("\(own).key", 0o600)
            try openssl("req", "-new", "-key", "\(own).key", "-subj", "/CN=\(member)", "-out", "\(own).csr")
            try openssl(
                "x509", "-req", "-in", "\(own).csr", "-CA", "\(ca).pem", "-CAkey", "\(ca).key", "-CAcreateserial",
                "-days", "2", "-extfile", "\(own).ext", "-out", "\(own).pem")
            let peers: [String: Any] = [
                "cluster_id": "bench", "self": member, "members": list, "ca": "ca.pem",
                "certificate": "\(member).pem", "key": "\(member).key",
            ]
            try JSONSerialization.data(withJSONObject: peers, options: [.sortedKeys, .prettyPrinted])
                .write(to: URL(fileURLWithPath: "\(own).peers.json"))
        }
    }
}
