// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Synchronization

/// Says the same thing once a minute, however often it happens: others decide how often they knock.
final class LogGate: Sendable {
    static let interval = Duration.seconds(60)
    static let keysMax = 512

    private struct Seen {
        var at: ContinuousClock.Instant
        var suppressed = 0
    }

    private let log: Logger
    private let seen = Mutex<[String: Seen]>([:])

    init(_ log: Logger) {
        self.log = log
    }

    /// - Parameter key: what counts as the same.
    func log(
        _ level: Logger.Level, _ message: Logger.Message, key: String, metadata: Logger.Metadata = [:]
    ) {
        let now = ContinuousClock.now
        let before: Int? = seen.withLock { seen in
            if let last = seen[key], now - last.at < Self.interval {
                seen[key]?.suppressed += 1
                return nil
            }
            let suppressed = seen[key]?.suppressed ?? 0
            if seen.count >= Self.keysMax {
                seen = seen.filter { now - $0.value.at < Self.interval }
                // Still full: so many different troubles a minute are one trouble.
                if seen.count >= Self.keysMax { return nil }
            }
            seen[key] = Seen(at: now)
            return suppressed
        }
        guard let before else { return }
        var metadata = metadata
        if before > 0 { metadata["repeated"] = "\(before)" }
        log.log(level: level, message, metadata: metadata)
    }
}
