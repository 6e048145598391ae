// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Glibc

@main
struct Hivemind: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hivemind",
        abstract: "Runs containers on one machine or many.",
        discussion: """
            Examples:
              hivemind app deploy web --image nginx --replicas 3 --port 8080:80
              hivemind ps
              hivemind app logs web -f

            Ends with 0 ok, 1 general, 2 usage, 3 connection, 4 authentication, 5 permission, 6 not found, \
            7 conflict, 8 deploy rolled back, 9 deploy failed, 10 timeout.
            """,
        version: "hivemind \(programVersion)",
        groupedSubcommands: [
            CommandGroup(
                name: "Apps", subcommands: [AppCommand.self, ServiceCommand.self, TaskList.self]),
            CommandGroup(
                name: "Data and images",
                subcommands: [VolumeCommand.self, ImageCommand.self, ConfigCommand.self]),
            CommandGroup(
                name: "Node and cluster",
                subcommands: [
                    NodeCommand.self, StatusCommand.self, WhyCommand.self, ClusterCommand.self, EventsCommand.self,
                    QueryCommand.self, SecurityCommand.self, NetworkCommand.self,
                    DaemonCommand.self, AdminCommand.self, DevCommand.self,
                ]),
            CommandGroup(
                name: "Use from elsewhere", subcommands: [LoginCommand.self, ContextCommand.self, AuthCommand.self]),
            CommandGroup(name: "This program", subcommands: [VersionCommand.self, CompletionCommand.self]),
        ]
    )

    static func main() async {
        Glibc.exit(await execute(Array(CommandLine.arguments.dropFirst())))
    }

    /// Runs one command line and gives its exit code.
    static func execute(_ arguments: [String]) async -> Int32 {
        let terminal = Terminal.current
        do {
            let command = try await asyncParseAsRoot(arguments)
            do {
                try await run(command)
                return ExitStatus.ok.rawValue
            } catch let error as CLIError {
                return report(error, terminal)
            } catch is CancellationError {
                return report(CLIError(.general, "the command was cancelled", hint: "run it again"), terminal)
            } catch {
                return finish(error, arguments, terminal, otherwise: .general)
            }
        } catch {
            return finish(error, arguments, terminal, otherwise: .usage)
        }
    }

    private static func run(_ command: any ParsableCommand) async throws {
        if var command = command as? any AsyncParsableCommand {
            try await command.run()
        } else {
            var command = command
            try command.run()
        }
    }

    /// Help, version and completions are asked for by errors as well.
    private static func finish(
        _ error: any Error, _ arguments: [String], _ terminal: Terminal, otherwise: ExitStatus
    ) -> Int32 {
        if exitCode(for: error).isSuccess {
            terminal.print(fullMessage(for: error))
            return ExitStatus.ok.rawValue
        }
        if otherwise == .usage {
            return report(UsageError.describe(error, arguments: arguments, root: Hivemind.self), terminal)
        }
        return report(CLIError(otherwise, "\(error)", hint: Hints.generic), terminal)
    }

    private static func report(_ error: CLIError, _ terminal: Terminal) -> Int32 {
        let color = terminal.usesErrorColor
        terminal.note("\(Paint.bad.applied(to: "error:", color)) \(indented(error.message))")
        if let hint = error.hint { terminal.note("\(Paint.dim.applied(to: "hint:", color)) \(indented(hint))") }
        return error.exit.rawValue
    }

    private static func indented(_ text: String) -> String {
        text.split(separator: "\n").map { String($0).printable }.joined(separator: "\n  ")
    }
}

/// Of this program; the daemon tells its own by `GET /version`.
let programVersion = "0.1.0"
