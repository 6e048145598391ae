// SPDX-License-Identifier: Apache-2.0

/// How `hivemind` ends. The numbers are promised in docs/reference: scripts depend on them.
enum ExitStatus: Int32, Sendable, CaseIterable {
    case ok = 0
    case general = 1
    case usage = 2
    /// The daemon cannot be reached.
    case connection = 3
    case authentication = 4
    case permission = 5
    case notFound = 6
    case conflict = 7
    /// A deploy failed; the previous release runs.
    case rolledBack = 8
    /// A deploy failed and nothing earlier could be kept or brought back.
    case deployFailed = 9
    case timeout = 10
    /// Ctrl-C, as shells count it: 128 + SIGINT.
    case interrupted = 130
}

/// What a command failed with: printed as `error: …` and `hint: …`, and an exit code.
struct CLIError: Error, Hashable, Sendable {
    var exit: ExitStatus
    /// Which object, what failed; lower case, no full stop.
    var message: String
    /// What to do next.
    var hint: String?
    /// The API's problem code, when the daemon refused.
    var code: String?

    init(_ exit: ExitStatus, _ message: String, hint: String? = nil, code: String? = nil) {
        self.exit = exit
        self.message = message
        self.hint = hint
        self.code = code
    }

    static func usage(_ message: String, hint: String? = nil) -> Self { Self(.usage, message, hint: hint) }
}
