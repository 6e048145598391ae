// SPDX-License-Identifier: Apache-2.0
import Foundation
import Logging
import Model
import Raft
import Store
import Testing

@testable import Daemon

/// Data directories of which a part is gone: a node never goes on as if it had promised nothing.
@Suite struct MissingFilesTests {
    private func open(_ path: String) throws -> CoreOwner {
        let identity = try NodeIdentity(dataDirectory: path, name: nil)
        do {
            return try CoreOwner(
                node: identity.id, member: identity.member, state: try StateMachine(path: path + "/state.sqlite"),
                dataDirectory: path, hasLog: identity.hasLog, seed: 1, log: Logger(label: "test"))
        } catch let error as LogError {
            throw try #require(identity.refusal(of: error), "\(error)")
        }
    }

    private func refusal(_ path: String) -> DaemonError? {
        do { _ = try open(path) } catch { return error as? DaemonError }
        return nil
    }

    @Test func `a node alone is called what it is told, one of a cluster keeps its name`() throws {
        try OfflineTests.withDirectory { directory in
            let path = directory + "/a"
            func name(_ wanted: String?) throws -> String { try NodeIdentity(dataDirectory: path, name: wanted).name }
            #expect(try name("alpha") == "alpha")
            #expect(try name("beta") == "beta")
            #expect(try name(nil) == "beta")
            var file = try NodeFile.read(path)
            file.place = NodeFile.ClusterPlace(
                advertise: "192.0.2.1", peerPort: 4484, apiPort: 4483, subnet: AddressRanges.standard.containers,
                ranges: .standard, seeds: [])
            try file.write(path)
            #expect(try name("gamma") == "beta")
        }
    }

    @Test func `a node that has begun a log is refused without it, also when nothing else is left`() throws {
        try OfflineTests.withDirectory { directory in
            let path = directory + "/a"
            let identity = try NodeIdentity(dataDirectory: path, name: "alpha")
            // Nothing was promised before there is a log.
            #expect(!identity.hasLog)
            try identity.logBegun()
            withExtendedLifetime(identity) {}
            let file = try NodeFile.read(path)
            #expect(file.hasLog == true && file.name == "alpha" && file.id == identity.id)
        }
        try OfflineTests.withDirectory { directory in
            let path = directory + "/a"
            _ = try OfflineTests.Node(path)
            try NodeIdentity(dataDirectory: path, name: nil).logBegun()
            let log = path + "/log"
            try FileManager.default.moveItem(atPath: log, toPath: directory + "/log")
            let without = try #require(refusal(path))
            #expect(without.message.contains("the log is missing") && without.message.contains(log), "\(without)")
            #expect(without.hint?.contains("put it back") == true, "\(without)")
            for ending in ["", "-wal", "-shm"] {
                try? FileManager.default.removeItem(atPath: "\(path)/state.sqlite\(ending)")
            }
            let alone = try #require(refusal(path))
            #expect(alone.message.contains("the log is missing"), "\(alone)")
            // Refused, not condemned: with its log it is itself again, and makes the state anew from it.
            try FileManager.default.removeItem(atPath: log)
            try FileManager.default.moveItem(atPath: directory + "/log", toPath: log)
            #expect(refusal(path) == nil)
        }
    }

    @Test func `a node the others know is refused without its log`() throws {
        try OfflineTests.withDirectory { directory in
            let path = directory + "/a"
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            try NodeFile(id: "nodea", name: "alpha", clusterId: "oldcluster", memberId: 11).write(path)
            _ = try KnownIncarnations(dataDirectory: path)
            let error = try #require(refusal(path))
            #expect(error.message.contains("the log is missing"), "\(error)")
        }
    }

    @Test func `a state that is gone or old is refused by name when the log does not reach back to it`() throws {
        try OfflineTests.withDirectory { directory in
            let node = try OfflineTests.Node(directory + "/a")
            let log = try LogFile(directory: try POSIXLogDirectory(path: node.path + "/log"), minimumIndex: 0)
            try log.reset(to: LogPosition(index: 100, term: 4))
            let old = try #require(refusal(node.path))
            #expect(old.message.contains("the state ends at entry 19"), "\(old)")
            #expect(old.message.contains("\(node.path)/state.sqlite"), "\(old)")
            for ending in ["", "-wal", "-shm"] {
                try? FileManager.default.removeItem(atPath: "\(node.path)/state.sqlite\(ending)")
            }
            let gone = try #require(refusal(node.path))
            #expect(gone.message.contains("the state is missing"), "\(gone)")
            #expect(!FileManager.default.fileExists(atPath: "\(node.path)/quarantine"))
        }
    }

    @Test func `a survivor without a log is not recovered`() throws {
        try OfflineTests.withDirectory { directory in
            let node = try OfflineTests.Node(directory + "/a", commands: 0, uncertain: 2)
            try FileManager.default.removeItem(atPath: node.path + "/log")
            #expect(throws: (any Error).self) { try Recovery.recover(dataDirectory: node.path) }
            #expect(try NodeFile.read(node.path).clusterId == "oldcluster")
        }
    }
}
