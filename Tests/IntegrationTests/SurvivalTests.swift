// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension BlackBox {
    @Suite struct Survival {
        @Test func `after kill -9 of the daemon apps answer on, and everything is taken over as it was`() async throws {
            try await withNode("survive") { daemon, registry in
                let (hello, writer) = (try await registry.push(.hello), try await registry.push(.writer))
                try await daemon.cli(["app", "deploy", "hello", "--image", hello] + helloFlags).checked()
                try await daemon.cli("app", "deploy", "writer", "--image", writer, "--env", "INTERVAL=0.01").checked()
                let before = try await daemon.waitRunning("hello", 3) + daemon.waitRunning("writer", 1)

                for round in 1...3 {
                    try await daemon.kill9()
                    #expect(
                        try await daemon.node.get("http://127.0.0.1:8080/").hasPrefix("hello 1.0"), "round \(round)")
                    // Some output while nobody is there to follow it.
                    try await always("the containers run", for: .milliseconds(500)) {
                        before.allSatisfy { Host.isAlive($0.pid) }
                    }
                    try await daemon.start()
                    let after = try await daemon.waitRunning("hello", 3) + daemon.waitRunning("writer", 1)
                    #expect(after.map(\.pid) == before.map(\.pid), "round \(round): same processes")
                    #expect(after.map(\.restarts) == before.map(\.restarts), "round \(round): no restarts")
                    #expect(after.map(\.address) == before.map(\.address), "round \(round): same addresses")
                }

                let lines = try await daemon.cli("app", "logs", "writer").checked().lines
                let numbers = lines.compactMap { $0.split(separator: " ").last.flatMap { Int($0) } }
                #expect(numbers.count > 100)
                #expect(numbers == Array(1...max(numbers.count, 1)), "no line lost, none twice, none out of order")
            }
        }

        @Test func `after kill -9 of containerd apps run on and the daemon brings it back`() async throws {
            try await withNode("ctrd") { daemon, registry in
                let image = try await registry.push(.hello)
                try await daemon.cli(["app", "deploy", "hello", "--image", image] + helloFlags).checked()
                let before = try await daemon.waitRunning("hello", 3)
                let containerd = try daemon.processes(named: "containerd")
                #expect(containerd.count == 1)
                try await Shell.run(["kill", "-9", "\(containerd[0])"]).checked()
                #expect(try await daemon.node.get("http://127.0.0.1:8080/").hasPrefix("hello 1.0"))
                try await eventually("containerd is back", within: .seconds(30)) {
                    let now = try daemon.processes(named: "containerd")
                    let ready = try await daemon.json("status")["runtime"]["is_ready"].bool
                    return now.count == 1 && now != containerd && ready == true
                }
                #expect(try await daemon.waitRunning("hello", 3).map(\.pid) == before.map(\.pid))
                // And it is of use: new containers start.
                try await daemon.cli("app", "scale", "hello", "4").checked()
                try await daemon.waitRunning("hello", 4)
            }
        }

        @Test func `a killed container runs again, and a reason is kept for it`() async throws {
            try await withNode("again") { daemon, registry in
                let image = try await registry.push(.hello)
                try await daemon.cli("app", "deploy", "hello", "--image", image, "--port", "8080:8080").checked()
                let before = try await daemon.waitRunning("hello", 1)[0]
                try await Shell.run(["kill", "-9", "\(before.pid)"]).checked()
                let after = try await eventually("it runs again") { () -> TestTask? in
                    let now = try await daemon.runningTasks("hello").first
                    return now?.pid == before.pid ? nil : now
                }
                #expect(after.id == before.id && after.restarts == 1 && after.address == before.address)
                #expect(after.exitCode == 137)
                try await eventually("it answers") {
                    try await daemon.node.get("http://127.0.0.1:8080/").hasPrefix("hello 1.0")
                }
            }
        }

        @Test func `a container over its memory limit is killed and the reason says so`() async throws {
            try await withNode("oom") { daemon, registry in
                let image = try await registry.push(.oom)
                let flags = ["--memory", "32m", "--restart", "no"]
                let deploy = try await daemon.cli(["app", "deploy", "oom", "--image", image] + flags)
                #expect(deploy.status == 9 || deploy.status == 0, "\(deploy)")
                let task = try await eventually("the reason is kept") {
                    try await daemon.tasks("oom", all: true).first { $0.reason == "out_of_memory" }
                }
                #expect(task.exitCode == 137)
            }
        }

        @Test func `limits of CPU, memory and processes hold inside the container`() async throws {
            try await withNode("limits") { daemon, registry in
                let image = try await registry.push(.sleeper)
                let flags = ["--cpu", "0.5", "--memory", "64m", "--pids", "20"]
                try await daemon.cli(["app", "deploy", "limits", "--image", image] + flags).checked()
                let task = try await daemon.waitRunning("limits", 1)[0]
                let groups = try await Shell.run(["cat", "/proc/\(task.pid)/cgroup"]).checked().lines
                func limit(_ controller: String, _ v1: String, _ v2: String) async throws -> String {
                    for line in groups {
                        let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
                        guard parts[1].split(separator: ",").contains(Substring(controller)) || parts[1].isEmpty else {
                            continue
                        }
                        let folder = parts[1].isEmpty ? "/sys/fs/cgroup" : "/sys/fs/cgroup/\(parts[1])"
                        let file = "\(folder)\(parts[2])/\(parts[1].isEmpty ? v2 : v1)"
                        let value = try await Shell.run(["cat", file])
                        if value.succeeded { return value.text }
                    }
                    return "none"
                }
                #expect(try await limit("memory", "memory.limit_in_bytes", "memory.max") == "67108864")
                #expect(try await limit("pids", "pids.max", "pids.max") == "20")
                let cpu = try await limit("cpu", "cpu.cfs_quota_us", "cpu.max")
                #expect(["50000", "50000 100000"].contains(cpu))
                let status = try await Shell.run(["cat", "/proc/\(task.pid)/status"]).checked().stdout
                #expect(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "\(status)")
            }
        }
    }
}
