// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Raft
internal import Synchronization
internal import TestSupport
internal import Testing

@testable internal import Store

/// A disk whose size changes while the log's thread uses it: every call takes the same lock.
private final class SharedDisk: LogDirectory, Sendable {
    private let inner: Mutex<SimulatedLogDirectory>

    init(seed: UInt64) {
        inner = Mutex(SimulatedLogDirectory(SimulatedDisk(seed: seed)))
    }

    func use<Value: Sendable>(_ body: (SimulatedDisk) -> Value) -> Value { inner.withLock { body($0.disk) } }

    func list() throws(DiskError) -> [String] {
        try inner.withLock { directory throws(DiskError) in try directory.list() }
    }
    func open(_ name: String) throws(DiskError) -> any LogStorage {
        SharedStorage(self, try inner.withLock { directory throws(DiskError) in try directory.open(name) })
    }
    func create(_ name: String) throws(DiskError) -> any LogStorage {
        SharedStorage(self, try inner.withLock { directory throws(DiskError) in try directory.create(name) })
    }
    func rename(_ name: String, to target: String) throws(DiskError) {
        try inner.withLock { directory throws(DiskError) in try directory.rename(name, to: target) }
    }
    func remove(_ name: String) throws(DiskError) {
        try inner.withLock { directory throws(DiskError) in try directory.remove(name) }
    }
    func sync() throws(DiskError) { try inner.withLock { directory throws(DiskError) in try directory.sync() } }
    func freeBytes() throws(DiskError) -> Int {
        try inner.withLock { directory throws(DiskError) in try directory.freeBytes() }
    }

    private final class SharedStorage: LogStorage {
        private let disk: SharedDisk
        private let storage: any LogStorage

        init(_ disk: SharedDisk, _ storage: any LogStorage) {
            self.disk = disk
            self.storage = storage
        }

        func size() throws(DiskError) -> Int {
            try disk.inner.withLock { _ throws(DiskError) in try storage.size() }
        }
        func read(at offset: Int, count: Int) throws(DiskError) -> [UInt8] {
            try disk.inner.withLock { _ throws(DiskError) in try storage.read(at: offset, count: count) }
        }
        func write(_ bytes: [UInt8], at offset: Int) throws(DiskError) {
            try disk.inner.withLock { _ throws(DiskError) in try storage.write(bytes, at: offset) }
        }
        func sync() throws(DiskError) { try disk.inner.withLock { _ throws(DiskError) in try storage.sync() } }
    }
}

@Suite struct LogFileSpaceTests {
    private let disk = SharedDisk(seed: 5)

    private func log(ballastBytes: Int = 0) throws(LogError) -> LogFile {
        var options = LogFile.Options.segments(2 << 10)
        options.ballastBytes = ballastBytes
        return try LogFile(directory: disk, minimumIndex: 0, options: options)
    }

    /// Fills the disk until the log says so; the write that met it is number `count + 1`.
    private func fill(_ writer: LogWriter, _ reports: LogReports) throws -> UInt64 {
        try writer.submit(Write(hardState: HardState(term: 1)))
        for index in UInt64(1)... {
            try writer.submit(Write(sequence: index, entries: commands(from: index, count: 1, bytes: 300)))
            try waitUntil("an answer to write \(index)") {
                reports.last == index || !reports.errors.isEmpty
            }
            if !reports.errors.isEmpty { return index - 1 }
        }
        return 0
    }

    @Test func `reads and compaction are served while a write waits, and compaction lets it go on`() throws {
        disk.use { $0.capacityBytes = 9 << 10 }
        let reports = LogReports()
        let writer = try LogWriter(log: try log()) { reports.take($0) }
        let written = try fill(writer, reports)
        #expect(written > 12)
        let read = Mutex<Result<[Entry], LogError>?>(nil)
        writer.read(5..<8, bytesMax: .max) { result in read.withLock { $0 = result } }
        // Behind what waits: answered once it is written.
        let later = Mutex<Result<[Entry], LogError>?>(nil)
        writer.read(written + 1..<written + 2, bytesMax: .max) { result in later.withLock { $0 = result } }
        try waitUntil("a read beside the waiting write") { read.withLock { $0 != nil } }
        #expect(try read.withLock { try $0?.get() } == commands(from: 5, count: 3, bytes: 300))
        #expect(reports.last == written && later.withLock { $0 == nil })
        try writer.compact(through: written)
        try waitUntil("the write that waited") { reports.last == written + 1 && later.withLock { $0 != nil } }
        #expect(try later.withLock { try $0?.get() } == commands(from: written + 1, count: 1, bytes: 300))
        writer.shutdown()
        #expect(reports.errors.map(\.code) == [.noSpace])
    }

    @Test func `a read of what a waiting write will replace waits for it`() throws {
        let reports = LogReports()
        let writer = try LogWriter(log: try log()) { reports.take($0) }
        disk.use { $0.capacityBytes = 9 << 10 }
        let written = try fill(writer, reports)
        let replaced = commands(from: 3, count: 1, term: 2, bytes: 300)
        try writer.submit(
            Write(sequence: 1_000, hardState: HardState(term: 2), truncateFrom: 3, entries: replaced))
        let answers = Mutex<[UInt64: [Entry]]>([:])
        for index in UInt64(2)...3 {
            writer.read(index..<index + 1, bytesMax: .max) { result in
                answers.withLock { $0[index] = (try? result.get()) ?? [] }
            }
        }
        try waitUntil("the read below the truncation") { answers.withLock { $0[2] != nil } }
        #expect(answers.withLock { $0[3] == nil } && reports.last == written)
        disk.use { $0.capacityBytes = .max }
        try waitUntil("the read of the replaced entry") { answers.withLock { $0[3] == replaced } }
        writer.shutdown()
        #expect(reports.errors.map(\.code) == [.noSpace])
    }

