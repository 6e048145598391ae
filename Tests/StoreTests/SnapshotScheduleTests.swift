// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import Raft
import Store
import TestSupport
import Testing

@Suite struct SnapshotScheduleTests {
    private static let day: Int64 = 86_400_000

    /// What a node that starts finds, and how long it waits.
    struct Start: CustomTestStringConvertible {
        var testDescription: String
        /// Milliseconds before now; nil without one.
        var age: Int64?
        var wait: Int64
    }

    @Test(arguments: [
        Start(testDescription: "none is there", age: nil, wait: 60_000),
        Start(testDescription: "one was just taken", age: 0, wait: day),
        Start(testDescription: "one is an hour old", age: 3_600_000, wait: day - 3_600_000),
        Start(testDescription: "one is nearly due", age: day - 5, wait: 60_000),
        Start(testDescription: "one is a week old", age: 7 * day, wait: 60_000),
        Start(testDescription: "one is of the future", age: -400 * day, wait: 60_000),
    ])
    func `a node that starts waits as long as is left of a day, and a minute`(start: Start) {
        let now = Timestamp(milliseconds: 1_800_000_000_000)
        var schedule = SnapshotSchedule(interval: Self.day)
        let newest = start.age.map { now + -$0 }
        #expect(schedule.wait(newest: newest, now: now, monotonic: 500) == start.wait)
        #expect(schedule.wait(newest: newest, now: now, monotonic: 500 + start.wait - 1) == 1)
        #expect(schedule.wait(newest: newest, now: now, monotonic: 500 + start.wait) == 0)
        #expect(schedule.wait(newest: newest, now: now, monotonic: 500 + start.wait + 99) == 0, "still due")
    }

    @Test func `a clock that jumps while the node runs changes nothing`() {
        var schedule = SnapshotSchedule(interval: Self.day)
        var (monotonic, taken): (Int64, [Int64]) = (0, [])
        var newest: Timestamp?
        let jumps: [Int64] = [0, 400 * Self.day, -900 * Self.day, Int64.max / 2, Int64.min / 2]
        for hour in 0..<(24 * 10) {
            let wall = Timestamp(milliseconds: jumps[hour % jumps.count] + monotonic)
            if schedule.wait(newest: newest, now: wall, monotonic: monotonic) == 0 {
                taken.append(monotonic)
                newest = wall
                schedule.taken(monotonic: monotonic)
            }
            monotonic += 3_600_000
        }
        #expect(taken == (0..<10).map { 3_600_000 + $0 * Self.day })
    }

    @Test func `what failed is tried again soon, what is wanted often no sooner than wanted`() {
        var daily = SnapshotSchedule(interval: Self.day), often = SnapshotSchedule(interval: 1_000)
        daily.failed(monotonic: 7)
        often.failed(monotonic: 7)
        let now = Timestamp(milliseconds: 0)
        #expect(daily.wait(newest: nil, now: now, monotonic: 7) == SnapshotSchedule.retryMilliseconds)
        #expect(often.wait(newest: nil, now: now, monotonic: 7) == 1_000)
    }
}
