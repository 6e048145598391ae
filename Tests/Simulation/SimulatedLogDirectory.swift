// SPDX-License-Identifier: Apache-2.0

internal import Store
internal import TestSupport

/// The simulated disk as the log sees it.
final class SimulatedLogDirectory: LogDirectory {
    private let disk: SimulatedDisk

    init(_ disk: SimulatedDisk) {
        self.disk = disk
    }

    func list() throws(DiskError) -> [String] { try call { () throws(SimulatedDisk.Fault) in try disk.list() } }
    func open(_ name: String) throws(DiskError) -> any LogStorage {
        SimulatedLogStorage(disk, try call { () throws(SimulatedDisk.Fault) in try disk.open(name) })
    }
    func create(_ name: String) throws(DiskError) -> any LogStorage {
        SimulatedLogStorage(disk, try call { () throws(SimulatedDisk.Fault) in try disk.create(name) })
    }
    func rename(_ name: String, to target: String) throws(DiskError) {
        try call { () throws(SimulatedDisk.Fault) in try disk.rename(name, to: target) }
    }
    func remove(_ name: String) throws(DiskError) {
        try call { () throws(SimulatedDisk.Fault) in try disk.remove(name) }
    }
    func sync() throws(DiskError) { try call { () throws(SimulatedDisk.Fault) in try disk.syncNames() } }
    func freeBytes() throws(DiskError) -> Int {
        try call { () throws(SimulatedDisk.Fault) in try disk.freeBytes() }
    }
}

/// `@unchecked Sendable` for the same reason as the disk: one thread at a time.
final class SimulatedLogStorage: LogStorage, @unchecked Sendable {
    private let disk: SimulatedDisk
    private let file: SimulatedDisk.File

    init(_ disk: SimulatedDisk, _ file: SimulatedDisk.File) {
        self.disk = disk
        self.file = file
    }

    func size() throws(DiskError) -> Int { try call { () throws(SimulatedDisk.Fault) in try disk.size(file) } }
    func read(at offset: Int, count: Int) throws(DiskError) -> [UInt8] {
        try call { () throws(SimulatedDisk.Fault) in try disk.read(file, at: offset, count: count) }
    }
    func write(_ bytes: [UInt8], at offset: Int) throws(DiskError) {
        try call { () throws(SimulatedDisk.Fault) in try disk.write(file, bytes, at: offset) }
    }
    func sync() throws(DiskError) { try call { () throws(SimulatedDisk.Fault) in try disk.sync(file) } }
}

private func call<Value>(_ body: () throws(SimulatedDisk.Fault) -> Value) throws(DiskError) -> Value {
    do {
        return try body()
    } catch {
        throw DiskError(operation: error.operation, file: error.file, status: error.status)
    }
}