    @Test func `the ballast is given up before a write has to wait, and comes back with the room`() throws {
        disk.use { $0.capacityBytes = 16 << 10 }
        let reports = LogReports()
        let file = try log(ballastBytes: 4 << 10)
        #expect(disk.use { $0.content(Ballast.name)?.count } == 4 << 10)
        let writer = try LogWriter(log: file) { reports.take($0) }
        let written = try fill(writer, reports)
        // 16 KiB hold two segments more than 12.
        #expect(written > 30 && disk.use { $0.content(Ballast.name) } == nil)
        disk.use { $0.capacityBytes = 64 << 10 }
        try waitUntil("the ballast") { disk.use { $0.content(Ballast.name)?.count } == 4 << 10 }
        #expect(reports.last == written + 1)
        writer.shutdown()
        #expect(reports.errors.map(\.code) == [.noSpace])
    }

    @Test func `the ballast can be asked for`() throws {
        disk.use { $0.capacityBytes = 32 << 10 }
        let writer = try LogWriter(log: try log(ballastBytes: 4 << 10), freeBytesMin: 1) { _ in }
        disk.use { $0.capacityBytes = 10 << 10 }
        try writer.giveUpBallast()
        try waitUntil("the ballast's room") { disk.use { $0.content(Ballast.name) } == nil }
        writer.shutdown()
        #expect(disk.use { $0.content(Ballast.name) } == nil)
    }

    @Test func `short space is said when it begins and when it ends, with some distance between`() throws {
        disk.use { $0.capacityBytes = 50 << 10 }
        let reports = LogReports()
        let writer = try LogWriter(log: try log(), freeBytesMin: 32 << 10) { reports.take($0) }
        try writer.submit(Write(sequence: 1, hardState: HardState(term: 1)))
        try waitUntil("the first write") { reports.count == 1 }
        #expect(reports.seen.isShort.isEmpty)
        disk.use { $0.capacityBytes = 33 << 10 }
        // A look happens with a write, at most once a second; one without content, so that they do not fill the disk.
        var sequence: UInt64 = 1
        try waitUntil("short space") {
            sequence += 1
            try writer.submit(Write(sequence: sequence))
            try waitUntil("write \(sequence)") { reports.seen.receipts.last?.sequence == sequence }
            return reports.seen.isShort == [true]
        }
        let used = disk.use { disk in disk.fileNames.reduce(0) { $0 + (disk.content($1)?.count ?? 0) } }
        disk.use { $0.capacityBytes = used + 33 << 10 }
        // It looks at least once in this time.
        let looks = disk.use { $0.looksAtFreeBytes }
        try waitUntil("another look") { disk.use { $0.looksAtFreeBytes } > looks + 1 }
        #expect(reports.seen.isShort == [true])
        // Nothing is written any more: the log looks by itself.
        disk.use { $0.capacityBytes = used + 40 << 10 }
        try waitUntil("space again") { reports.seen.isShort == [true, false] }
        writer.shutdown()
        #expect(reports.errors.isEmpty)
    }

    @Test func `a reset goes between the writes around it`() throws {
        let reports = LogReports()
        let writer = try LogWriter(log: try log()) { reports.take($0) }
        let position = LogPosition(index: 50, term: 3)
        try writer.submit(
            Write(sequence: 1, hardState: HardState(term: 3, vote: 8), entries: commands(from: 1, count: 5)))
        let done = Mutex<[Bool]>([])
        writer.reset(to: position) { result in done.withLock { $0.append((try? result.get()) != nil) } }
        let after = commands(from: 51, count: 2, term: 3)
        try writer.submit(Write(sequence: 2, entries: after))
        writer.shutdown()
        #expect(done.withLock { $0 } == [true])
        #expect(reports.seen.receipts.last == Receipt(sequence: 2, last: after[1].position))
        let again = try LogFile(directory: disk, minimumIndex: 50, options: .segments(2 << 10))
        #expect(again.extent == LogExtent(base: position, last: after[1].position))
        #expect(again.hardState == HardState(term: 3, vote: 8, commit: 50))
        #expect(try allEntries(again) == after)
        let late = Mutex<LogError.Code?>(nil)
        writer.reset(to: position) { result in
            if case .failure(let error) = result { late.withLock { $0 = error.code } }
        }
        #expect(late.withLock { $0 } == .closed)
    }

    @Test func `a shutdown on a full disk answers everything`() throws {
        disk.use { $0.capacityBytes = 9 << 10 }
        let reports = LogReports()
        let writer = try LogWriter(log: try log()) { reports.take($0) }
        let written = try fill(writer, reports)
        let answers = Mutex<[LogError.Code]>([])
        writer.read(written + 1..<written + 2, bytesMax: 1) { result in
            if case .failure(let error) = result { answers.withLock { $0.append(error.code) } }
        }
        writer.reset(to: LogPosition(index: 99, term: 1)) { result in
            if case .failure(let error) = result { answers.withLock { $0.append(error.code) } }
        }
        writer.shutdown()
        #expect(answers.withLock { $0 } == [.noSpace, .noSpace])
        #expect(reports.errors.map(\.code) == [.noSpace, .noSpace] && reports.last == written)
    }
}
