// SPDX-License-Identifier: Apache-2.0

/// A directory of files on a disk that may lose, at a crash, whatever was not synced.
///
/// Unsynced content survives or not for each 512-byte sector alone; unsynced names survive as a prefix of what was done to
/// them, as with a journal. Every operation counts: `crashAfter` stops the machine in the middle of any of them.
///
/// `@unchecked Sendable`: a test uses a disk from one thread at a time.
public final class SimulatedDisk: @unchecked Sendable {
    public struct Fault: Error, Hashable {
        public var operation: String
        public var file: String
        /// As errno: 2 no such file, 5 input/output error (crash included), 28 no space.
        public var status: Int32
    }

    /// One file; handles stay valid when it is renamed.
    public final class File {
        fileprivate var bytes: [UInt8] = []
        fileprivate var durable: [UInt8] = []
        fileprivate var dirty: Set<Int> = []
    }

    private enum NameChange {
        case set(String, File)
        case remove(String)
        case rename(String, String, File)
    }

    public static let sectorBytes = 512

    private var random: SeededRandom
    private var names: [String: File] = [:]
    private var durableNames: [String: File] = [:]
    private var nameChanges: [NameChange] = []

    /// Operations done since the last restart.
    public private(set) var operations = 0
    /// The machine stops in the middle of the operation after that many.
    public var crashAfter: Int?
    public private(set) var isCrashed = false
    /// Bytes all files together may take.
    public var capacityBytes = Int.max
    /// That many of the next content syncs fail; what they should have written is then in memory only.
    public var failingSyncs = 0
    /// The content sync of this number fails, counted from 1 over the disk's life; see `syncs`.
    public var failingSync: Int?
    /// Content syncs tried so far.
    public private(set) var syncs = 0
    /// That many of the next writes meet a full disk though they only overwrite, after a part of them.
    public var failingWrites = 0

    public init(seed: UInt64) {
        random = SeededRandom(seed: seed)
    }

    // MARK: Operations

    public func list() throws(Fault) -> [String] {
        try count("list", "")
        return names.keys.sorted()
    }

    public func open(_ name: String) throws(Fault) -> File {
        try count("open", name)
        guard let file = names[name] else { throw Fault(operation: "open", file: name, status: 2) }
        return file
    }

    public func create(_ name: String) throws(Fault) -> File {
        try count("create", name)
        let file = File()
        names[name] = file
        nameChanges.append(.set(name, file))
        return file
    }

    public func rename(_ name: String, to target: String) throws(Fault) {
        try count("rename", name)
        guard let file = names.removeValue(forKey: name) else {
            throw Fault(operation: "rename", file: name, status: 2)
        }
        names[target] = file
        nameChanges.append(.rename(name, target, file))
    }

    public func remove(_ name: String) throws(Fault) {
        try count("remove", name)
        guard names.removeValue(forKey: name) != nil else {
            throw Fault(operation: "remove", file: name, status: 2)
        }
        nameChanges.append(.remove(name))
    }

    public func syncNames() throws(Fault) {
        try count("sync", "")
        durableNames = names
        nameChanges = []
    }

    public func size(_ file: File) throws(Fault) -> Int {
        try count("size", "")
        return file.bytes.count
    }

    public func read(_ file: File, at offset: Int, count length: Int) throws(Fault) -> [UInt8] {
        try count("read", "")
        return Array(file.bytes[min(offset, file.bytes.count)..<min(offset + length, file.bytes.count)])
    }

    public func write(_ file: File, _ bytes: [UInt8], at offset: Int) throws(Fault) {
        let end = offset + bytes.count
        do {
            try count("write", "")
        } catch {
            // Power fails while the write is under way: some of it is on its way to the disk.
            if !tornWrite { store(bytes, in: file, at: offset) }
            tornWrite = true
            throw error
        }
        let free = freeBytesNow
        let growth = max(0, end - file.bytes.count)
        if growth > free || failingWrites > 0 {
            if growth <= free { failingWrites -= 1 }
            let fitting = growth > free ? file.bytes.count + free : Int.random(in: offset...end, using: &random)
            let part = max(0, min(fitting, end) / Self.sectorBytes * Self.sectorBytes - offset)
            store(Array(bytes.prefix(part)), in: file, at: offset)
            throw Fault(operation: "write", file: "", status: 28)
        }
        store(bytes, in: file, at: offset)
    }

