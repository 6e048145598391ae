// SPDX-License-Identifier: Apache-2.0
public import Model

/// When a node takes the next of the snapshots it keeps for people. Pure: both clocks are given.
///
/// Ages across a restart are told by the wall clock, the time of one run by the monotonic one: a clock that jumps brings one
/// snapshot too many at the next start, never a row of them that pushes out the old ones.
public struct SnapshotSchedule: Hashable, Sendable {
    /// Kept of one node; older ones go.
    public static let kept = 7
    /// After the start, so that a node that just begins, or dies again and again, does not begin with this.
    public static let restMilliseconds: Int64 = 60_000
    /// After an attempt that failed, at most.
    public static let retryMilliseconds: Int64 = 600_000

    /// Above 0.
    public let interval: Int64
    private var next: Int64?

    /// - Parameter interval: in milliseconds, at least 1,000.
    public init(interval: Int64) {
        precondition(interval >= 1_000, "a snapshot every \(interval) ms")
        self.interval = interval
    }

    /// - Parameters:
    ///   - newest: when the newest one that is kept was taken, nil without one.
    ///   - now: the wall clock.
    ///   - monotonic: milliseconds of a clock that only goes forward, since any moment.
    /// - Returns: milliseconds until one is due; 0 when it is.
    public mutating func wait(newest: Timestamp?, now: Timestamp, monotonic: Int64) -> Int64 {
        let next = next ?? first(newest: newest, now: now, monotonic: monotonic)
        self.next = next
        return max(0, next - monotonic)
    }

    private func first(newest: Timestamp?, now: Timestamp, monotonic: Int64) -> Int64 {
        var left: Int64 = 0
        if let newest {
            let (age, isHuge) = now.milliseconds.subtractingReportingOverflow(newest.milliseconds)
            // One from the future says nothing about its age.
            if !isHuge, age >= 0 { left = max(0, interval - min(age, interval)) }
        }
        return monotonic + max(left, min(interval, Self.restMilliseconds))
    }

    public mutating func taken(monotonic: Int64) { next = monotonic + interval }
    public mutating func failed(monotonic: Int64) { next = monotonic + min(interval, Self.retryMilliseconds) }
}
