// SPDX-License-Identifier: Apache-2.0

/// How long to wait before trying again.
public enum Backoff {
    /// The first repetition is immediate: most failures are one of a kind. Then 0.5 s, doubled up to a minute.
    /// - Parameter failures: failures in a row, 1 or more.
    public static func milliseconds(afterFailures failures: Int) -> Int64 {
        failures <= 1 ? 0 : min(60_000, 250 << Int64(min(failures - 1, 10)))
    }

    /// A container that ran this long was well: its failures are forgotten.
    public static let forgivenAfterMilliseconds: Int64 = 10_000
}
