// SPDX-License-Identifier: Apache-2.0
import Testing

/// A rule that finds nothing in planted text would find nothing in the tree either.
@Suite struct RulesTests {
    static let head = "// SPDX-License-Identifier: Apache-2.0\n"

    /// What every rule together says about one file, as `line`s.
    static func lines(_ path: String, _ code: String) -> [Int] {
        let file = SourceFile(path: path, raw: head + code)
        return Rules.all.flatMap { $0.check(file) }.map(\.line).sorted()
    }

    @Test(arguments: [
        ("Sources/Raft/Consensus/A.swift", "import FoundationEssentials"),
        ("Sources/Raft/Consensus/A.swift", "internal import Model"),
        ("Sources/Model/A.swift", "public import Foundation"),
        ("Sources/Raft/Store/A.swift", "internal import Orchestrator"),
        ("Sources/Daemon/Orchestrator/A.swift", "@testable import NIOCore"),
        ("Sources/Network/A.swift", "private import struct Volumes.Volume"),
        ("Sources/Volumes/A.swift", "@preconcurrency internal import ContainerNetwork"),
        ("Sources/Discovery/A.swift", "import Store"),
        ("Sources/Runtime/ContainerRuntime/A.swift", "internal import GRDB"),
        ("Sources/Runtime/LogCapture/main.swift", "import FoundationEssentials"),
        ("Sources/Daemon/A.swift", "internal import ArgumentParser"),
        ("Sources/CLI/A.swift", "import Store"),
        ("Sources/CLI/Commands/AppDeploy.swift", "import Daemon"),
        ("Sources/Elsewhere/A.swift", ""),
        ("Tests/ModelTests/A.swift", "import FoundationNetworking"),
    ])
    func `a forbidden import is found`(path: String, code: String) {
        #expect(Self.lines(path, code).isEmpty == false, "\(path): \(code)")
    }

    @Test(arguments: [
        ("Sources/Raft/Store/A.swift", "internal import GRDB\npublic import Model\nimport Raft"),
        ("Sources/CLI/Commands/DaemonCommand.swift", "internal import Daemon"),
        ("Sources/Daemon/Services.swift", "internal import Hummingbird\ninternal import Volumes"),
        ("Sources/Runtime/ContainerRuntime/A.swift", "internal import HTTPClient\n// import GRDB"),
    ])
    func `an allowed import is not`(path: String, code: String) {
        #expect(Self.lines(path, code).isEmpty, "\(path): \(code)")
    }

    @Test(arguments: [
        "func run() async {}", "let x = await y()", "Task { work() }", "Task.detached { work() }", "actor Cell {}",
        "Task(priority: .high) { work() }", "Task<Void, Never> { work() }",
        "let now = Date()", "let now = Date.now", "let clock = ContinuousClock()", "let t = time(nil)",
        "let id = UUID()", "let n = Int.random(in: 0..<3)", "let s = list.shuffled()", "list.shuffle()",
        "let e = list.randomElement()", "let n = Int.random(\n    in: f(3)\n)",
        "var g = SystemRandomNumberGenerator()", "let state = Mutex(0)", "let l = NSLock()", "print(x)",
        "    debugPrint(x)", "let e = ProcessInfo.processInfo", "let e = getenv(\"A\")", "let f = FileManager.default",
        "let log: Logger", #"let text = "\(Date())""#,
    ])
    func `an effect in a pure room is found`(code: String) {
        for path in [
            "Sources/Raft/Consensus/A.swift", "Sources/Raft/Store/A.swift", "Sources/Daemon/Orchestrator/A.swift",
        ] {
            #expect(Self.lines(path, code).isEmpty == false, "\(path): \(code)")
        }
        #expect(Self.lines("Sources/Daemon/Agent/A.swift", code).isEmpty, "the Daemon may: \(code)")
    }

    @Test(arguments: [
        "let n = Int.random(in: 0..<3, using: &random)", "let s = list.shuffled(using: &random)",
        "let n = Int.random(\n    in: f(3),\n    using: &random\n)", "// print(x)", "/* await /* Date() */ UUID() */",
        #"let s = "await Date()""#, ##"let s = #"UUID() \(x)"#"##, "let s = \"\"\"\n  async Task { }\n  \"\"\"",
        "let awaited = asyncName", "struct TaskView {}", "let task = Task(id: 3)", "sprint(x)", "self.print(x)",
        "case date(Date)", #"let s = "\"" + "Date()""#,
    ])
    func `what only looks like an effect is not`(code: String) {
        #expect(Self.lines("Sources/Raft/Store/A.swift", code).isEmpty, "\(code)")
    }

    @Test func `the log file may have effects, and only it`() {
        #expect(Self.lines("Sources/Raft/Store/LogFile.swift", "let m = Mutex(0)").isEmpty)
        #expect(Self.lines("Sources/Raft/Store/Log/Segment.swift", "let m = Mutex(0)").isEmpty)
        #expect(Self.lines("Sources/Raft/Store/LogicalClock.swift", "let m = Mutex(0)") == [2])
    }

    @Test(arguments: [
        "let x = try! f()", "fatalError(\"no\")", "do { try f() } catch {}", "do { try f() } catch { }",
        "// " + "TO" + "DO: later", "let x = 1  // " + "FIX" + "ME", "final class PeerManager {}",
        "enum StringUtils {}",
    ])
    func `a shortcut is found anywhere`(code: String) {
        for path in ["Sources/Volumes/A.swift", "Tests/VolumesTests/A.swift"] {
            #expect(Self.lines(path, code) == [2], "\(path): \(code)")
        }
    }

    @Test func `the line is that of the first character of what is wrong`() {
        let code =
            "struct A {\n    /* one\n       two */\n    let text = \"\"\"\n        x\n        \"\"\"\n    let d = Date()\n}"
        #expect(Self.lines("Sources/Raft/Store/A.swift", code) == [8])
    }

    @Test func `a missing licence line and a word that says nothing are found`() {
        let bare = SourceFile(path: "Sources/Model/A.swift", raw: "struct A {}\n")
        #expect(
            Rules.license.check(bare).map(\.description) == [
                "Sources/Model/A.swift:1: the first line is not the SPDX line"
            ])
        for name in ["PeerManager", "PathHelper", "StringUtils"] {
            #expect(Self.lines("Sources/Model/\(name).swift", "struct A {}") == [1], "\(name)")
        }
        #expect(Self.lines("Sources/Model/Utility.swift", "struct A {}").isEmpty)
    }
}
