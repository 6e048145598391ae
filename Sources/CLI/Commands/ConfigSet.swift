// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ConfigSet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Write a config from a value, a file or standard input.",
        discussion: """
            Examples:
              hivemind config set greeting hello
              hivemind config set nginx/site.conf --file site.conf
              hivemind config set greeting bye --if-version 42
            """)

    @OptionGroup var config: NameArgument
    @Argument(help: "The data, or - to read it from standard input.")
    var value: String?
    @Option(
        name: [.customShort("f"), .long], help: ArgumentHelp("Read the data from a file.", valueName: "path"),
        completion: .file())
    var file: String?
    @Option(help: ArgumentHelp("Only when it has this version still.", valueName: "version"))
    var ifVersion: UInt64?
    @Flag(help: "Only when it does not exist yet.")
    var createOnly = false
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let output = try global.result(namespace: scope.namespace)
        let (name, data) = try content(output.terminal)
        var headers: [String: String] = [:]
        if let ifVersion { headers["If-Match"] = "\"\(ifVersion)\"" }
        if createOnly { headers["If-None-Match"] = "*" }
        guard headers.count < 2 else {
            throw CLIError.usage("--if-version and --create-only exclude one another", hint: "give one of them")
        }
        let answer: Answer<ConfigView> = try await global.client(namespace: scope.namespace).send(
            "PUT", "/v1/configs/\(Client.escape(name))", body: PutConfigRequest(data: data), headers: headers)
        try output.show(json: answer.body, names: [name]) { _ in
            "config `\(name)` has version \(answer.value.version)\n"
        }
        output.next("config get \(name)")
    }

    private func content(_ terminal: Terminal) throws -> (name: String, data: String) {
        var value = value
        var name = config.name
        if let option = config.nameOption {
            // With --name the only word is the value.
            if value == nil {
                value = config.name
            } else if name != option {
                throw CLIError.usage("two names for one config", hint: "give the name once")
            }
            name = option
        }
        guard let name, !name.isEmpty else {
            throw CLIError.usage("which config? its name is missing", hint: "write NAME VALUE, or NAME --file PATH")
        }
        if let file {
            guard value == nil else {
                throw CLIError.usage("both a value and --file", hint: "give one of them")
            }
            return (name, try text(file == "-" ? .standardInput : .file(file), terminal))
        }
        if let value, value != "-" { return (name, value) }
        guard value == "-" || !terminal.isInputTTY else {
            throw CLIError.usage("what is to be written? the value is missing", hint: "give a value, --file PATH, or -")
        }
        return (name, try text(.standardInput, terminal))
    }

    private func text(_ source: InputSource, _ terminal: Terminal) throws -> String {
        guard let text = String(validating: try terminal.readFile(source), as: UTF8.self) else {
            throw CLIError(.general, "\(source.name) is not UTF-8 text", hint: "encode it, with base64 for instance")
        }
        return text
    }
}
