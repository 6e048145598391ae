// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct VersionCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Show the versions of this program and of the daemon.",
        discussion: "With -o json, yaml or name the daemon's version.\n\nExample:\n  hivemind version")

    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        do {
            let view: Answer<VersionView> = try await global.client().get("/version")
            try output.show(json: view.body, names: [view.value.version]) { style in
                var block = Block()
                block.add("program", programVersion)
                block.add("daemon", view.value.version)
                block.add("api", view.value.api)
                return block.rendered(style)
            }
            output.next("status", afterReading: true)
        } catch let error as CLIError
            where !output.format.isForPrograms && (error.exit == .connection || error.exit == .permission)
        {
            // This program has a version whether or not a daemon runs.
            output.terminal.write(Array("program:  \(programVersion)\n".utf8))
            output.terminal.note("daemon:   not reached: \(error.message)")
            if let hint = error.hint { output.terminal.note("hint: \(hint)") }
        }
    }
}
