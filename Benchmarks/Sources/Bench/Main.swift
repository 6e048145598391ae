// SPDX-License-Identifier: Apache-2.0
import Foundation

@main
enum Main {
    static let sections = ["start", "daemon", "memory", "names", "network", "programs"]

    static func main() {
        signal(SIGPIPE, SIG_IGN)
        let arguments = Array(CommandLine.arguments.dropFirst())
        do {
            switch arguments.first {
            case "serve": try NetworkBench.serve()
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
        let node = Node(directory: directory, binaries: binaries)
        let report = Report()
        try node.start()
        defer { node.kill9() }
        try Program.run([
            node.hivemind, "image", "import", "\(directory)/image.tar", "--name", node.image, "--socket", node.socket,
        ])
        if wanted.contains("daemon") { try DaemonBench(node: node, report: report, rounds: rounds).run() }
        if wanted.contains("start") { try StartBench(node: node, report: report, rounds: rounds).run() }
        if !wanted.isDisjoint(with: ["memory", "names"]) {
            try FiftyBench(node: node, report: report, rounds: rounds)
                .run(memory: wanted.contains("memory"), names: wanted.contains("names"))
        }
        if wanted.contains("network") { try NetworkBench(node: node, report: report, rounds: rounds).run() }
        if wanted.contains("programs") { try ProgramsBench(node: node, report: report, rounds: rounds).run() }
        print("\nload average at the end \(Machine.load)")
    }
}
