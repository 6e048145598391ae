// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import FoundationEssentials
internal import Model

struct AppLogs: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logs", abstract: "Print what the containers of an app wrote.",
        discussion: """
            Lines of several tasks are prefixed by their task, wherever they run. With -f it goes on until Ctrl-C. With -o json each \
            line is one JSON document.

            Examples:
              hivemind app logs web -f
              hivemind app logs web --tail 100 --since 10m --timestamps
            """)

    @OptionGroup var app: AppNameArgument
    @Flag(name: [.customShort("f"), .long], help: "Go on with new lines as they come.")
    var follow = false
    @Option(name: [.customShort("n"), .long], help: ArgumentHelp("Last lines of each task only.", valueName: "lines"))
    var tail: Int?
    @Option(help: ArgumentHelp("Lines from then on: 10m, 2h, or an RFC 3339 time.", valueName: "when"))
    var since: String?
    @Option(help: ArgumentHelp("One service only.", valueName: "name"))
    var service: String?
    @Option(help: ArgumentHelp("One task only, by id or the start of it.", valueName: "id"))
    var task: String?
    @Flag(name: [.customShort("t"), .long], help: "Start lines with their time.")
    var timestamps = false
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let name = try app.required()
        let output = try global.result(namespace: scope.namespace)
        let client = global.client(namespace: scope.namespace)
        let terminal = output.terminal
        if let tail, tail < 0 {
            throw CLIError.usage("--tail \(tail) is less than 0", hint: "give the number of lines")
        }
        let from = try since.map { try DurationParser.since($0, now: terminal.now()) }
        var writer = LogWriter(output: output, isTimed: timestamps)
        if task == nil, output.format == .table || output.format == .wide {
            let tasks: Answer<ItemList<TaskView>> = try await client.get("/v1/tasks", [("app", name), ("all", "true")])
            let shown = tasks.value.items.filter { service == nil || $0.service == service }
            writer.isPrefixed = shown.count > 1
        }
        let query: [(String, String?)] = [
            ("follow", follow ? "true" : nil), ("tail", tail.map { String($0) }), ("since", from?.description),
            ("service", service), ("task", task),
        ]
        try await client.logs(app: name, query, timeout: follow ? nil : .seconds(600)) { line, bytes in
            try writer.write(line, bytes)
        }
    }
}

/// Prints log lines; a task keeps its colour.
struct LogWriter {
    let output: Output
    let isTimed: Bool
    /// Set when several tasks are known, or from the first line of a second one on.
    var isPrefixed = false
    private var seen: [TaskID] = []
    private static let colors = ["36", "33", "32", "35", "34", "96", "93", "92", "95", "94"]

    init(output: Output, isTimed: Bool) {
        self.output = output
        self.isTimed = isTimed
    }

    mutating func write(_ line: AppLogLine, _ bytes: [UInt8]) throws {
        switch output.format {
        case .json: return output.terminal.write(bytes + [UInt8(ascii: "\n")])
        case .yaml: return output.terminal.write(Array("---\n\(try JSONText.yaml(bytes))".utf8))
        case .name where line.notice != nil: return
        case .name: return output.terminal.print(line.task.raw)
        case .table, .wide: break
        }
        if let notice = line.notice { return output.terminal.note("note: \(notice)") }
        if !seen.contains(line.task) { seen.append(line.task) }
        if seen.count > 1 { isPrefixed = true }
        var text = ""
        if isPrefixed {
            let color = Self.colors[(seen.firstIndex(of: line.task) ?? 0) % Self.colors.count]
            let prefix = output.format == .wide ? "\(line.service) \(line.task) |" : "\(line.task) |"
            text += output.terminal.usesColor ? "\u{1B}[\(color)m\(prefix)\u{1B}[0m " : "\(prefix) "
        }
        if isTimed { text += "\(line.at) " }
        output.terminal.print(text + line.text)
    }
}
