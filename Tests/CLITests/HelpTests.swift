// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Testing

@testable import CLI

struct HelpTests {
    /// Every command of the tree with the words that reach it.
    static func commands(
        _ type: any ParsableCommand.Type, _ path: [String]
    ) -> [(path: [String], type: any ParsableCommand.Type)] {
        [(path, type)]
            + type.configuration.subcommands.flatMap { commands($0, path + [$0._commandName]) }
    }

    @Test func `the help of every verb is as reviewed`() throws {
        for (path, type) in Self.commands(Hivemind.self, ["hivemind"]) {
            let text = Hivemind.helpMessage(for: type, columns: 100)
            try expectGolden(text + "\n", "help/\(path.joined(separator: "-")).txt")
        }
    }

    @Test func `every verb has an abstract and an example`() {
        for (path, type) in Self.commands(Hivemind.self, ["hivemind"]) where type.configuration.subcommands.isEmpty {
            #expect(!type.configuration.abstract.isEmpty, "\(path)")
            #expect(type.configuration.discussion.contains("Example"), "\(path)")
        }
    }

    @Test(arguments: [["hivemind"], ["hivemind", "app"], ["hivemind", "--help"], ["hivemind", "help", "ps"]])
    func `help goes to standard output and ends with 0`(words: [String]) async {
        let fake = FakeTerminal()
        let status = await Terminal.$current.withValue(fake.terminal(FakeDaemon(), .init())) {
            await Hivemind.execute(Array(words.dropFirst()))
        }
        let result = fake.result(status)
        #expect(result.status == 0)
        #expect(result.out.contains("USAGE: hivemind"))
        #expect(result.err.isEmpty)
    }

    @Test func `version is asked with a flag without a daemon`() async {
        let result = await hivemind("--version")
        #expect(result.status == 0)
        #expect(result.out == "hivemind \(programVersion)\n")
    }

    @Test(arguments: ["bash", "zsh", "fish"])
    func `completion scripts name the verbs`(shell: String) async {
        let result = await hivemind("completion", shell)
        #expect(result.status == 0)
        #expect(result.out.contains("deploy"))
    }
}
