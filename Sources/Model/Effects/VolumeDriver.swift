// SPDX-License-Identifier: Apache-2.0

/// Directories that outlive tasks. Idempotent; errors conform to `ReasonError`.
public protocol VolumeDriver: Sendable {
    /// Makes the volume when it is absent.
    func ensure(_ key: ObjectKey) async throws -> VolumeState

    /// Records that the volume holds data of its own and is never seeded from an image again.
    func markSeeded(_ key: ObjectKey) async throws

    /// Deletes the volume with its data. No error when it is absent.
    func delete(_ key: ObjectKey) async throws

    /// Volumes present here, sorted.
    func list() async throws -> [ObjectKey]

    /// Bytes used, counted in blocks; nil when absent. Bounded: gives up with `deadlineExceeded` on huge trees.
    func usedBytes(_ key: ObjectKey) async throws -> Int64?
}

public struct VolumeState: Hashable, Codable, Sendable {
    /// Absolute path of the data on this node.
    public var path: String
    public var isSeeded: Bool

    public init(path: String, isSeeded: Bool) {
        self.path = path
        self.isSeeded = isSeeded
    }
}
