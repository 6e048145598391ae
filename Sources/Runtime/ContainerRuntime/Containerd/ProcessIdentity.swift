// SPDX-License-Identifier: Apache-2.0
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import Glibc

/// One process, told apart from a later one with the same number by when it started.
struct ProcessIdentity: Hashable, Sendable {
    var pid: pid_t
    /// In clock ticks since boot, field 22 of /proc/<pid>/stat.
    var startTicks: UInt64

    /// Nil when no such process runs; a zombie does not run.
    init?(pid: pid_t) {
        guard pid > 0, let stat = HostFacts.text("/proc/\(pid)/stat"), let end = stat.lastIndex(of: ")") else {
            return nil
        }
        // The name before may hold anything, so fields are counted behind it: state is the third.
        let fields = stat[stat.index(after: end)...].split(separator: " ")
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X", let ticks = UInt64(fields[19]) else { return nil }
        self.pid = pid
        startTicks = ticks
    }

    /// `<pid> <ticks>`, as in the pid file.
    init?(text: String) {
        let parts = text.split(whereSeparator: \.isWhitespace)
        guard parts.count == 2, let pid = pid_t(parts[0]), let ticks = UInt64(parts[1]), pid > 0 else { return nil }
        self.pid = pid
        startTicks = ticks
    }

    var text: String { "\(pid) \(startTicks)\n" }
    var isRunning: Bool { ProcessIdentity(pid: pid) == self }

    /// Words of the command line.
    static func arguments(of pid: pid_t) -> [String] {
        guard let text = HostFacts.text("/proc/\(pid)/cmdline") else { return [] }
        return text.split(separator: "\0", omittingEmptySubsequences: true).map(String.init)
    }
}
