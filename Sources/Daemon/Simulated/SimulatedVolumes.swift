// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
internal import Model
internal import NIOPosix
internal import Synchronization

/// Volumes as plain directories `<directory>/<namespace>/<name>`, without mounts and without ownership, so that no
/// root is needed. The directories outlive the process; which of them were seeded does not.
final class SimulatedVolumes: VolumeDriver {
    private struct State {
        var faults = Faults()
        var seeded: Set<ObjectKey> = []
    }

    let directory: String
    private let state = Mutex(State())
    private let pool = NIOThreadPool.singleton
    /// Files counted by one `usedBytes`.
    private static let filesMax = 100_000

    /// - Parameter directory: absolute; made at first use.
    init(directory: String, faults: Faults = Faults()) {
        self.directory = directory
        state.withLock { $0.faults = faults }
    }

    func setFaults(_ faults: Faults) { state.withLock { $0.faults = faults } }

    func ensure(_ key: ObjectKey) async throws -> VolumeState {
        try state.withLock { try $0.faults.take(.ensureVolume) }
        let path = try path(key)
        try await pool.runIfActive {
            try Self.attempt("make", key) {
                try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            }
        }
        return VolumeState(path: path, isSeeded: state.withLock { $0.seeded.contains(key) })
    }

    func markSeeded(_ key: ObjectKey) async throws { state.withLock { _ = $0.seeded.insert(key) } }

    func delete(_ key: ObjectKey) async throws {
        try state.withLock { try $0.faults.take(.deleteVolume) }
        let path = try path(key)
        try await pool.runIfActive {
            guard FileManager.default.fileExists(atPath: path) else { return }
            try Self.attempt("delete", key) { try FileManager.default.removeItem(atPath: path) }
        }
        state.withLock { _ = $0.seeded.remove(key) }
    }

    func list() async throws -> [ObjectKey] {
        try await pool.runIfActive { [directory] in
            guard FileManager.default.fileExists(atPath: directory) else { return [] }
            var keys: [ObjectKey] = []
            for namespace in try FileManager.default.contentsOfDirectory(atPath: directory) {
                for name in try FileManager.default.contentsOfDirectory(atPath: "\(directory)/\(namespace)") {
                    keys.append(ObjectKey(namespace: namespace, name: name))
                }
            }
            return keys.sorted()
        }
    }

    func usedBytes(_ key: ObjectKey) async throws -> Int64? {
        let path = try path(key)
        return try await pool.runIfActive {
            guard access(path, F_OK) == 0 else { return nil }
            var bytes: Int64 = 0
            var count = 0
            var directories = [path]
            while let directory = directories.popLast() {
                for name in try FileManager.default.contentsOfDirectory(atPath: directory) {
                    count += 1
                    guard count <= Self.filesMax else {
                        throw SimulatedError(.deadlineExceeded, "volume \(key) has more than \(Self.filesMax) files")
                    }
                    var status = stat()
                    guard lstat("\(directory)/\(name)", &status) == 0 else { continue }
                    bytes += Int64(status.st_blocks) * 512
                    if status.st_mode & S_IFMT == S_IFDIR { directories.append("\(directory)/\(name)") }
                }
            }
            return bytes
        }
    }

    /// Names are checked again here: a path is made of them.
    private func path(_ key: ObjectKey) throws(SimulatedError) -> String {
        do { try Validation.key(key, kind: "volume") } catch { throw SimulatedError(.volumeFailed, error.detail) }
        return "\(directory)/\(key.namespace)/\(key.name)"
    }

    private static func attempt(_ verb: String, _ key: ObjectKey, _ work: () throws -> Void) throws {
        do { try work() } catch { throw SimulatedError(.volumeFailed, "cannot \(verb) volume \(key): \(error)") }
    }
}
