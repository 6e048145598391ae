// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// Numbers of the API itself.
final class APIMetrics: Sendable {
    private struct Counts {
        /// By hundreds of the status.
        var answers = [UInt64](repeating: 0, count: 6)
        var microseconds: UInt64 = 0
        var streams = 0
    }

    private let counts = Mutex(Counts())

    func answered(status: Int, microseconds: UInt64) {
        counts.withLock {
            $0.answers[min(status / 100, 5)] += 1
            $0.microseconds += microseconds
        }
    }

    /// - Returns: false, and nothing is counted, when there are `max` already.
    func streamBegan(max: Int) -> Bool {
        counts.withLock { counts in
            guard counts.streams < max else { return false }
            counts.streams += 1
            return true
        }
    }

    func streamBegan() { counts.withLock { $0.streams += 1 } }
    func streamEnded() { counts.withLock { $0.streams -= 1 } }

    /// Prometheus text.
    var text: String {
        let counts = counts.withLock { $0 }
        var text = "# TYPE hivemind_api_requests_total counter\n"
        for (hundred, count) in counts.answers.enumerated() where count > 0 {
            text += "hivemind_api_requests_total{status=\"\(hundred)xx\"} \(count)\n"
        }
        text += "# TYPE hivemind_api_request_seconds_total counter\n"
        text += "hivemind_api_request_seconds_total \(Double(counts.microseconds) / 1e6)\n"
        text += "# TYPE hivemind_api_streams gauge\nhivemind_api_streams \(counts.streams)\n"
        return text
    }
}
