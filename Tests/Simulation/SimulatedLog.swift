// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import Store
internal import TestSupport

/// The real log file on a simulated disk, begun anew after each snapshot that replaces it.
///
/// A log that begins after a snapshot is a fresh directory whose first index stands for the one after the snapshot.
final class SimulatedLog {
    private(set) var disk: SimulatedDisk
    private(set) var file: LogFile
    /// What index 0 of the file stands for.
    private(set) var origin: LogPosition
    let segmentBytes: Int

    /// Opens what is on the disk, or makes an empty log.
    init(disk: SimulatedDisk, origin: LogPosition, minimumIndex: UInt64, segmentBytes: Int) throws(LogError) {
        guard minimumIndex >= origin.index else {
            throw LogError(.damaged, "the log begins after \(origin), the state ends at \(minimumIndex)")
        }
        self.disk = disk
        self.origin = origin
        self.segmentBytes = segmentBytes
        file = try Self.open(disk, minimumIndex: minimumIndex - origin.index, segmentBytes)
    }

    private static func open(
        _ disk: SimulatedDisk, minimumIndex: UInt64, _ segmentBytes: Int
    ) throws(LogError) -> LogFile {
        var options = LogFile.Options()
        options.segmentBytes = segmentBytes
        return try LogFile(
            directory: SimulatedLogDirectory(disk), minimumIndex: minimumIndex, options: options)
    }

    var recoveredExtent: LogExtent { shifted(file.recovered.extent) }
    var extent: LogExtent { shifted(file.extent) }
    var recoveredHardState: HardState {
        var state = file.recovered.hardState
        state.commit += state.commit == 0 ? 0 : origin.index
        return state
    }
    var recoveredTermStarts: [LogPosition] {
        file.recovered.termStarts.map { LogPosition(index: $0.index + origin.index, term: $0.term) }
    }
    var recoveredConfigurations: [ConfigurationPoint] {
        file.recovered.configurations.map {
            ConfigurationPoint(index: $0.index + origin.index, membership: $0.membership)
        }
    }

    private func shifted(_ extent: LogExtent) -> LogExtent {
        func shifted(_ position: LogPosition) -> LogPosition {
            position.index == 0 ? origin : LogPosition(index: position.index + origin.index, term: position.term)
        }
        return LogExtent(base: shifted(extent.base), last: shifted(extent.last))
    }

    func append(_ write: Write) throws(LogError) {
        var write = write
        if var state = write.hardState {
            state.commit -= min(state.commit, origin.index)
            write.hardState = state
        }
        write.truncateFrom? -= origin.index
        for place in write.entries.indices { write.entries[place].index -= origin.index }
        try file.append(write)
    }

    func entries(_ range: Range<UInt64>, bytesMax: Int) throws(LogError) -> [Entry] {
        guard range.lowerBound > origin.index else {
            throw LogError(.notAvailable, "entry \(range.lowerBound) is before \(origin)")
        }
        var found = try file.entries(
            range.lowerBound - origin.index..<range.upperBound - origin.index, bytesMax: bytesMax)
        for place in found.indices { found[place].index += origin.index }
        return found
    }

    func compact(through index: UInt64) throws(LogError) {
        guard index > origin.index else { return }
        try file.compact(through: index - origin.index)
    }

    /// Empties the log so that it begins after `position`; a crash leaves the old one or the new one.
    func reset(to position: LogPosition, _ hardState: HardState, seed: UInt64) throws(LogError) {
        let fresh = SimulatedDisk(seed: seed)
        let file = try Self.open(fresh, minimumIndex: 0, segmentBytes)
        try file.append(Write(hardState: HardState(term: hardState.term, vote: hardState.vote, commit: 0)))
        try file.sync()
        disk = fresh
        self.file = file
        origin = position
    }
}

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
