// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Store
internal import Synchronization

/// How long something took over the last minute: counts by duration, a second at a time, in 23 KiB whatever happens.
///
/// Durations fall into classes 15 % wide: that is how exact the answer is.
final class LatencyWindow: Sendable {
    static let seconds = 60
    /// From 10 µs up to 6.9 s; the last one holds what is longer.
    private static let bounds: [Int64] = {
        var bounds: [Int64] = []
        var bound = 10.0
        for _ in 0..<96 {
            bounds.append(Int64(bound))
            bound *= 1.15
        }
        return bounds
    }()

    private struct Second {
        var number: Int64 = -1
        var counts = [UInt32](repeating: 0, count: LatencyWindow.bounds.count + 1)
    }

    private let slots = Mutex([Second](repeating: Second(), count: LatencyWindow.seconds))

    /// - Parameter now: monotonic, in milliseconds.
    func record(microseconds: Int64, now: Int64) {
        let place = Self.bounds.firstIndex { microseconds < $0 } ?? Self.bounds.count
        let number = now / 1000
        slots.withLock { slots in
            let slot = Int(number % Int64(Self.seconds))
            if slots[slot].number != number {
                slots[slot].number = number
                for index in slots[slot].counts.indices { slots[slot].counts[index] = 0 }
            }
            slots[slot].counts[place] += 1
        }
    }

    /// Nil when there was nothing in the last minute.
    func view(now: Int64) -> LatencyView? {
        let oldest = now / 1000 - Int64(Self.seconds) + 1
        var sums = [Int](repeating: 0, count: Self.bounds.count + 1)
        slots.withLock { slots in
            for second in slots where second.number >= oldest {
                for (place, count) in second.counts.enumerated() { sums[place] += Int(count) }
            }
        }
        let total = sums.reduce(0, +)
        guard total > 0 else { return nil }
        return LatencyView(
            p50Ms: Self.percentile(50, sums, total), p99Ms: Self.percentile(99, sums, total), samples: total,
            windowSeconds: Self.seconds)
    }

    /// Upper end of the class in which it lies, in milliseconds: not better than it was.
    private static func percentile(_ percent: Int, _ sums: [Int], _ total: Int) -> Double {
        let rank = max(1, (total * percent + 99) / 100)
        var seen = 0
        for (place, count) in sums.enumerated() {
            seen += count
            if seen >= rank { return Double(bounds[min(place, bounds.count - 1)]) / 1000 }
        }
        return Double(bounds[bounds.count - 1]) / 1000
    }
}

/// A disk that tells how long its syncs take.
final class TimedDisk: LogDirectory {
    private let disk: any LogDirectory
    private let window: LatencyWindow

    init(_ disk: any LogDirectory, into window: LatencyWindow) {
        self.disk = disk
        self.window = window
    }

    func list() throws(DiskError) -> [String] { try disk.list() }
    func open(_ name: String) throws(DiskError) -> any LogStorage { TimedFile(try disk.open(name), window) }
    func create(_ name: String) throws(DiskError) -> any LogStorage { TimedFile(try disk.create(name), window) }
    func rename(_ name: String, to target: String) throws(DiskError) { try disk.rename(name, to: target) }
    func remove(_ name: String) throws(DiskError) { try disk.remove(name) }
    func sync() throws(DiskError) { try disk.sync() }
    func freeBytes() throws(DiskError) -> Int { try disk.freeBytes() }

    private final class TimedFile: LogStorage {
        private let file: any LogStorage
        private let window: LatencyWindow

        init(_ file: any LogStorage, _ window: LatencyWindow) {
            self.file = file
            self.window = window
        }

        func size() throws(DiskError) -> Int { try file.size() }
        func read(at offset: Int, count: Int) throws(DiskError) -> [UInt8] { try file.read(at: offset, count: count) }
        func write(_ bytes: [UInt8], at offset: Int) throws(DiskError) { try file.write(bytes, at: offset) }
        func allocate(_ count: Int) throws(DiskError) { try file.allocate(count) }

        func sync() throws(DiskError) {
            let start = ContinuousClock.now
            try file.sync()
            window.record(microseconds: Int64((ContinuousClock.now - start) / .microseconds(1)), now: Clock.monotonic())
        }
    }
}
