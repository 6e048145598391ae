// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Daemon
internal import Model

struct AdminCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "admin", abstract: "Back the cluster up, restore it, look into what a daemon left on disk.",
        subcommands: [AdminBackup.self, AdminRestore.self, AdminLogCommand.self])
}

struct AdminLogCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "log", abstract: "Look at the log of a data directory; nothing is changed.",
        subcommands: [AdminLogInspect.self, AdminLogVerify.self])
}

/// On verbs that read a data directory and need no daemon.
struct OfflineOptions: ParsableArguments {
    static let defaultDirectory = "/var/lib/hivemind"

    @Option(
        help: ArgumentHelp(
            "Data directory (HIVEMIND_DATA_DIR; default /var/lib/hivemind).", valueName: "dir"),
        completion: .directory)
    var dataDir: String?

    @Option(
        name: [.customShort("o"), .long],
        help: ArgumentHelp("How data is shown (HIVEMIND_OUTPUT; default table).", valueName: "format"))
    var output: OutputFormat?

    func directory(_ terminal: Terminal) -> String {
        let path = dataDir ?? terminal.setting("HIVEMIND_DATA_DIR") ?? Self.defaultDirectory
        return path.hasPrefix("/") ? path : MountParser.normalized("\(terminal.workingDirectory)/\(path)")
    }

    func result() throws(CLIError) -> Output {
        let terminal = Terminal.current
        return Output(format: try OutputFormat.chosen(output, terminal), terminal: terminal)
    }
}

struct AdminLogInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show what the log holds: segments, terms, memberships, records.",
        discussion: """
            Reads the files of a stopped daemon, or a copy of its data directory. With -o name the segment files.

            Examples:
              hivemind admin log inspect
              hivemind admin log inspect --data-dir /mnt/copy --records 20
              hivemind admin log inspect -o json
            """)

    @Option(help: ArgumentHelp("List the newest records, this many (default 0).", valueName: "n"))
    var records = 0
    @OptionGroup(title: "Common") var options: OfflineOptions

    func validate() throws {
        guard (0...1_000_000).contains(records) else {
            throw ValidationError("--records \(records) is not in 0 to 1000000")
        }
    }

    func run() async throws {
        let output = try options.result()
        let report = try AdminLog.read(options, output, records: records)
        try AdminLog.show(report, output)
    }
}

struct AdminLogVerify: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Check every byte of the log; ends with 1 if it is damaged.",
        discussion: """
            An unfinished last record is no damage: a crash leaves it, and the next start cuts it off.

            Examples:
              hivemind admin log verify
              hivemind admin log verify --data-dir /mnt/copy -o json
            """)

    @OptionGroup(title: "Common") var options: OfflineOptions

    func run() async throws {
        let output = try options.result()
        let report = try AdminLog.read(options, output, records: 0)
        try output.show(json: try AdminLog.json(report), names: [report.verdict]) { style in
            var block = Block()
            AdminLog.addVerdict(report, to: &block)
            return block.rendered(style)
        }
        guard report.isDamaged else { return }
        throw CLIError(
            .general, "the log in `\(report.directory)` is damaged: \(report.summary)",
            hint: "this node must not go on with it: replace the node, or restore a backup")
    }
}

/// What both verbs share.
private enum AdminLog {
    static func read(_ options: OfflineOptions, _ output: Output, records: Int) throws(CLIError) -> LogReport {
        do {
            return try LogReport.read(dataDirectory: options.directory(output.terminal), records: records)
        } catch {
            let exit: ExitStatus =
                switch error.code {
                case .notFound: .notFound
                case .conflict: .conflict
                default: .general
                }
            throw CLIError(exit, error.detail, hint: error.hint)
        }
    }

    static func json(_ report: LogReport) throws -> [UInt8] { Array(try JSON.encode(report)) }

    static func show(_ report: LogReport, _ output: Output) throws {
        try output.show(json: try json(report), names: report.segments.map(\.file)) { style in
            block(report).rendered(style)
        }
    }

