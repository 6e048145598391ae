// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Fifty services of one container each: memory, adoption, and the name server beside dnsmasq with the same names.
struct FiftyBench {
    let node: Node
    let report: Report
    let rounds: Int
    private let services = (1...50).map { String(format: "service-%02d", $0) }

    func run(memory: Bool, names: Bool) throws {
        let began = now()
        try node.put("fifty", services: services, replicas: 1, command: ["/bin/sleep", "100000"])
        try node.waitRunning("fifty", 50)
        var deployed = Samples()
        deployed.add(now() - began)
        if memory {
            report.row("50 containers: deploy -> all shown as running", unit: "ms", ours: deployed)
            try measureMemory()
        }
        if names { try measureNames() }
        try node.delete("fifty")
    }

    private func measureMemory() throws {
        usleep(5_000_000)
        var fresh = (rss: Samples(), pss: Samples())
        fresh.rss.add(Memory(node.daemonPID).resident)
        fresh.pss.add(Memory(node.daemonPID).proportional)
        report.row("50 containers, the daemon that started them, RSS", unit: "MB", ours: fresh.rss, aim: "< 50")
        report.row("50 containers, the daemon that started them, PSS", unit: "MB", ours: fresh.pss)
        var adopted = (rss: Samples(), pss: Samples(), ready: Samples())
        for _ in 0..<10 {
            node.kill9()
            adopted.ready.add(try node.start())
            usleep(1_000_000)
            adopted.rss.add(Memory(node.daemonPID).resident)
            adopted.pss.add(Memory(node.daemonPID).proportional)
        }
        report.row("50 containers, a daemon that adopted them, RSS", unit: "MB", ours: adopted.rss, aim: "< 50")
        report.row("50 containers, a daemon that adopted them, PSS", unit: "MB", ours: adopted.pss)
        report.row("50 containers, daemon after kill -9: exec -> ready", unit: "ms", ours: adopted.ready)
        var containerd = Samples()
        if let pid = node.containerdPID { containerd.add(Memory(pid).resident) }
        report.row("50 containers, containerd beside it, RSS", unit: "MB", ours: containerd)
    }

    private func measureNames() throws {
        let names = services.map { "\($0).fifty.default.hive.internal" }
        let questions = "\(node.directory)/questions"
        try names.map { "\($0) A\n" }.joined().write(toFile: questions, atomically: true, encoding: .utf8)
        let hosts = names.enumerated().map { "10.211.9.\($0.offset + 1) \($0.element)\n" }.joined()
        try hosts.write(toFile: "\(node.directory)/hosts", atomically: true, encoding: .utf8)
        let dnsmasq = try Program(
            [
                "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=5354",
                "--listen-address=127.0.0.1", "--bind-interfaces", "--addn-hosts=\(node.directory)/hosts",
                "--pid-file=", "--user=root",
            ], output: "\(node.directory)/dnsmasq.log")
        defer {
            dnsmasq.kill(SIGTERM)
            dnsmasq.wait()
        }
        usleep(300_000)
        for outstanding in [16, 64] {
            var ours = Samples()
            var theirs = Samples()
            for _ in 0..<max(10, rounds) {
                ours.add(try ask("169.254.20.10", 53, questions, outstanding))
                theirs.add(try ask("127.0.0.1", 5354, questions, outstanding))
            }
            report.row(
                "DNS answers, \(outstanding) outstanding", unit: "1/s", ours: ours, peer: ("dnsmasq", theirs),
                aim: ">= 1.0 x")
        }
    }

    private func ask(_ address: String, _ port: Int, _ questions: String, _ outstanding: Int) throws -> Double {
        let text = try Program.run([
            "dnsperf", "-s", address, "-p", "\(port)", "-d", questions, "-l", "1", "-c", "1", "-q", "\(outstanding)",
        ]).output
        func number(_ label: String) -> Double? {
            text.split(separator: "\n").first { $0.contains(label) }
                .flatMap { $0.split(separator: ":").last?.split(separator: " ").first }.flatMap { Double($0) }
        }
        guard text.contains("NOERROR"), !text.contains("NXDOMAIN"), !text.contains("SERVFAIL"),
            let lost = number("Queries lost"), lost == 0, let rate = number("Queries per second")
        else { throw BenchError("dnsperf of \(address): \(text)") }
        return rate
    }
}
