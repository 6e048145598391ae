// SPDX-License-Identifier: Apache-2.0

/// Signals by name, as images and people write them: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
enum Signal {
    static let kill: UInt32 = 9
    static let terminate: UInt32 = 15

    /// Numbers of x86-64 and arm64, which are the same.
    private static let numbers: [String: UInt32] = [
        "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9,
        "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18,
        "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27,
        "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31, "RTMIN": 34, "RTMAX": 64,
    ]

    /// Nil for what is no signal.
    static func number(_ text: String) -> UInt32? {
        if let number = UInt32(text) { return (1...64).contains(number) ? number : nil }
        var name = text.uppercased()
        if name.hasPrefix("SIG") { name.removeFirst(3) }
        if let number = numbers[name] { return number }
        for (prefix, base, sign) in [("RTMIN+", 34, 1), ("RTMAX-", 64, -1)] where name.hasPrefix(prefix) {
            guard let offset = Int(name.dropFirst(prefix.count)), (0...30).contains(offset) else { return nil }
            return UInt32(base + sign * offset)
        }
        return nil
    }
}