    public func freeBytes() throws(Fault) -> Int {
        try count("statvfs", "")
        looksAtFreeBytes += 1
        return max(0, freeBytesNow)
    }

    /// How often `freeBytes` was asked.
    public private(set) var looksAtFreeBytes = 0

    private var freeBytesNow: Int { capacityBytes - names.values.reduce(0) { $0 + $1.bytes.count } }

    public func sync(_ file: File) throws(Fault) {
        try count("sync", "")
        syncs += 1
        if failingSyncs > 0 || syncs == failingSync {
            failingSyncs = max(0, failingSyncs - 1)
            // As Linux does: the pages are marked clean, so that no later sync writes them.
            file.dirty = []
            throw Fault(operation: "sync", file: "", status: 5)
        }
        file.durable = file.bytes
        file.dirty = []
    }

    // MARK: Faults

    private var tornWrite = false

    /// Power cut and restart: what is not durable is lost in part. Handles from before are void.
    public func crash() {
        for change in nameChanges.prefix(Int.random(in: 0...nameChanges.count, using: &random)) {
            switch change {
            case .set(let name, let file): durableNames[name] = file
            case .remove(let name): durableNames[name] = nil
            case .rename(let name, let target, let file):
                durableNames[name] = nil
                durableNames[target] = file
            }
        }
        var restarted: [String: File] = [:]
        for name in durableNames.keys.sorted() {
            guard let file = durableNames[name] else { continue }
            let survivor = File()
            survivor.bytes = surviving(file)
            survivor.durable = survivor.bytes
            restarted[name] = survivor
        }
        names = restarted
        durableNames = restarted
        nameChanges = []
        operations = 0
        crashAfter = nil
        isCrashed = false
        tornWrite = false
    }

    /// The process ends and starts again while the machine stays up: what was written is still there, synced or not, and a
    /// write under way when it ended is there in part. Handles from before are void.
    public func kill() {
        operations = 0
        crashAfter = nil
        isCrashed = false
        tornWrite = false
    }

    /// Content as a reader sees it now; nil when there is no such file.
    public func content(_ name: String) -> [UInt8]? { names[name]?.bytes }

    /// Puts content on the disk as if it had always been there, or removes the file.
    public func replace(_ name: String, with bytes: [UInt8]?) {
        let file = File()
        file.bytes = bytes ?? []
        file.durable = file.bytes
        names[name] = bytes == nil ? nil : file
        durableNames[name] = names[name]
    }

    /// A disk of its own with what is certain to survive a power cut now: nothing that was not synced.
    public func durableCopy() -> SimulatedDisk {
        let copy = SimulatedDisk(seed: 0)
        for (name, file) in durableNames { copy.replace(name, with: file.durable) }
        return copy
    }

    public var fileNames: [String] { names.keys.sorted() }

    private func surviving(_ file: File) -> [UInt8] {
        var bytes = file.durable
        if bytes.count < file.bytes.count, Bool.random(using: &random) {
            bytes += [UInt8](repeating: 0, count: file.bytes.count - bytes.count)
        }
        for sector in file.dirty.sorted() where Bool.random(using: &random) {
            let start = sector * Self.sectorBytes
            let range = start..<max(start, min(start + Self.sectorBytes, file.bytes.count, bytes.count))
            if !range.isEmpty { bytes.replaceSubrange(range, with: file.bytes[range]) }
        }
        return bytes
    }

    private func store(_ bytes: [UInt8], in file: File, at offset: Int) {
        let end = offset + bytes.count
        guard !bytes.isEmpty else { return }
        if file.bytes.count < end { file.bytes += [UInt8](repeating: 0, count: end - file.bytes.count) }
        file.bytes.replaceSubrange(offset..<end, with: bytes)
        file.dirty.formUnion(offset / Self.sectorBytes...(end - 1) / Self.sectorBytes)
    }

    private func count(_ operation: String, _ file: String) throws(Fault) {
        operations += 1
        if let crashAfter, operations > crashAfter { isCrashed = true }
        if isCrashed { throw Fault(operation: operation, file: file, status: 5) }
    }
}
