// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension BlackBox {
    @Suite struct Volumes {
        @Test func `data of a volume outlives its app, and a volume in use is not deleted`() async throws {
            try await withNode("volume") { daemon, registry in
                let image = try await registry.push(.hello)
                try await daemon.cli("volume", "create", "visits").checked()
                let flags = [
                    "app", "deploy", "web", "--image", image, "--volume", "visits:/data", "--port", "8080:8080",
                ]
                try await daemon.cli(flags).checked()
                for count in 1...3 {
                    #expect(try await visits(daemon) == count)
                }

                let refused = try await daemon.cli("volume", "delete", "visits", "--yes")
                #expect(refused.status == 7, "\(refused)")
                #expect(refused.stderr.contains("web"), "names who uses it: \(refused)")
                #expect(try await daemon.json("volume", "info", "visits")["used_by"].array == [.string("web")])

                try await daemon.cli("app", "restart", "web").checked()
                #expect(try await visits(daemon) == 4)
                try await daemon.delete("web")
                try await daemon.cli(flags + ["--env", "CHANGED=1"]).checked()
                #expect(try await visits(daemon) == 5)
                try await daemon.restart()
                #expect(try await visits(daemon) == 6)

                try await daemon.delete("web")
                let path = try #require(try await daemon.json("volume", "info", "visits")["path"].string)
                try await daemon.cli("volume", "delete", "visits", "--yes").checked()
                #expect(try await daemon.json("volume", "ls").items.isEmpty)
                #expect(try await Shell.run(["test", "-e", path]).status == 1, "\(path) is still there")
            }
        }

        @Test func `a new volume gets owner and content from the image, and only once`() async throws {
            try await withNode("owner") { daemon, registry in
                let image = try await registry.push(.owner)
                try await daemon.cli("app", "deploy", "owner", "--image", image, "--volume", "data:/data").checked()
                let task = try await daemon.waitRunning("owner", 1)[0]
                let path = try #require(try await daemon.json("volume", "info", "data")["path"].string)
                func look() async throws -> String {
                    try await Shell.run(["stat", "-c", "%u:%g %a", path, "\(path)/seed.txt", "\(path)/written"])
                        .checked().text
                }
                try await eventually("the container has written") {
                    try await look() == "1000:1000 750\n1000:1000 640\n1000:1000 644"
                }
                #expect(try await daemon.inContainer(task, "id", "-u").succeeded)

                // A file taken away stays away: the volume is the app's now.
                try await Shell.run(["rm", "\(path)/seed.txt"]).checked()
                try await daemon.cli("app", "restart", "owner").checked()
                try await daemon.waitRunning("owner", 1)
                #expect(try await Shell.run(["test", "-e", "\(path)/seed.txt"]).status == 1)
            }
        }

        @Test func `a read-only mount, a tmpfs and a bind mount are what they say`() async throws {
            try await withNode("mounts") { daemon, registry in
                let image = try await registry.push(.sleeper)
                try daemon.directory.write("from the node\n", to: "shared.txt")
                let mounts = [
                    "--volume", "data:/data:ro", "--volume", "\(daemon.directory.path):/node:ro",
                    "--tmpfs", "/scratch:size=1m",
                ]
                try await daemon.cli(["app", "deploy", "mounts", "--image", image] + mounts).checked()
                let task = try await daemon.waitRunning("mounts", 1)[0]
                #expect(try await daemon.inContainer(task, "touch", "/data/x").status != 0)
                #expect(try await daemon.inContainer(task, "cat", "/node/shared.txt").text == "from the node")
                #expect(try await daemon.inContainer(task, "touch", "/node/x").status != 0)
                #expect(try await daemon.inContainer(task, "touch", "/scratch/x").succeeded)
                let fill = try await daemon.inContainer(
                    task, "dd", "if=/dev/zero", "of=/scratch/big", "bs=64k", "count=32")
                #expect(fill.status != 0, "2 MiB do not fit into 1 MiB")

                let absent = try await daemon.cli(
                    "app", "deploy", "absent", "--image", image, "--volume", "/no/such/folder:/x")
                #expect([2, 8, 9].contains(absent.status), "\(absent)")
                #expect(absent.stderr.contains("/no/such/folder"))
            }
        }

        private func visits(_ daemon: TestDaemon) async throws -> Int {
            let page = try await eventually("the app answers") { try await daemon.node.get("http://127.0.0.1:8080/") }
            return page.split(separator: "\n").last?.split(separator: " ").last.flatMap { Int($0) } ?? 0
        }
    }
}
