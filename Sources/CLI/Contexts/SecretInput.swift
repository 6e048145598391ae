// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// What is typed and not shown.
enum SecretInput {
    /// One line of standard input; while it is a terminal, without echo. Ctrl-C counts as a character meanwhile (it would leave
    /// the terminal without echo), and makes the line none.
    static func readLine() -> String? {
        var before = termios()
        guard tcgetattr(STDIN_FILENO, &before) == 0 else { return Swift.readLine(strippingNewline: true) }
        var silent = before
        silent.c_lflag &= ~tcflag_t(ECHO | ISIG)
        silent.c_lflag |= tcflag_t(ECHONL)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent)
        defer { tcsetattr(STDIN_FILENO, TCSAFLUSH, &before) }
        guard let line = Swift.readLine(strippingNewline: true), !line.contains("\u{3}") else { return nil }
        return line
    }
}
