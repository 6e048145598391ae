// SPDX-License-Identifier: Apache-2.0

/// One broken rule, at a place an editor can jump to.
struct Violation: Hashable, CustomStringConvertible {
    var file: String
    var line: Int
    var message: String
    var description: String { "\(file):\(line): \(message)" }
}

/// A file by its path in the repository.
struct SourceFile {
    var path: String
    var raw: String
    var text: SourceText

    init(path: String, raw: String) {
        self.path = path
        self.raw = raw
        text = SourceText(raw)
    }

    var name: String { path.split(separator: "/").last.map(String.init) ?? path }

    /// The names imported, with their lines.
    var imports: [(line: Int, module: String)] {
        let pattern =
            /^\s*(?:@\w+\s+)*(?:(?:public|package|internal|fileprivate|private)\s+)?import\s+(?:(?:struct|class|enum|protocol|func|var|let|typealias)\s+)?(\w+)/
        return text.lines.enumerated().compactMap { index, line in
            line.firstMatch(of: pattern).map { (index + 1, String($0.1)) }
        }
    }
}

/// Something every file of its ground keeps to.
struct Rule: Sendable {
    let name: String
    let check: @Sendable (SourceFile) -> [Violation]

    /// - Parameters:
    ///   - applies: which files the rule is about, by path.
    ///   - why: what to do instead.
    init(_ name: String, pattern: String, why: String, applies: @escaping @Sendable (String) -> Bool) {
        self.name = name
        check = { file in
            guard applies(file.path) else { return [] }
            guard let expression = try? Regex(pattern) else {
                return [Violation(file: file.path, line: 1, message: "the rule `\(name)` is not a regular expression")]
            }
            return file.text.lines(matching: expression.wordBoundaryKind(.simple)).map {
                Violation(file: file.path, line: $0, message: why)
            }
        }
    }

    init(_ name: String, check: @escaping @Sendable (SourceFile) -> [Violation]) {
        self.name = name
        self.check = check
    }
}

enum Rules {
    static let all: [Rule] = [imports, daemonImport, license, fileName, generalWord] + everywhere + pure

    // MARK: Imports

    /// design: allowed imports. The longest prefix that fits decides.
    static let rooms: [(prefix: String, modules: Set<String>)] = [
        ("Sources/Model/", ["FoundationEssentials"]),
        ("Sources/Raft/Consensus/", []),
        (
            "Sources/Raft/Store/",
            ["Model", "Raft", "Crypto", "GRDB", "GRDBSQLite", "FoundationEssentials", "Glibc", "Synchronization"]
        ),
        ("Sources/Daemon/Orchestrator/", ["Model", "Raft", "Store", "FoundationEssentials"]),
        ("Sources/Runtime/HTTPClient/", ["CCurl", "FoundationEssentials", "Glibc", "Synchronization"]),
        (
            "Sources/Runtime/ContainerdAPI/",
            ["SwiftProtobuf", "GRPCCore", "GRPCProtobuf", "Foundation", "FoundationEssentials"]
        ),
        // CoreFoundation: with gRPC it reaches this module anyway and declares C structs; see the comment at its imports.
        // Dispatch: a bounded pool of threads for file trees and archives, in one file.
        (
            "Sources/Runtime/ContainerRuntime/",
            [
                "Model", "ContainerdAPI", "CSeccomp", "HTTPClient", "CLinux", "Crypto", "GRPCCore", "GRPCProtobuf",
                "GRPCNIOTransportHTTP2", "GRPCNIOTransportHTTP2Posix", "GRPCNIOTransportCore", "Logging", "NIOCore",
                "SwiftProtobuf", "FoundationEssentials", "CoreFoundation", "Dispatch", "Glibc", "Synchronization",
            ]
        ),
        ("Sources/Runtime/LogCapture/", ["Glibc"]),
        (
            "Sources/Network/",
            ["Model", "CNetlink", "CNftables", "CLinux", "FoundationEssentials", "Glibc", "Synchronization"]
        ),
        ("Sources/Volumes/", ["Model", "FoundationEssentials", "Glibc", "Synchronization"]),
        (
            "Sources/Discovery/",
            ["Model", "NIOCore", "NIOPosix", "FoundationEssentials", "Glibc", "Synchronization"]
        ),
        (
            "Sources/Daemon/",
            [
                "Model", "Raft", "Store", "Orchestrator", "ContainerRuntime", "ContainerNetwork", "Volumes",
                "Discovery",
                "CLinux", "Hummingbird", "HummingbirdCore", "HTTPTypes", "ServiceLifecycle", "Logging", "NIOCore",
                "NIOPosix", "NIOHTTPTypes", "NIOSSL", "NIOTLS", "UnixSignals", "X509", "SwiftASN1", "Crypto",
                "FoundationEssentials", "Glibc", "HTTPClient", "Synchronization",
            ]
        ),
        // Dispatch: Ctrl-C as an event, in one file; a signal handler may call nothing of ours.
        (
            "Sources/CLI/",
            [
                "Model", "HTTPClient", "Daemon", "ArgumentParser", "Yams", "FoundationEssentials", "Dispatch", "Glibc",
                "Synchronization",
            ]
        ),
    ]

