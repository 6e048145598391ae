// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

/// Commands in the documents are run as they stand, in order.
struct Document {
    /// Commands that the rig has done already: it built the program and started a daemon.
    static let done = ["make build", "make demo", "make test", "make help", "sudo .build/release/hivemind daemon &"]
    let path: String
    /// The text of all ```sh blocks; a block marked ```console or ```text is not run.
    let script: String
    let skipped: [String]

    init(_ path: String) throws {
        self.path = path
        var lines: [String] = []
        var skipped: [String] = []
        var inside = false
        for line in try Repository.text(path).split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("```") {
                inside = line == "```sh"
            } else if inside {
                if Self.done.contains(String(line)) { skipped.append(String(line)) } else { lines.append(String(line)) }
            }
        }
        script = lines.joined(separator: "\n") + "\n"
        self.skipped = skipped
    }
}

extension BlackBox {
    @Suite struct Documents {
        @Test(arguments: ["README.md", "docs/tutorials/first-app.md", "docs/how-to/back-up-a-volume.md"])
        func `every command of the document works`(path: String) async throws {
            let document = try Document(path)
            try #require(document.script.contains("hivemind "), "\(path) has commands")
            try await withTestDaemon("docs") { daemon in
                // The reader stands in the repository; files the commands make do not belong there.
                let folder = daemon.directory.file("reader")
                try await Shell.run(["mkdir", folder]).checked()
                try await Shell.run(["ln", "-s", Repository.script(""), "\(folder)/scripts"]).checked()
                let programs = Repository.binary.split(separator: "/").dropLast().joined(separator: "/")
                let output = try await Shell.run(
                    daemon.node.prefix + [
                        "bash", "-euxo", "pipefail", "-c", "PATH=/\(programs):$PATH\n" + document.script,
                    ],
                    environment: ["HIVEMIND_SOCKET": daemon.socket], directory: folder, timeout: .seconds(300))
                #expect(output.succeeded, "\(path):\n\(output.stderr)\n\(output.stdout)")
                // A tutorial leaves the machine as it found it.
                #expect(try await daemon.json("app", "ls").items.isEmpty, "\(path) leaves apps behind")
                #expect(try await daemon.json("volume", "ls").items.isEmpty, "\(path) leaves volumes behind")
            }
        }

        @Test func `every command of the first cluster works, on this machine as it is`() async throws {
            let document = try Document("docs/tutorials/first-cluster.md")
            try await withTemporaryDirectory("docs") { directory in
                try await Shell.run(["ln", "-s", Repository.script(""), directory.file("scripts")]).checked()
                let programs = Repository.binary.split(separator: "/").dropLast().joined(separator: "/")
                let clean = "trap 'hivemind dev cluster down >/dev/null 2>&1 || true' EXIT\n"
                let output = try await Shell.run(
                    ["bash", "-euxo", "pipefail", "-c", "PATH=/\(programs):$PATH\n" + clean + document.script],
                    directory: directory.path, timeout: .seconds(300))
                #expect(output.succeeded, "\(output.stderr)\n\(output.stdout)")
                #expect(output.stdout.components(of: "hello 1.0 from") == 3, "each node answers: \(output.stdout)")
                let left = try await Shell.run(["sh", "-c", "ip netns list; ip -br link; ls -d /var/lib/hivemind-dev"])
                #expect(!left.stdout.contains("hivedev") && !left.stdout.contains("hivemind-dev"), "\(left.stdout)")
            }
        }
    }
}

extension String {
    fileprivate func components(of part: String) -> Int { ranges(of: part).count }
}
