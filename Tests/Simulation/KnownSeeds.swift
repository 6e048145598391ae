// SPDX-License-Identifier: Apache-2.0

/// Seeds that once failed, by what was wrong: they run first, always.
enum KnownSeeds {
    static let all: [(seed: UInt64, name: String)] = [
        (1, "a candidate asked for votes before its own was durable"),
        (24, "the state was ahead of the log after a kill"),
        (62, "a seal was read from memory after a failed sync and then lost"),
        (129, "a leader that demoted itself was needed and did not stand"),
        (425, "entries dropped in the same step were acknowledged"),
        (6531, "a lost member was forgotten before its removal was agreed"),
        (7037, "an entry was counted by a membership taken back in the same step"),
        (9179, "members that share a slow disk were not given the time"),
        (12592, "a flipped bit passed for a write that was cut short"),
        (10413, "an entry that was durable was acknowledged after it was cut off"),
        (21025, "a power cut brought back a state older than an installed snapshot"),
        (21547, "a member was lost while another was about to be removed"),
        (41395, "a log was cut while a snapshot from below the cut was on its way into force"),
        (80133, "a transfer that was on its way counted for five that came to nothing"),
        (756, "a read round needed fewer voters than it had asked"),
    ]
}