    static let imports = Rule("allowed imports") { file in
        guard file.path.hasPrefix("Sources/") else { return [] }
        let room = rooms.filter { file.path.hasPrefix($0.prefix) }.max { $0.prefix.count < $1.prefix.count }
        guard let room else {
            return [
                Violation(
                    file: file.path, line: 1, message: "belongs to no room; name it in Tests/TidyTests/Rules.swift")
            ]
        }
        return file.imports.filter { !room.modules.contains($0.module) }.map { line, module in
            let allowed = room.modules.isEmpty ? "nothing" : room.modules.sorted().joined(separator: ", ")
            return Violation(
                file: file.path, line: line, message: "\(room.prefix) may not import \(module), only: \(allowed)")
        }
    }

    /// The CLI is a client: only the verb `daemon` knows the daemon's module.
    static let daemonImport = Rule("only `hivemind daemon` imports Daemon") { file in
        guard file.path.hasPrefix("Sources/CLI/"), !file.name.hasPrefix("Daemon") else { return [] }
        return file.imports.filter { $0.module == "Daemon" }.map {
            Violation(file: file.path, line: $0.line, message: "only the file of `hivemind daemon` imports Daemon")
        }
    }

    // MARK: Every file

    static let license = Rule("licence line") { file in
        file.raw.hasPrefix("// SPDX-License-Identifier: Apache-2.0\n") || isGenerated(file.path)
            || file.raw.hasPrefix("// swift-tools-version:")
                && file.raw.contains("\n// SPDX-License-Identifier: Apache-2.0\n")
            ? [] : [Violation(file: file.path, line: 1, message: "the first line is not the SPDX line")]
    }

    static let fileName = Rule("file names say what is in them") { file in
        let base = file.name.split(separator: ".").first.map(String.init) ?? ""
        let words = ["Manager", "Managers", "Helper", "Helpers", "Util", "Utils", "Placeholder"]
        guard words.contains(where: { base.hasSuffix($0) }) else { return [] }
        return [Violation(file: file.path, line: 1, message: "name the idea of the file, not `\(base)`")]
    }

    /// The same for types: such a word names nothing.
    static let generalWord = Rule(
        "type names say what they are",
        pattern: #"\b(class|struct|enum|actor|protocol)\s+\w*(Manager|Helper|Util|Utils)\b"#,
        why: "name the idea of the type: no Manager, Helper or Util", applies: { isOurs($0) })

    static let everywhere: [Rule] = [
        Rule(
            "no try!", pattern: #"\btry!"#, why: "handle the error: no `try!`",
            applies: { isOurs($0) }),
        Rule(
            "no fatalError", pattern: #"\bfatalError\s*\("#,
            why: "throw an error, or `precondition` with the state in its text", applies: { isOurs($0) }),
        Rule(
            "no swallowed errors", pattern: #"\bcatch\s*\{\s*\}"#,
            why: "handle the error or say why it does not matter",
            applies: { isOurs($0) }),
        Rule(
            "no full Foundation over the network", pattern: #"\bimport\s+FoundationNetworking\b"#,
            why: "FoundationNetworking brings a second HTTP client and 30 libraries; use HTTPClient",
            applies: { isOurs($0) }),
        Rule("no notes to self") { file in
            guard isOurs(file.path) else { return [] }
            let marks = ["TO" + "DO", "FIX" + "ME"]
            return file.raw.split(separator: "\n", omittingEmptySubsequences: false).enumerated().compactMap {
                index, line in
                guard let comment = line.firstRange(of: "//"),
                    let mark = marks.first(where: { line[comment.lowerBound...].contains($0) })
                else { return nil }
                return Violation(file: file.path, line: index + 1, message: "do it now or say it in an issue: \(mark)")
            }
        },
    ]

