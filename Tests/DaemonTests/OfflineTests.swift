// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import Raft
import Store
import Testing

@testable import Daemon

/// Data directories of stopped nodes, as daemons leave them: a real log and a real state.
@Suite struct OfflineTests {
    static let own: MemberID = 11
    static let others: [MemberID] = [22, 33]

    /// A member of three with `commands` config writes, of which the last `uncertain` are in the log only.
    struct Node {
        var path: String
        var last: LogPosition

        init(_ path: String, commands: Int = 20, uncertain: Int = 3, membership: Membership? = nil) throws {
            self.path = path
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            let membership = membership ?? Membership(voters: [own] + others)
            let state = try StateMachine(path: path + "/state.sqlite", initialMembership: membership)
            let log = try LogFile(directory: try POSIXLogDirectory(path: path + "/log"), minimumIndex: 0)
            let cluster = InitializeCluster(clusterID: "oldcluster", ranges: .standard)
            let row = NodeRow(
                id: "nodea", name: "alpha", address: "192.0.2.1",
                subnet: IPv4Subnet("10.210.0.0/24") ?? .init(IPv4Address(value: 0), prefix: 24),
                cpuMillis: 1000, memoryBytes: 1 << 30, version: "0.1.0")
            var changes: [Change] = [.initializeCluster(cluster), .putNode(row)]
            for number in 0..<commands {
                changes.append(
                    .putConfig(
                        PutConfig(
                            config: ObjectKey(namespace: "default", name: "c\(number)"), data: "\(number)",
                            condition: .none)))
            }
            let certain = changes.count - uncertain
            for (offset, change) in changes.enumerated() {
                let index = UInt64(offset + 1)
                let command = Command(request: nil, at: Timestamp(milliseconds: Int64(index)), change: change)
                let entry = Entry(index: index, term: 4, kind: .command, payload: try command.encoded())
                try log.append(
                    Write(
                        hardState: HardState(term: 4, vote: 22, commit: UInt64(min(offset, certain))), entries: [entry])
                )
                try log.sync()
                if offset < certain {
                    _ = try state.apply([try StateMachine.Input(entry)])
                }
            }
            last = log.extent.last
            try NodeFile(id: "nodea", name: "alpha", clusterId: "oldcluster", memberId: own).write(path)
        }
    }

    static func withDirectory(_ body: (String) throws -> Void) throws {
        let path = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body(path)
    }

    /// What a daemon finds when it starts on the directory.
    struct Found: Hashable {
        var configuration: ConfigurationPoint
        var hardState: HardState
        var last: LogPosition
        var cluster: String
        var configs: [ConfigView]

        init(_ path: String) throws {
            try NodeDirectory.refuseUnfinished(path)
            let state = try StateMachine(path: path + "/state.sqlite")
            let meta = try state.read { try $0.meta() }
            let log = try LogFile(
                directory: try POSIXLogDirectory(path: path + "/log"), minimumIndex: meta.appliedIndex)
            configuration = log.recovered.configurations.last ?? meta.configuration
            hardState = log.hardState
            last = log.extent.last
            #expect(try NodeFile.read(path).clusterId == meta.clusterID)
            cluster = meta.clusterID
            // As the daemon does: everything committed is applied.
            if meta.appliedIndex < log.hardState.commit {
                let rest = try log.entries(meta.appliedIndex + 1..<log.hardState.commit + 1, bytesMax: 64 << 20)
                _ = try state.apply(try rest.map { try StateMachine.Input($0) })
            }
            let after = try state.read { try $0.meta() }
            #expect(after.configuration == configuration)
            configs = try state.read { try $0.configs(namespace: nil, prefix: "") }
        }
    }

