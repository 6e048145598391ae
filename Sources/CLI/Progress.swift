// SPDX-License-Identifier: Apache-2.0

/// What goes on while a command waits, on standard error: lines that renew themselves on a terminal, else one line
/// for each change.
struct Progress {
    private let terminal: Terminal
    private var shown: [String: String] = [:]
    private var drawnLines = 0
    private static let liveLinesMax = 12

    init(terminal: Terminal) { self.terminal = terminal }

    /// - Parameter lines: keyed by what they are about, in the order to show.
    mutating func update(_ lines: [(key: String, text: String)]) {
        let changed = lines.filter { shown[$0.key] != $0.text }
        guard !changed.isEmpty else { return }
        for line in changed { shown[line.key] = line.text }
        guard terminal.isErrorTTY else {
            for line in changed { terminal.note(line.text) }
            return
        }
        var text = erasing()
        let visible = lines.prefix(Self.liveLinesMax)
        for line in visible { text += line.text.truncated(to: max(20, terminal.width - 1)) + "\n" }
        drawnLines = visible.count
        if lines.count > visible.count {
            text += "  and \(lines.count - visible.count) more\n"
            drawnLines += 1
        }
        terminal.writeError(Array(text.utf8))
    }

    /// Takes the live lines away; what a pipe has got stays.
    mutating func clear() {
        guard drawnLines > 0 else { return }
        terminal.writeError(Array(erasing().utf8))
        drawnLines = 0
    }

    private func erasing() -> String { drawnLines > 0 ? "\u{1B}[\(drawnLines)A\u{1B}[J" : "" }
}
