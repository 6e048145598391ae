// SPDX-License-Identifier: Apache-2.0
import Foundation

/// How long the leader takes to find nodes for tasks: its own core on a state in memory, in the simulator's binary.
struct SchedulerBench {
    let binaries: String
    let report: Report
    let rounds: Int

    static let nodes = 1_000
    static let tasks = 10_000

    func run() throws {
        let program = "\(binaries)/simulate"
        guard FileManager.default.isExecutableFile(atPath: program) else {
            throw BenchError("there is no \(program)\nhint: swift build -c release --product simulate")
        }
        let output = try Program.run([
            program, "schedule", "--nodes", "\(Self.nodes)", "--tasks", "\(Self.tasks)", "--rounds", "\(rounds)",
        ]).output
        var figures: [String: Samples] = [:]
        for line in output.split(separator: "\n") {
            let parts = line.split(separator: "\t")
            guard parts.count == 2, let value = Double(parts[1]) else { throw BenchError("what is `\(line)`?") }
            figures[String(parts[0]), default: Samples()].add(value)
        }
        let rows = [
            ("all decided", "10,000 tasks of 100 apps on 1,000 nodes: decided", ""),
            ("all applied", "the same until they stand in the state", "< 2000"),
            ("one placed", "one more task on them: node and address found", "< 1"),
            ("one decided", "one more task: from the change through the whole state to the decision", ""),
        ]
        for (name, what, aim) in rows {
            guard let samples = figures[name] else { throw BenchError("no figure for `\(name)`") }
            report.row(what, unit: "ms", ours: samples, aim: aim)
        }
    }
}
