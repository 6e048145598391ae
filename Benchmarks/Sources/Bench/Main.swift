// SPDX-License-Identifier: Apache-2.0
import Foundation

@main
enum Main {
    static let sections = [
        "start", "daemon", "memory", "names", "network", "programs", "overlay", "consensus", "loss", "cluster",
        "scheduler",
    ]
    /// Those that start what they need themselves, or need nothing.
    private static let alone: Set = ["overlay", "consensus", "loss", "cluster", "scheduler"]

    static func main() {
        signal(SIGPIPE, SIG_IGN)
        let arguments = Array(CommandLine.arguments.dropFirst())
        do {
            switch arguments.first {
            case "serve": try NetworkBench.serve()
            case "sink": try NetworkBench.sink()
            case "cross" where arguments.count == 2: try NetworkBench.cross(arguments[1])
            case "overlay-node" where arguments.count == 3:
                try OverlayBench.prepareNode(arguments[1], number: Int(arguments[2]) ?? 1)
            case "ask" where arguments.count == 4:
                try NetworkBench.ask(arguments[1], arguments[2], rounds: Int(arguments[3]) ?? 20)
            default: try measure(Set(arguments.isEmpty ? sections : arguments))
            }
        } catch {
            FileHandle.standardError.write(Data("error: \(error)\n".utf8))
            exit(1)
        }
    }

    private static func measure(_ wanted: Set<String>) throws {
        if let unknown = wanted.subtracting(sections).first {
            throw BenchError("`\(unknown)` is unknown\nhint: give some of \(sections.joined(separator: " "))")
        }
        let environment = ProcessInfo.processInfo.environment
        guard let directory = environment["DIRECTORY"], let binaries = environment["BINARIES"] else {
            throw BenchError("DIRECTORY and BINARIES are not set\nhint: start it as Benchmarks/run")
        }
        let rounds = max(10, environment["ROUNDS"].flatMap { Int($0) } ?? 15)
        let report = Report()
        if !wanted.isSubset(of: alone) {
            try measureNode(wanted, Node(directory: directory, binaries: binaries), report, rounds: rounds)
        }
        if wanted.contains("overlay") {
            try OverlayBench(directory: directory, report: report, rounds: rounds).run()
        }
        let clusters = ClusterBench(directory: directory, binaries: binaries, report: report, rounds: rounds)
        if wanted.contains("loss") { try clusters.runLoss() }
        if wanted.contains("cluster") { try clusters.run() }
        if wanted.contains("consensus") {
            try ConsensusBench(
                directory: directory, binaries: binaries, members: environment["MEMBERS"].flatMap { Int($0) } ?? 3,
                report: report, rounds: environment["ROUNDS"].flatMap { Int($0) } ?? 10,
                seconds: environment["SECONDS_EACH"].flatMap { Int($0) } ?? 2,
                objects: environment["OBJECTS"].flatMap { Int($0) } ?? 100_000
            ).run()
        }
        if wanted.contains("scheduler") {
            try SchedulerBench(binaries: binaries, report: report, rounds: min(rounds, 10)).run()
        }
        print("\nload average at the end \(Machine.load)")
    }

    private static func measureNode(_ wanted: Set<String>, _ node: Node, _ report: Report, rounds: Int) throws {
        try node.start()
        defer { node.kill9() }
        try Program.run([
            node.hivemind, "image", "import", "\(node.directory)/image.tar", "--name", node.image, "--socket",
            node.socket,
        ])
        if wanted.contains("daemon") { try DaemonBench(node: node, report: report, rounds: rounds).run() }
        if wanted.contains("start") { try StartBench(node: node, report: report, rounds: rounds).run() }
        if !wanted.isDisjoint(with: ["memory", "names"]) {
            try FiftyBench(node: node, report: report, rounds: rounds)
                .run(memory: wanted.contains("memory"), names: wanted.contains("names"))
        }
        if wanted.contains("network") { try NetworkBench(node: node, report: report, rounds: rounds).run() }
        if wanted.contains("programs") { try ProgramsBench(node: node, report: report, rounds: rounds).run() }
    }
}
