// SPDX-License-Identifier: Apache-2.0
import Foundation

/// The rows of the table, printed as they come.
final class Report {
    init() {
        print("\(Machine.line)\n")
        print("| what | unit | n | Hivemind: median (min - max) | peer: median (min - max) | ratio | aim |")
        print("|---|---|---|---|---|---|---|")
    }

    /// - Parameter aim: as text, with its bound on `judged`.
    func row(
        _ what: String, unit: String, ours: Samples, peer: (name: String, samples: Samples)? = nil, aim: String = ""
    ) {
        let beside = peer.map { "\($0.name): \($0.samples.text)" } ?? "-"
        let ratio = peer.map { String(format: "%.2f", ours.median / $0.samples.median) } ?? "-"
        print("| \(what) | \(unit) | \(ours.values.count) | \(ours.text) | \(beside) | \(ratio) | \(aim) |")
        fflush(nil)
    }

    func note(_ text: String) {
        FileHandle.standardError.write(Data("bench: \(text)\n".utf8))
    }
}

/// What a figure belongs to.
enum Machine {
    static var line: String {
        let environment = ProcessInfo.processInfo.environment
        let cpu =
            (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?
            .split(separator: "\n").first { $0.hasPrefix("model name") }?.split(separator: ":").last
            .map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown processor"
        let kernel = (try? String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8)) ?? ""
        let parts = [
            "\(ProcessInfo.processInfo.activeProcessorCount) CPUs (\(cpu))", system,
            "Linux \(kernel.trimmingCharacters(in: .whitespacesAndNewlines))", program("containerd", "--version"),
            program("runc", "--version"), "commit \(environment["COMMIT"] ?? "unknown")", "load average \(load)",
        ]
        return parts.filter { !$0.isEmpty }.joined(separator: "; ")
    }

    static var load: String {
        (try? String(contentsOfFile: "/proc/loadavg", encoding: .utf8))?
            .split(separator: " ").prefix(2).joined(separator: " ") ?? "?"
    }

    private static var system: String {
        (try? String(contentsOfFile: "/etc/os-release", encoding: .utf8))?
            .split(separator: "\n").first { $0.hasPrefix("PRETTY_NAME=") }
            .map { $0.dropFirst(12).trimmingCharacters(in: ["\""]) } ?? ""
    }

    private static func program(_ name: String, _ argument: String) -> String {
        let text = (try? Program.run([name, argument]).output) ?? ""
        let line = text.split(separator: "\n").first ?? ""
        return line.replacingOccurrences(of: "github.com/containerd/", with: "")
    }
}
