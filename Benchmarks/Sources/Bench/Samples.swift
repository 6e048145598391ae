// SPDX-License-Identifier: Apache-2.0
import Foundation

/// What was measured of one thing, in one unit.
struct Samples {
    private(set) var values: [Double] = []

    init(_ values: [Double] = []) { self.values = values }

    mutating func add(_ value: Double) { values.append(value) }

    var median: Double { quantile(0.5) }
    var isEmpty: Bool { values.isEmpty }

    /// Linear between the two nearest values; NaN of none.
    func quantile(_ share: Double) -> Double {
        guard !values.isEmpty else { return .nan }
        let sorted = values.sorted()
        let place = share * Double(sorted.count - 1)
        let below = Int(place)
        let above = min(below + 1, sorted.count - 1)
        return sorted[below] + (sorted[above] - sorted[below]) * (place - Double(below))
    }

    /// `12.3 (11.0 - 15.2)`
    var text: String {
        guard let low = values.min(), let high = values.max() else { return "-" }
        return values.count == 1
            ? Self.format(low) : "\(Self.format(median)) (\(Self.format(low)) - \(Self.format(high)))"
    }

    static func format(_ value: Double) -> String {
        String(format: value >= 1000 ? "%.0f" : value >= 10 ? "%.1f" : "%.3g", value)
    }
}

/// Milliseconds of a clock that never jumps.
func now() -> Double { Double(clock_gettime_nsec()) / 1e6 }

private func clock_gettime_nsec() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
