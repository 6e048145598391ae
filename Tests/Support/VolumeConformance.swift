// SPDX-License-Identifier: Apache-2.0
internal import Foundation
public import Model

/// What every `VolumeDriver` promises, checked on the simulated one and on the one that keeps real directories.
///
/// Each check uses volumes of its own and deletes them, also when it fails.
public struct VolumeConformance: Sendable {
    public let volumes: any VolumeDriver
    /// In front of every volume name, so that suites can run side by side. At most 10 characters.
    public let prefix: String

    public init(volumes: any VolumeDriver, prefix: String) {
        self.volumes = volumes
        self.prefix = prefix
    }

    /// All checks, one after the other.
    public func checkAll() async throws {
        try await checkEnsureTwice()
        try await checkSeeded()
        try await checkDelete()
        try await checkList()
        try await checkUsedBytes()
        try await checkHostileNames()
    }

    public func checkEnsureTwice() async throws {
        try await withVolumes("ensure") { key, _ in
            let first = try await volumes.ensure(key)
            try require(first.path.hasPrefix("/"), "the path \(first.path) is not absolute")
            try require(!first.isSeeded, "a new volume is seeded")
            try Data("kept".utf8).write(to: URL(fileURLWithPath: first.path + "/file"))
            let second = try await volumes.ensure(key)
            try require(second == first, "ensured twice: \(first), then \(second)")
            let kept = try String(contentsOfFile: first.path + "/file", encoding: .utf8)
            try require(kept == "kept", "a file is `\(kept)` after the second ensure")
        }
    }

    public func checkSeeded() async throws {
        try await withVolumes("seed") { key, other in
            _ = try await volumes.ensure(key)
            _ = try await volumes.ensure(other)
            try await volumes.markSeeded(key)
            try await volumes.markSeeded(key)
            try require(try await volumes.ensure(key).isSeeded, "a volume marked as seeded is not seeded")
            try require(try await !volumes.ensure(other).isSeeded, "marking one volume seeds another one")
            try await volumes.delete(key)
            try require(try await !volumes.ensure(key).isSeeded, "a volume made anew is seeded")
        }
    }

    public func checkDelete() async throws {
        try await withVolumes("delete") { key, other in
            try await volumes.delete(key)
            let state = try await volumes.ensure(key)
            let kept = try await volumes.ensure(other)
            try Data("x".utf8).write(to: URL(fileURLWithPath: state.path + "/file"))
            try await volumes.delete(key)
            try await volumes.delete(key)
            try require(!FileManager.default.fileExists(atPath: state.path), "\(state.path) is still there")
            try require(FileManager.default.fileExists(atPath: kept.path), "another volume is gone")
            let again = try await volumes.ensure(key)
            let files = try FileManager.default.contentsOfDirectory(atPath: again.path)
            try require(files.isEmpty, "a volume made anew holds \(files)")
        }
    }

    public func checkList() async throws {
        try await withVolumes("list") { key, other in
            _ = try await volumes.ensure(other)
            _ = try await volumes.ensure(key)
            let listed = try await volumes.list()
            try require(listed == listed.sorted(), "the list is not sorted: \(listed)")
            try require(listed.filter { [key, other].contains($0) }.count == 2, "a volume is missing: \(listed)")
            try await volumes.delete(key)
            let rest = try await volumes.list()
            try require(!rest.contains(key) && rest.contains(other), "after the deletion of \(key): \(rest)")
        }
    }

    public func checkUsedBytes() async throws {
        try await withVolumes("used") { key, _ in
            try require(try await volumes.usedBytes(key) == nil, "an absent volume uses bytes")
            let path = try await volumes.ensure(key).path
            try require(try await volumes.usedBytes(key) == 0, "an empty volume uses bytes")
            try FileManager.default.createDirectory(atPath: path + "/a", withIntermediateDirectories: false)
            try Data(repeating: 7, count: 300_000).write(to: URL(fileURLWithPath: path + "/a/file"))
            try FileManager.default.createSymbolicLink(atPath: path + "/out", withDestinationPath: "/usr")
            let used = try await volumes.usedBytes(key) ?? -1
            try require((300_000...1_000_000).contains(used), "a file of 300000 bytes uses \(used)")
        }
    }

    public func checkHostileNames() async throws {
        for name in ["", ".", "..", "../x", "a/b", "/etc", ".trash", "A", "a\0b", String(repeating: "a", count: 41)] {
            for key in [ObjectKey(name: name), ObjectKey(namespace: name, name: "x")] {
                try await requireRefusal("ensure \(key)") { _ = try await volumes.ensure(key) }
                try await requireRefusal("delete \(key)") { try await volumes.delete(key) }
                try await requireRefusal("usedBytes \(key)") { _ = try await volumes.usedBytes(key) }
            }
        }
    }

    private func withVolumes(_ name: String, _ check: (ObjectKey, ObjectKey) async throws -> Void) async throws {
        let keys = ["a", "b"].map { ObjectKey(namespace: "conformance", name: "\(prefix)-\(name)-\($0)") }
        let result: Result<Void, any Error>
        do { result = .success(try await check(keys[0], keys[1])) } catch { result = .failure(error) }
        for key in keys { try await volumes.delete(key) }
        try result.get()
    }

    private func requireRefusal(_ what: String, _ work: () async throws -> Void) async throws {
        do { try await work() } catch let error as any ReasonError {
            return try require(error.reason.code == .volumeFailed, "\(what) refused with \(error.reason.code)")
        }
        throw ConformanceFailure("\(what) is not refused")
    }

    private func require(_ condition: Bool, _ what: @autoclosure () -> String) throws {
        guard condition else { throw ConformanceFailure(what()) }
    }
}
