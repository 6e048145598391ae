// SPDX-License-Identifier: Apache-2.0
internal import Model

/// `500ms`, `10s`, `1m30s`, `2h`, `7d`.
enum DurationParser {
    static func milliseconds(_ text: String, flag: String) throws(CLIError) -> Int64 {
        do {
            return try DurationText.milliseconds(text)
        } catch {
            throw .usage(
                "\(flag) `\(text)`: \(error.why)", hint: "write a number and a unit, as 500ms, 10s, 1m30s, 2h or 7d")
        }
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
