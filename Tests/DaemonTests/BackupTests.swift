// SPDX-License-Identifier: Apache-2.0
import Crypto
import Foundation
import Model
import Raft
import Store
import TestSupport
import Testing

@testable import Daemon

@Suite struct BackupTests {
    /// A backup of a few bytes that are no database: what is around them is the same.
    private static func small(format: Int = 1, schema: Int = SnapshotManifest.currentSchema) throws -> [UInt8] {
        let state = (0..<300).map { UInt8(truncatingIfNeeded: $0 * 7) }
        let manifest = SnapshotManifest(
            position: LogPosition(index: 33, term: 2),
            configuration: ConfigurationPoint(index: 1, membership: Membership(voters: [1, 2])), clusterID: "c",
            schemaVersion: schema, bytes: UInt64(state.count), sha256: Array(SHA256.hash(data: state)),
            createdAt: Timestamp(milliseconds: 5))
        var head = String(decoding: try BackupFile.head(of: manifest, node: "n1"), as: UTF8.self)
        head = head.replacing("\"format\":1,", with: "\"format\":\(format),", maxReplacements: 1)
        return sealed(Array(head.utf8) + state)
    }

    private static func sealed(_ bytes: [UInt8]) -> [UInt8] {
        var hash = SHA256()
        hash.update(data: bytes)
        return bytes + BackupFile.sum(hash)
    }

    private static func check(_ bytes: some Collection<UInt8>, pieces: Int = 1 << 20) throws -> BackupCheck.Contents {
        var check = BackupCheck()
        var rest = bytes[...]
        while !rest.isEmpty {
            check.take(rest.prefix(pieces))
            rest = rest.dropFirst(pieces)
        }
        return try check.finish("it")
    }

    private static func refusal(_ bytes: some Collection<UInt8>) throws -> String {
        do {
            let found = try check(bytes)
            throw TestFailure("it was taken: \(found)")
        } catch let problem as Problem {
            #expect(problem.code == .conflict && problem.hint != nil)
            return problem.detail
        }
    }

    @Test(arguments: [1, 2, 64, 65, 66, 1_000])
    func `a backup is read in pieces of any size`(pieces: Int) throws {
        let bytes = try Self.small()
        let found = try Self.check(bytes, pieces: pieces)
        #expect(found.index == 33 && found.head.clusterId == "c" && found.head.node == "n1")
        #expect(found.bytes == UInt64(bytes.count) && found.stateOffset + 300 + 65 == found.bytes)
    }

