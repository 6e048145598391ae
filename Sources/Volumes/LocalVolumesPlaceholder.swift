// SPDX-License-Identifier: Apache-2.0
public import Model
import FoundationEssentials
public final class LocalVolumes: VolumeDriver {
    let directory: String
    public init(directory: String) { self.directory = directory }
    public func ensure(_ key: ObjectKey) async throws -> VolumeState {
        try FileManager.default.createDirectory(atPath: "\(directory)/\(key.namespace)/\(key.name)", withIntermediateDirectories: true)
        return VolumeState(path: "\(directory)/\(key.namespace)/\(key.name)", isSeeded: true)
    }
    public func markSeeded(_ key: ObjectKey) async throws {}
    public func delete(_ key: ObjectKey) async throws {}
    public func list() async throws -> [ObjectKey] { [] }
    public func usedBytes(_ key: ObjectKey) async throws -> Int64? { nil }
}