    // MARK: Pure rooms

    static let pure: [Rule] = [
        Rule(
            "pure rooms are synchronous", pattern: #"\b(async|await)\b"#,
            why: "pure code has no `async`: take values in, give effects out", applies: { isPure($0) }),
        Rule(
            "pure rooms start no tasks",
            pattern: #"\bTask(\s*<[^>]*>)?(\.detached)?\s*(\(.*\))?\s*\{|\bTaskGroup\b|\bactor\s+\w+"#,
            why: "pure code starts no tasks", applies: { isPure($0) }),
        Rule(
            "pure rooms have no clock",
            pattern:
                #"\bDate\s*\(\)|\bDate\.now\b|\b(Continuous|Suspending)Clock\b|\bclock_gettime\b|\bgettimeofday\b|\btime\s*\(nil\)"#,
            why: "time comes in with the event", applies: { isPure($0) }),
        Rule(
            "pure rooms have no dice",
            pattern: #"\bUUID\s*\(\)|\bSystemRandomNumberGenerator\b|\barc4random|\bgetrandom\b"#,
            why: "randomness comes in with the event, from a seed", applies: { isPure($0) }),
        Rule("pure rooms name their generator") { file in
            guard isPure(file.path) else { return [] }
            // The argument list may go on over several lines: look at what follows up to the closing bracket.
            let code = file.text.lines.joined(separator: "\n")
            let calls = code.matches(
                of: /\.(random|randomElement|shuffled|shuffle)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)/)
            return calls.filter { !$0.2.contains("using:") }.map { call in
                let line = code[..<call.range.lowerBound].count { $0 == "\n" } + 1
                return Violation(
                    file: file.path, line: line, message: "`.\(call.1)` without `using:` is not repeatable")
            }
        },
        Rule(
            "pure rooms have no locks",
            pattern: #"\b(Mutex|NSLock|Atomic|pthread_mutex_\w+|DispatchQueue|OSAllocatedUnfairLock)\b"#,
            why: "pure code has one owner and no lock", applies: { isPure($0) }),
        Rule(
            "pure rooms print nothing", pattern: #"(^|[^.\w])(print|debugPrint|dump)\s*\(|\bLogger\b"#,
            why: "return it: pure code prints and logs nothing", applies: { isPure($0) }),
        Rule(
            "pure rooms read no environment", pattern: #"\b(ProcessInfo|getenv|CommandLine|FileManager)\b"#,
            why: "pure code knows no process, environment or file", applies: { isPure($0) }),
    ]

    /// Raft, the state machine and the Orchestrator; of Store all but the log file and snapshots, whose work is effects, and
    /// the files that only answer people: they wait for a reader's thread, watch a deadline, and nothing is decided by them.
    static func isPure(_ path: String) -> Bool {
        guard path.hasSuffix(".swift") else { return false }
        if path.hasPrefix("Sources/Raft/Consensus/") || path.hasPrefix("Sources/Daemon/Orchestrator/") { return true }
        return path.hasPrefix("Sources/Raft/Store/") && !isOnDisk(path) && !answersPeople(path)
    }

    private static func answersPeople(_ path: String) -> Bool {
        ["Sources/Raft/Store/Readers.swift", "Sources/Raft/Store/SQLQuery.swift"].contains(path)
    }

    private static func isOnDisk(_ path: String) -> Bool {
        let inside = path.dropFirst("Sources/Raft/Store/".count)
        return inside.hasPrefix("LogFile") || inside.hasPrefix("Log/") || inside.hasPrefix("Snapshots/")
    }

    private static func isGenerated(_ path: String) -> Bool { path.hasPrefix("Sources/Runtime/ContainerdAPI/") }
    private static func isOurs(_ path: String) -> Bool { !isGenerated(path) }
}
