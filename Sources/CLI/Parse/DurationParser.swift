// SPDX-License-Identifier: Apache-2.0
internal import Model

/// `500ms`, `10s`, `1m30s`, `2h`, `7d`.
enum DurationParser {
    private static let units: [(String, Double)] = [
        ("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000),
    ]

    /// Parts from large to small units do not have to be in order; at most ten years in all.
    static func milliseconds(_ text: String, flag: String) throws(CLIError) -> Int64 {
        func refuse(_ why: String) -> CLIError {
            .usage("\(flag) `\(text)`: \(why)", hint: "write a number and a unit, as 500ms, 10s, 1m30s, 2h or 7d")
        }
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

    /// A moment: RFC 3339, or a duration counted back from now.
    static func since(_ text: String, now: Timestamp) throws(CLIError) -> Timestamp {
        if let moment = Timestamp(text) { return moment }
        do {
            return now + -(try milliseconds(text, flag: "--since"))
        } catch {
            throw .usage(error.message, hint: "write a duration as 10m, or a time as 2026-03-01T12:30:00Z")
        }
    }
}
