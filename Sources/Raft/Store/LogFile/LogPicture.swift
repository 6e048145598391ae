// SPDX-License-Identifier: Apache-2.0

public import Raft
internal import Synchronization

/// What of a log is on disk, and how the disk does: for people who look after it.
public struct LogPicture: Hashable, Sendable {
    /// How long an fdatasync took.
    public struct Latency: Hashable, Sendable {
        public var medianMilliseconds: Double
        /// 99 of 100 took no longer.
        public var highMilliseconds: Double
        public var samples: Int
    }

    /// Over which latencies are looked at, in seconds.
    public static let windowSeconds = 60

    public var extent: LogExtent
    /// Of all segment files, in bytes.
    public var fileBytes: Int
    /// Nil when nothing was synced within the window.
    public var syncLatency: Latency?
    public var isShortOfSpace: Bool
}

/// Kept up to date by the log's thread, read by any.
final class LogGauge: Sendable {
    private struct State {
        var extent: LogExtent
        var fileBytes: Int
        var isShort = false
        /// A ring: when (milliseconds of the monotonic clock) and how long (microseconds).
        var syncs: [(at: Int, microseconds: Int)] = []
        var nextSync = 0
    }

    /// Newest syncs remembered.
    private static let syncsMax = 4_096
    private let state: Mutex<State>

    init(_ log: borrowing LogFile) {
        state = Mutex(State(extent: log.extent, fileBytes: log.fileBytes))
    }

    func update(extent: LogExtent, fileBytes: Int) {
        state.withLock { state in
            state.extent = extent
            state.fileBytes = fileBytes
        }
    }

    func update(isShort: Bool) { state.withLock { $0.isShort = isShort } }

    func synced(microseconds: Int, at now: Int) {
        state.withLock { state in
            if state.syncs.count < Self.syncsMax {
                state.syncs.append((now, microseconds))
            } else {
                state.syncs[state.nextSync] = (now, microseconds)
                state.nextSync = (state.nextSync + 1) % Self.syncsMax
            }
        }
    }

    func picture(at now: Int) -> LogPicture {
        let (state, times) = state.withLock { state in
            let since = now - LogPicture.windowSeconds * 1_000
            return (state, state.syncs.filter { $0.at >= since }.map(\.microseconds))
        }
        return LogPicture(
            extent: state.extent, fileBytes: state.fileBytes, syncLatency: Self.latency(times.sorted()),
            isShortOfSpace: state.isShort)
    }

    private static func latency(_ sorted: [Int]) -> LogPicture.Latency? {
        guard let highest = sorted.last else { return nil }
        let high = sorted.count >= 100 ? sorted[sorted.count * 99 / 100] : highest
        return LogPicture.Latency(
            medianMilliseconds: Double(sorted[sorted.count / 2]) / 1_000, highMilliseconds: Double(high) / 1_000,
            samples: sorted.count)
    }
}
