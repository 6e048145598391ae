// SPDX-License-Identifier: Apache-2.0

/// Seeds that once failed, by what was wrong: they run first, always.
enum KnownSeeds {
    static let all: [(seed: UInt64, name: String)] = [
        (1, "a candidate asked for votes before its own was durable"),
        (24, "the state was ahead of the log after a kill"),
        (62, "a seal was read from memory after a failed sync and then lost"),
        (129, "a leader that demoted itself was needed and did not stand"),
        (425, "entries dropped in the same step were acknowledged"),
        (756, "a read round needed fewer voters than it had asked"),
    ]
}