    @Test func `a survivor is made a cluster of its own with everything it holds`() throws {
        try Self.withDirectory { directory in
            let node = try Node(directory + "/a")
            let looked = try Recovery.survey(dataDirectory: node.path)
            #expect(looked.lastIndex == 22 && looked.lastTerm == 4 && looked.voters == [11, 22, 33])
            #expect(looked.commitIndex == 19 && looked.appliedIndex == 19 && looked.uncertainEntries == 3)
            #expect(looked.result == nil && !looked.isUnderWay)
            let before = try Found(node.path)
            #expect(before.cluster == "oldcluster")

            let report = try Recovery.recover(dataDirectory: node.path)
            let result = try #require(report.result)
            let after = try Found(node.path)
            #expect(
                after.configuration
                    == ConfigurationPoint(index: 23, membership: Membership(voters: [11], removed: [22, 33])))
            #expect(after.last == LogPosition(index: 23, term: 1004))
            #expect(after.hardState == HardState(term: 1004, vote: nil, commit: 23))
            #expect(after.cluster == result.clusterId && after.cluster != "oldcluster")
            #expect(after.configs.count == 20)
            #expect(result.removed == [22, 33] && result.term == 1004 && result.index == 23)
            // The backup is a node as it was.
            let backup = try Found(result.backup)
            #expect(backup.cluster == "oldcluster" && backup.last == node.last)
        }
    }

    @Test(arguments: 0...4)
    func `a recovery interrupted after any step is gone on with and ends the same way`(steps: Int) throws {
        try Self.withDirectory { directory in
            let node = try Node(directory + "/a")
            let result = try #require(try Recovery.recover(dataDirectory: node.path).result)
            let wanted = try Found(node.path)
            // The same directory as it was after that many steps: plan, log, state, identity.
            let half = directory + "/half"
            let files = FileManager.default
            try files.createDirectory(atPath: half, withIntermediateDirectories: false)
            func take(_ names: [String], isDone: Bool) throws {
                for name in names {
                    let source = "\(isDone ? node.path : result.backup)/\(name)"
                    if files.fileExists(atPath: source) {
                        try files.copyItem(atPath: source, toPath: "\(half)/\(name)")
                    }
                }
            }
            // Opened to be looked at since, `wanted` was applied: the state is that of the daemon's first start.
            try take(["log"], isDone: steps >= 2)
            try take(["state.sqlite", "state.sqlite-wal", "state.sqlite-shm"], isDone: steps >= 3)
            try take(["node.json"], isDone: steps >= 4)
            if steps >= 1 {
                let plan = NodeDirectory.Plan(verb: .recover, clusterId: result.clusterId, backup: result.backup)
                try JSON.encode(plan).write(to: URL(filePath: "\(half)/\(NodeDirectory.planName)"))
                #expect(throws: DaemonError.self) { try NodeDirectory.refuseUnfinished(half) }
                #expect(try Recovery.survey(dataDirectory: half).isUnderWay)
            }
            let again = try #require(try Recovery.recover(dataDirectory: half).result)
            var found = try Found(half)
            #expect(again.index == 23 && again.term == 1004)
            if steps == 0 { found.cluster = wanted.cluster } else { #expect(again.clusterId == result.clusterId) }
            #expect(found == wanted)
        }
    }

    @Test func `what cannot or need not be recovered is refused and left as it was`() throws {
        func refusal(_ path: String) throws -> Problem {
            do {
                _ = try Recovery.recover(dataDirectory: path)
            } catch let problem as Problem {
                return problem
            }
            throw Problem(.internal, "it was not refused")
        }
        try Self.withDirectory { directory in
            #expect(try refusal(directory + "/none").code == .notFound)
            try FileManager.default.createDirectory(atPath: directory + "/empty", withIntermediateDirectories: false)
            #expect(try refusal(directory + "/empty").code == .notFound)

            let alone = try Node(directory + "/alone", membership: Membership(voters: [Self.own]))
            #expect(try refusal(alone.path).detail.contains("the only voter"))
            let removed = try Node(
                directory + "/removed", membership: Membership(voters: Self.others, removed: [Self.own]))
            #expect(try refusal(removed.path).detail.contains("was removed"))
            #expect(try Found(removed.path).cluster == "oldcluster")

            let used = try Node(directory + "/used")
            let daemon = try NodeIdentity(dataDirectory: used.path, name: nil)
            #expect(try refusal(used.path).code == .conflict)
            #expect(daemon.clusterID == "oldcluster")

            let damaged = try Node(directory + "/damaged")
            let log = damaged.path + "/log"
            let segment = try #require(try FileManager.default.contentsOfDirectory(atPath: log).sorted().first)
            let file = try FileHandle(forUpdating: URL(filePath: "\(log)/\(segment)"))
            try file.seek(toOffset: 300)
            try file.write(contentsOf: [0xFF, 0xEE, 0xDD])
            try file.close()
            let problem = try refusal(damaged.path)
            #expect(problem.code == .conflict && problem.detail.contains("damaged"))
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: damaged.path).allSatisfy {
                    !$0.hasPrefix("before-")
                })
        }
    }

    // MARK: - Snapshots

    /// A snapshot of a node's state, copied away as an operator would.
    static func snapshot(of node: Node, in directory: String) throws -> String {
        let store = try SnapshotStore(path: node.path + "/snapshots")
        let state = try StateMachine(path: node.path + "/state.sqlite")
        let manifest = try store.take(from: state, at: Timestamp(milliseconds: 5_000))
        let away = directory + "/away"
        try FileManager.default.createDirectory(atPath: away, withIntermediateDirectories: true)
        for ending in ["sqlite", "manifest"] {
            try FileManager.default.copyItem(
                atPath: "\(node.path)/snapshots/\(manifest.name).\(ending)",
                toPath: "\(away)/\(manifest.name).\(ending)")
        }
        return "\(away)/\(manifest.name).sqlite"
    }

    @Test func `a snapshot becomes a new cluster with a raised index and no events`() throws {
        try Self.withDirectory { directory in
            let node = try Node(directory + "/a", uncertain: 0)
            let file = try Self.snapshot(of: node, in: directory)
            let target = directory + "/new"
            let report = try Restoration.restore(file: file, dataDirectory: target, options: .init())
            #expect(report.snapshotIndex == 22 && report.index == 1_000_022 && report.node == "alpha")
            #expect(report.clusterId != "oldcluster" && report.snapshotClusterId == "oldcluster")
            let found = try Found(target)
            #expect(found.cluster == report.clusterId)
            #expect(found.configuration.membership == Membership(voters: [report.memberId], removed: [11, 22, 33]))
            #expect(found.last == LogPosition(index: 1_000_022, term: 1_004))
            #expect(found.hardState.term >= 1_004 && found.hardState.commit == 1_000_022)
            #expect(found.configs.count == 20)
            let state = try StateMachine(path: target + "/state.sqlite")
            for index in [0, 22, 1_000_021] as [UInt64] {
                #expect(
                    try state.events(after: index, limit: 10) == .compacted(oldest: 1_000_023, applied: 1_000_022))
            }
            #expect(try state.events(after: 1_000_022, limit: 10) == .events([], through: 1_000_022))
            let identity = try NodeIdentity(dataDirectory: target, name: nil)
            #expect(identity.member == report.memberId && identity.id == "nodea")
        }
    }

    @Test func `a restore that was interrupted begins anew, one over a node's data is refused`() throws {
        try Self.withDirectory { directory in
            let node = try Node(directory + "/a", uncertain: 0)
            let file = try Self.snapshot(of: node, in: directory)
            do {
                _ = try Restoration.restore(file: file, dataDirectory: node.path, options: .init())
                Issue.record("it replaced a node's data")
            } catch let problem as Problem {
                #expect(problem.code == .conflict)
            }
            #expect(try Found(node.path).cluster == "oldcluster")
            // Everything is there but the end: the plan and half of the files.
            let target = directory + "/new"
            let first = try Restoration.restore(file: file, dataDirectory: target, options: .init())
            let plan = NodeDirectory.Plan(verb: .restore, clusterId: first.clusterId, backup: "")
            try JSON.encode(plan).write(to: URL(filePath: "\(target)/\(NodeDirectory.planName)"))
            try FileManager.default.removeItem(atPath: target + "/node.json")
            #expect(throws: DaemonError.self) { try NodeIdentity(dataDirectory: target, name: nil) }
            let second = try Restoration.restore(file: file, dataDirectory: target, options: .init())
            #expect(second.clusterId == first.clusterId && second.index == first.index)
            #expect(try Found(target).configs.count == 20)
        }
    }

    @Test(arguments: ["flipped", "short", "no manifest", "other manifest", "not a snapshot", "absent", "other node"])
    func `a snapshot that is not whole is refused and the directory stays free for another`(what: String) throws {
        try Self.withDirectory { directory in
            let node = try Node(directory + "/a", uncertain: 0)
            var file = try Self.snapshot(of: node, in: directory)
            let manifest = String(file.dropLast("sqlite".count)) + "manifest"
            let good = try Data(contentsOf: URL(filePath: file))
            var bytes = good
            switch what {
            case "flipped": bytes[bytes.count / 2] ^= 1
            case "short": bytes.removeLast(4096)
            case "no manifest": try FileManager.default.removeItem(atPath: manifest)
            case "other manifest": try Data("{}\n".utf8).write(to: URL(filePath: manifest))
            case "not a snapshot": file = manifest
            case "absent": file = directory + "/nothing.sqlite"
            default: break
            }
            if FileManager.default.fileExists(atPath: file), file != manifest {
                try bytes.write(to: URL(filePath: file))
            }
            let target = directory + "/new", wanted = what == "other node" ? "omega" : nil
            #expect(throws: (any Error).self) {
                try Restoration.restore(file: file, dataDirectory: target, options: .init(node: wanted))
            }
            #expect(!FileManager.default.fileExists(atPath: target + "/node.json"))
            guard ["flipped", "short", "other node"].contains(what) else { return }
            try good.write(to: URL(filePath: file))
            #expect(try Restoration.restore(file: file, dataDirectory: target, options: .init()).index == 1_000_022)
        }
    }
}

@Suite struct LatencyWindowTests {
    @Test func `percentiles are of the last minute and never better than it was`() throws {
        let window = LatencyWindow()
        #expect(window.view(now: 1_000_000) == nil)
        for number in 0..<100 {
            window.record(microseconds: number < 98 ? 500 : 40_000, now: 1_000_000 + Int64(number))
        }
        let view = try #require(window.view(now: 1_001_000))
        #expect(view.samples == 100)
        #expect((0.5...0.58).contains(view.p50Ms) && (40...46).contains(view.p99Ms))
        #expect(window.view(now: 1_059_999)?.samples == 100)
        #expect(window.view(now: 1_060_000) == nil)
        window.record(microseconds: 60_000_000, now: 1_060_000)
        window.record(microseconds: 0, now: 1_060_000)
        #expect(window.view(now: 1_060_000)?.samples == 2)
    }
}
