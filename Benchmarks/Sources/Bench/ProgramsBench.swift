// SPDX-License-Identifier: Apache-2.0
import Foundation

/// The programs themselves: their size and the time of a command.
struct ProgramsBench {
    let node: Node
    let report: Report
    let rounds: Int

    func run() throws {
        for name in ["hivemind", "hivemind-log"] {
            var size = Samples()
            size.add(Double(try self.size("\(node.binaries)/\(name)")) / 1e6)
            report.row("size of `\(name)` as built", unit: "MB", ours: size)
            let copy = "\(node.directory)/stripped"
            try Program.run(["strip", "-o", copy, "\(node.binaries)/\(name)"])
            var stripped = Samples()
            stripped.add(Double(try self.size(copy)) / 1e6)
            report.row("size of `\(name)`, stripped", unit: "MB", ours: stripped)
        }
        var ours = Samples()
        var theirs = Samples()
        for round in 0...max(rounds, 20) {
            let mine = try Program.run([node.hivemind, "version", "--socket", node.socket]).milliseconds
            let peers = try Program.run(["ctr", "--address", node.containerdSocket, "version"]).milliseconds
            guard round > 0 else { continue }
            ours.add(mine)
            theirs.add(peers)
        }
        report.row("`version` of the CLI, asking the daemon", unit: "ms", ours: ours, peer: ("ctr version", theirs))
    }

    private func size(_ path: String) throws -> Int {
        try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
    }
}
