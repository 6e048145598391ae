// SPDX-License-Identifier: Apache-2.0
import Foundation

/// How long a daemon needs until it answers, and what memory it holds then. The node has no containers.
struct DaemonBench {
    let node: Node
    let report: Report
    let rounds: Int

    func run() throws {
        var whole = Samples()
        var alone = Samples()
        var beyond = Samples()
        var adopted = Samples()
        var resident = Samples()
        var proportional = Samples()
        for round in 0...rounds {
            try node.kill9WithContainerd()
            let containerd = try startOfContainerd()
            let full = try node.start()
            usleep(1_000_000)
            let memory = Memory(node.daemonPID)
            node.kill9()
            let adoption = try node.start()
            guard round > 0 else { continue }
            whole.add(full)
            alone.add(containerd)
            beyond.add(full - containerd)
            adopted.add(adoption)
            resident.add(memory.resident)
            proportional.add(memory.proportional)
        }
        report.row(
            "daemon and its containerd: exec -> ready", unit: "ms", ours: whole, peer: ("containerd alone", alone))
        report.row("of that beyond containerd's own start", unit: "ms", ours: beyond, aim: "< 150")
        report.row("daemon after kill -9, containerd runs: exec -> ready", unit: "ms", ours: adopted, aim: "< 150")
        report.row("daemon idle, RSS", unit: "MB", ours: resident, aim: "< 40")
        report.row("daemon idle, PSS", unit: "MB", ours: proportional)
    }

    /// The same program and configuration, until its Version service answers.
    private func startOfContainerd() throws -> Double {
        let began = now()
        let program = try Program(
            ["containerd", "--config", "\(node.data)/containerd/config.toml"],
            output: "\(node.directory)/containerd.log")
        defer {
            program.kill(SIGKILL)
            program.wait()
        }
        return try eventually("containerd answers", everyMicroseconds: 500) {
            guard let connection = Connection(node.containerdSocket), try connection.containerdAnswers() else {
                return nil
            }
            return now() - began
        }
    }
}

/// Megabytes (10^6) of a process.
struct Memory {
    var resident = Double.nan
    var proportional = Double.nan

    init(_ pid: pid_t) {
        guard let text = try? String(contentsOfFile: "/proc/\(pid)/smaps_rollup", encoding: .utf8) else { return }
        for line in text.split(separator: "\n") {
            let words = line.split(whereSeparator: \.isWhitespace)
            guard words.count >= 2, let kibibytes = Double(words[1]) else { continue }
            if words[0] == "Rss:" { resident = kibibytes * 1024 / 1e6 }
            if words[0] == "Pss:" { proportional = kibibytes * 1024 / 1e6 }
        }
    }
}
