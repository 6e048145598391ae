// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Model
import TestSupport
import Testing

@testable import Daemon

@Suite struct MembershipFilesTests {
    @Test func `what is sealed opens with the same key alone, and the recovery code is the key`() throws {
        let key = ClusterKey()
        let sealed = try key.seal("secret")
        #expect(!sealed.contains("secret"))
        #expect(try key.open(sealed) == "secret")
        #expect(throws: DaemonError.self) { try ClusterKey().open(sealed) }
        #expect(throws: DaemonError.self) { try key.open("AAAA") }
        let typed = key.recoveryCode.uppercased()
        #expect(try Base32.bytes(typed).flatMap { ClusterKey($0) }?.open(sealed) == "secret")
        #expect(!"\(key)".contains(key.recoveryCode))
        var dumped = ""
        dump(key, to: &dumped)
        #expect(!dumped.contains(key.recoveryCode))
    }

    /// Certificate and key of an exchange that was cut off at each of its steps.
    @Test(arguments: [
        ([], "old", "old"), (["node.key"], "old", "old"), (["node.key", "node.pem"], "new", "new"),
        (["node.pem"], "new", "new"),
    ])
    func `an exchange of certificate and key that was cut off leaves a pair`(
        left: [String], key: String, certificate: String
    ) async throws {
        try await withTemporaryDirectory("pair") { directory in
            let files = ClusterFiles(dataDirectory: directory.path)
            try files.write(certificate: "old", key: "old", authorities: ["ca"])
            for name in left { try Data("new".utf8).write(to: URL(filePath: "\(files.directory)/\(name).next")) }
            // The key was renamed, the certificate was not.
            if left == ["node.pem"] { try Data("new".utf8).write(to: URL(filePath: files.certificates.key)) }
            for _ in 0..<2 {
                try files.settle()
                #expect(try directory.read("identity/node.key") == key)
                #expect(try directory.read("identity/node.pem") == certificate)
            }
            #expect(!Host.hasFile(files.certificates.key + ".next"))
            #expect(!Host.hasFile(files.certificates.certificate + ".next"))
        }
    }

    private static func file(_ cluster: String) -> NodeFile {
        NodeFile(id: "node", name: "n", clusterId: cluster, memberId: 7)
    }

    private static let state = ["log/1", "snapshots/1", "state.sqlite", "state.sqlite-wal", "peers.json"]

    private func make(_ path: String) throws {
        for name in ["log", "snapshots"] {
            try FileManager.default.createDirectory(atPath: "\(path)/\(name)", withIntermediateDirectories: true)
        }
        for name in Self.state { try Data("old".utf8).write(to: URL(filePath: "\(path)/\(name)")) }
        try Self.file("old").write(path)
    }

    private func present(_ path: String) -> [String] { Self.state.filter { Host.hasFile("\(path)/\($0)") } }

    @Test(arguments: [true, false])
    func `a join that was written happens at the next start, wherever the last attempt ended`(isMoved: Bool)
        async throws
    {
        try await withTemporaryDirectory("turn") { directory in
            let path = directory.path
            try make(path)
            let files = try Turn.files(path)
            try files.write(certificate: "cert", key: "key", authorities: ["ca"])
            try Turn(kind: .join, node: Self.file("new")).write(path)
            if isMoved {
                // Ended after the identity was moved: the rest is done all the same.
                try FileManager.default.moveItem(atPath: files.directory, toPath: "\(path)/identity")
            }
            try Turn.finish(path)
            #expect(present(path).isEmpty)
            #expect(try NodeFile.read(path).clusterId == "new")
            #expect(try directory.read("identity/node.pem") == "cert")
            #expect(!Host.hasFile("\(path)/turn"))
            try Turn.finish(path)
            #expect(try NodeFile.read(path).clusterId == "new")
        }
    }

    @Test func `files of a join that was never written change nothing`() async throws {
        try await withTemporaryDirectory("turn") { directory in
            try make(directory.path)
            try Turn.files(directory.path).write(certificate: "cert", key: "key", authorities: ["ca"])
            try Turn.finish(directory.path)
            #expect(present(directory.path) == Self.state)
            #expect(try NodeFile.read(directory.path).clusterId == "old")
            #expect(!Host.hasFile("\(directory.path)/identity"))
        }
    }

    @Test func `founding keeps the state, leaving keeps nothing of the node`() async throws {
        try await withTemporaryDirectory("turn") { directory in
            let path = directory.path
            try make(path)
            try Turn.files(path).write(certificate: "cert", key: "key", authorities: ["ca"])
            try Turn(kind: .found, node: Self.file("old")).write(path)
            try Turn.finish(path)
            #expect(present(path) == Self.state)
            #expect(Host.hasFile("\(path)/identity/node.key"))
            // Going on in another cluster: the log ends, the state and everything that runs go on.
            try make(path)
            var successor = Self.file("successor")
            (successor.formerClusterId, successor.hasLog) = ("old", false)
            try Turn(kind: .succeed, node: successor).write(path)
            try Turn.finish(path)
            #expect(!Host.hasFile("\(path)/log"))
            for name in ["state.sqlite", "snapshots/1", "peers.json"] { #expect(Host.hasFile("\(path)/\(name)")) }
            #expect(try NodeFile.read(path) == successor)

            try Turn(kind: .leave, node: nil).write(path)
            try Turn.finish(path)
            #expect(present(path).isEmpty)
            #expect(!Host.hasFile("\(path)/identity") && !Host.hasFile("\(path)/node.json"))
        }
    }
}