    @Test func `every flipped byte and every cut is refused`() throws {
        let good = try Self.small()
        _ = try Self.check(good)
        for place in good.indices {
            for bit in [UInt8(1), 0x80] {
                var bytes = good
                bytes[place] ^= bit
                let why = try Self.refusal(bytes)
                #expect(
                    why.contains("damaged") || why.contains("no backup") || why.contains("cut off"), "\(place): \(why)")
            }
        }
        for length in good.indices.dropFirst() {
            #expect(try Self.refusal(good.prefix(length)).contains("cut off"), "\(length)")
        }
        #expect(try Self.refusal([]).contains("cut off"))
        #expect(try Self.refusal(good + [0]).contains("damaged"), "something behind it")
        #expect(try Self.refusal(Array("SQLite format 3".utf8) + good).contains("no backup"))
    }

    @Test func `a newer format and a newer state are refused by name`() throws {
        #expect(try Self.refusal(Self.small(format: 2)).contains("format 2"))
        let schema = SnapshotManifest.currentSchema + 1
        #expect(try Self.refusal(Self.small(schema: schema)).contains("schema \(schema)"))
    }

    // MARK: - Restoring

    /// A stopped node of a cluster with an authority, and a backup of it.
    private struct Cluster {
        var backup: String
        var key = ClusterKey()
        var authority: CertificateAuthority

        init(in directory: String) throws {
            authority = try CertificateAuthority.make(clusterID: "oldcluster", now: Date())
            let node = try OfflineTests.Node(directory + "/a", uncertain: 0)
            let state = try StateMachine(path: node.path + "/state.sqlite")
            let row = AuthorityRow(
                id: NodeBackend.hex(authority.digest), certificate: try authority.certificateText,
                sealedKey: try key.seal(try authority.keyText), createdAt: Timestamp(milliseconds: 1))
            let other = NodeRow(
                id: "nodeb", name: "beta", member: 22, address: "192.0.2.2",
                subnet: IPv4Subnet(IPv4Address(value: 0x0AD2_0100), prefix: 24), cpuMillis: 1000, memoryBytes: 1 << 30,
                version: "0.1.0")
            let token = JoinTokenRow(
                id: "t", hash: "00", role: .auto, usesLeft: nil, createdAt: Timestamp(milliseconds: 1),
                expiresAt: Timestamp(milliseconds: .max / 4))
            var index: UInt64 = node.last.index
            for change in [Change.putAuthority(row), .putNode(other), .putJoinToken(token)] {
                index += 1
                let command = Command(at: Timestamp(milliseconds: Int64(index)), change: change)
                _ = try state.apply([.init(index: index, term: 4, command: command)])
            }
            let store = try SnapshotStore(path: directory + "/taken")
            let manifest = try store.take(from: state, at: Timestamp(milliseconds: 9))
            let bytes = try Data(contentsOf: URL(filePath: store.file(of: manifest)))
            backup = directory + "/b.backup"
            try Data(BackupTests.sealed(try BackupFile.head(of: manifest, node: "alpha") + bytes))
                .write(to: URL(filePath: backup))
        }
    }

    private static func withCluster(_ body: (String, Cluster) async throws -> Void) async throws {
        let path = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: path) }
        try await body(path, try Cluster(in: path))
    }

    @Test func `with the recovery code the cluster has its authority again, others are suspect`() async throws {
        try await Self.withCluster { directory, cluster in
            let target = directory + "/new"
            let code = cluster.key.recoveryCode.uppercased() + "\n"
            let report = try Restoration.restore(
                backup: cluster.backup, dataDirectory: target,
                options: .init(node: "alpha", advertise: "127.0.0.1", peerPort: 5, recoveryCode: code))
            #expect(report.recoveryCode == nil && report.address == "127.0.0.1:4483")
            #expect(report.clusterId != "oldcluster" && report.snapshotClusterId == "oldcluster")
            let state = try StateMachine(path: target + "/state.sqlite")
            let (meta, nodes, tokens, authorities) = try await state.read {
                (try $0.meta(), try $0.nodes(), try $0.joinTokens(), try $0.authorities())
            }
            #expect(meta.clusterID == report.clusterId && meta.previousClusterID == "oldcluster")
            #expect(nodes.map(\.liveness) == [.ready, .suspect] && tokens.count == 1)
            #expect(authorities.map(\.id) == [NodeBackend.hex(cluster.authority.digest)])
            let file = try NodeFile.read(target)
            #expect(file.id == "nodea" && file.place?.peerPort == 5 && file.place?.subnet == nodes[0].subnet)
            let files = ClusterFiles(dataDirectory: target)
            #expect(files.clusterKey()?.bytes == cluster.key.bytes)
            let shown = try await PeerCertificates.load(files.certificates, name: "alpha").current
            #expect(shown.authorities.keys.sorted() == authorities.map(\.id))
        }
    }

    @Test func `without the code nothing is made, with a new authority what the old one vouched for ends`() async throws
    {
        try await Self.withCluster { directory, cluster in
            let target = directory + "/new"
            func refusal(_ options: RestorationOptions) throws -> Problem? {
                do {
                    _ = try Restoration.restore(backup: cluster.backup, dataDirectory: target, options: options)
                    return nil
                } catch let problem as Problem { return problem }
            }
            let none = try refusal(.init(node: "alpha", advertise: "127.0.0.1"))
            #expect(none?.hint?.contains("--new-authority") == true)
            let wrong = try refusal(
                .init(node: "alpha", advertise: "127.0.0.1", recoveryCode: ClusterKey().recoveryCode))
            #expect(wrong?.code == .conflict && wrong?.detail.contains("not that of this cluster") == true)
            let typo = try refusal(.init(node: "alpha", advertise: "127.0.0.1", recoveryCode: "abcd-ef"))
            #expect(typo?.code == .badRequest)
            let address = try refusal(.init(node: "alpha", advertise: "192.0.2.77", newAuthority: true))
            #expect(address?.code == .badRequest && address?.hint?.contains("127.0.0.1") == true)
            #expect(!FileManager.default.fileExists(atPath: target + "/node.json"))

            let report = try Restoration.restore(
                backup: cluster.backup, dataDirectory: target,
                options: .init(node: "alpha", advertise: "127.0.0.1", newAuthority: true))
            let code = try #require(report.recoveryCode)
            let state = try StateMachine(path: target + "/state.sqlite")
            #expect(try await state.read { try $0.joinTokens() }.isEmpty)
            let opened = try #require(try ClusterAuthority.open(state, files: nil, code: code))
            #expect(opened.issuing.digest != cluster.authority.digest)
            _ = try await PeerCertificates.load(ClusterFiles(dataDirectory: target).certificates, name: "alpha")
        }
    }

    @Test func `a directory that holds a node is left as it is`() async throws {
        try await Self.withCluster { directory, cluster in
            let before = try OfflineTests.Found(OfflineTests.Node(directory + "/b").path)
            do {
                _ = try Restoration.restore(
                    backup: cluster.backup, dataDirectory: directory + "/b", options: .init(newAuthority: true))
                Issue.record("it replaced a node's data")
            } catch let problem as Problem {
                #expect(problem.code == .conflict && problem.detail.contains("is not empty"))
            }
            #expect(try OfflineTests.Found(directory + "/b") == before)
        }
    }
}
