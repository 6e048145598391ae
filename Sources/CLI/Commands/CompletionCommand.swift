// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser

struct CompletionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completion", abstract: "Print a completion script for a shell.",
        discussion: """
            Examples:
              source <(hivemind completion bash)
              hivemind completion zsh > "${fpath[1]}/_hivemind"
              hivemind completion fish > ~/.config/fish/completions/hivemind.fish
            """)

    enum Shell: String, CaseIterable, ExpressibleByArgument { case bash, zsh, fish }

    @Argument(help: "bash, zsh or fish.")
    var shell: Shell

    func run() throws {
        let known: CompletionShell =
            switch shell {
            case .bash: .bash
            case .zsh: .zsh
            case .fish: .fish
            }
        Terminal.current.print(Hivemind.completionScript(for: known))
    }
}
