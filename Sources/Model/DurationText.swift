// SPDX-License-Identifier: Apache-2.0

/// `500ms`, `10s`, `1m30s`, `2h`, `7d`.
public enum DurationText {
    /// Why a text is no duration.
    public struct Fault: Error, Hashable, Sendable {
        public var why: String
    }

    private static let units: [(String, Double)] = [
        ("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000),
    ]

    /// The shortest text of whole units: `5s`, `1m30s`.
    public static func text(milliseconds: Int64) -> String {
        var rest = max(0, milliseconds)
        var text = ""
        for (name, scale) in units.reversed() where rest >= Int64(scale) {
            text += "\(rest / Int64(scale))\(name)"
            rest %= Int64(scale)
        }
        return text.isEmpty ? "0s" : text
    }

    /// Parts from large to small units do not have to be in order; at most ten years in all.
    public static func milliseconds(_ text: String) throws(Fault) -> Int64 {
        func refuse(_ why: String) -> Fault { Fault(why: why) }
        guard !text.isEmpty else { throw refuse("is empty") }
        var rest = text[...]
        var total = 0.0
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
            rest = rest.dropFirst(digits.count)
            let unit = rest.prefix { $0.isLetter }
            rest = rest.dropFirst(unit.count)
            guard let number = Double(digits), digits.first != ".", digits.last != "." else {
                throw refuse("is not a duration")
            }
            guard !unit.isEmpty else { throw refuse("has no unit") }
            guard let scale = units.first(where: { $0.0 == unit })?.1 else { throw refuse("`\(unit)` is not a unit") }
            total += number * scale
        }
        guard total <= 3650 * 86_400_000 else { throw refuse("is longer than ten years") }
        return Int64(total.rounded())
    }
}
