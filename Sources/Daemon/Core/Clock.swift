// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model

/// Time as the shell hands it to the core.
enum Clock {
    /// Milliseconds that go on while the machine sleeps and never jump: for timeouts and ticks.
    static func monotonic() -> Int64 { read(CLOCK_BOOTTIME) }

    /// Wall time: for stamps people read.
    static func now() -> Timestamp { Timestamp(milliseconds: read(CLOCK_REALTIME)) }

    private static func read(_ clock: clockid_t) -> Int64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}