    static func addVerdict(_ report: LogReport, to block: inout Block) {
        let (word, paint): (String, Paint) =
            switch report.verdict {
            case "clean": ("clean", .good)
            case "torn_tail": ("torn tail", .busy)
            default: ("damaged", .bad)
            }
        block.add("log", report.directory)
        block.add("verdict", "\(word): \(report.summary)", paint)
        if report.verdict == "torn_tail", let place = report.place, let segment = place.segment {
            block.add("torn at", "segment \(segment) byte \(place.offset ?? 0): \(place.problem)")
        }
    }

    private static func block(_ report: LogReport) -> Block {
        var block = Block()
        addVerdict(report, to: &block)
        if let base = report.base, let last = report.last {
            let span = last.index - base.index
            block.add(
                "entries", span == 0 ? "none after \(base.index)" : "\(base.index + 1) to \(last.index) (\(span))")
            block.add("last term", last.term)
        }
        if let state = report.hardState {
            block.add("term", state.term)
            block.add("vote", state.vote.map { "\($0)" } ?? "none")
            block.add("commit", "\(state.commit) at least")
        }
        block.add("records", report.recordsFound)
        block.add("Segments", segments(report))
        block.add(
            "Terms",
            Table(
                [.init("TERM", right: true), .init("FROM", right: true)],
                report.terms.map { [Cell($0.term), Cell($0.index)] }))
        block.add(
            "Memberships",
            Table(
                [.init("FROM", right: true), "VOTERS", "LEARNERS", "REMOVED"],
                report.memberships.map { [Cell($0.index), list($0.voters), list($0.learners), list($0.removed)] }))
        block.add("Records", records(report))
        return block
    }

    private static func segments(_ report: LogReport) -> Table {
        Table(
            ["FILE", "STATE", .init("ENTRIES", right: true), "INDEXES", "TERMS", .init("USED", right: true)],
            report.segments.map { segment in
                [
                    Cell(segment.file),
                    Cell(segment.isReset ? "\(segment.state), reset" : segment.state, paint(segment.state)),
                    Cell(segment.entries), range(segment.firstIndex, segment.lastIndex),
                    range(segment.firstTerm, segment.lastTerm),
                    Cell("\(Format.bytes(Int64(segment.usedBytes))) of \(Format.bytes(Int64(segment.bytes)))"),
                ]
            })
    }

    private static func records(_ report: LogReport) -> Table {
        Table(
            [
                .init("SEGMENT", right: true), .init("BYTE", right: true), .init("SIZE", right: true), "KIND",
                .init("TERM", right: true), "INDEXES", "ALSO",
            ],
            report.records.map { record in
                var also: [String] = []
                if let from = record.truncateFrom { also.append("voids \(from) and on") }
                if let state = record.hardState {
                    also.append(
                        "term \(state.term), vote \(state.vote.map { "\($0)" } ?? "none"), commit \(state.commit)")
                }
                let last = record.entries > 0 ? record.firstIndex + UInt64(record.entries) - 1 : nil
                return [
                    Cell(record.segment), Cell(record.offset), Cell(record.bytes), Cell(record.kind), Cell(record.term),
                    range(last == nil ? nil : record.firstIndex, last), Cell(also.joined(separator: "; ")),
                ]
            })
    }

    private static func range(_ first: UInt64?, _ last: UInt64?) -> Cell {
        guard let first, let last else { return Cell("-", .dim) }
        return Cell(first == last ? "\(first)" : "\(first)-\(last)")
    }

    private static func list(_ ids: [UInt64]) -> Cell {
        ids.isEmpty ? Cell("-", .dim) : Cell(ids.map { "\($0)" }.joined(separator: " "))
    }

    private static func paint(_ state: String) -> Paint {
        switch state {
        case "spare", "void": .dim
        case "damaged", "unread": .bad
        default: .plain
        }
    }
}
