// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Start of a container from a present image, beside `ctr run -d` on the same containerd; and after a `kill -9`.
struct StartBench {
    let node: Node
    let report: Report
    let rounds: Int

    func run() throws {
        let gate = try Gate("\(node.directory)/gate")
        let ctr = ["ctr", "--address", node.containerdSocket, "--namespace", "hivemind-bench"]
        try Program.run(ctr + ["images", "import", "\(node.directory)/image.tar"])
        let names = try Program.run(ctr + ["images", "ls", "-q"]).output.split(separator: "\n")
        guard let image = names.first.map(String.init) else { throw BenchError("ctr imported nothing") }
        let containers = (0...rounds).map { "bench-\($0)" }
        defer { for name in containers { try? remove(name, ctr) } }

        try node.put("start", services: ["start"], replicas: 0, command: gate.command, mounts: gate.mounts)
        var ours = Samples()
        var theirs = Samples()
        var shown = Samples()
        var returned = Samples()
        var inside = Samples()
        // Round 0 warms both: caches, and our look into the image.
        for round in 0...rounds {
            var began = now()
            try node.scale("start", to: round + 1)
            try gate.pass()
            let ran = now() - began
            try node.waitRunning("start", round + 1)
            let seen = now() - began
            usleep(150_000)

            began = now()
            let mount = "type=bind,src=\(gate.directory),dst=/gate,options=rbind:rw"
            let program = try Program(
                ctr + ["run", "-d", "--mount", mount, image, containers[round]] + gate.command,
                output: "\(node.directory)/ctr.log")
            try gate.pass()
            let peerRan = now() - began
            guard program.wait() == 0 else { throw BenchError("ctr run failed") }
            let peerReturned = now() - began
            usleep(150_000)
            guard round > 0 else { continue }
            ours.add(ran)
            shown.add(seen)
            theirs.add(peerRan)
            returned.add(peerReturned)
        }
        for task in try node.tasks("start") { if let took = task.milliseconds { inside.add(took) } }
        report.row(
            "create -> process runs, image present", unit: "ms", ours: ours, peer: ("ctr run -d", theirs),
            aim: "<= 1.0 x")
        report.row("create -> shown as running / returned", unit: "ms", ours: shown, peer: ("ctr run -d", returned))
        report.row("the same by the task's own times, created_at -> started_at", unit: "ms", ours: inside)
        try restarts(gate, count: min(rounds, 15))
        try node.delete("start")
    }

    /// Each of another task: the second failure of one within ten seconds waits half a second by design.
    private func restarts(_ gate: Gate, count: Int) throws {
        let tasks = try node.waitRunning("start", rounds + 1)
        var samples = Samples()
        for task in tasks.prefix(count) {
            let began = now()
            kill(task.pid, SIGKILL)
            try gate.pass()
            samples.add(now() - began)
            usleep(300_000)
        }
        report.row("kill -9 of a container's process -> its replacement runs", unit: "ms", ours: samples, aim: "< 150")
    }

    private func remove(_ name: String, _ ctr: [String]) throws {
        try Program.run(ctr + ["tasks", "rm", "--force", name])
        try Program.run(ctr + ["containers", "rm", name])
    }
}
