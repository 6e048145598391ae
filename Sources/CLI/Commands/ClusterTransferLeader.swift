// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ClusterTransferLeader: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "transfer-leader", abstract: "Hand leadership to another member.",
        discussion: """
            Without a name the voter that is furthest takes it. Writes wait for a moment and are not lost.

            Examples:
              hivemind cluster transfer-leader
              hivemind cluster transfer-leader beta
            """)

    @Argument(help: "Name or id of the member that is to lead (or --name).")
    var name: String?
    @Option(name: .customLong("name"), help: .hidden)
    var nameOption: String?
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        if let name, let nameOption, name != nameOption {
            throw CLIError.usage("two names for one member: `\(name)` and `\(nameOption)`", hint: "give the name once")
        }
        let answer: Answer<LeaderView> = try await global.client().send(
            "POST", "/v1/cluster/transfer-leader", body: TransferLeaderRequest(to: name ?? nameOption))
        let view = answer.value
        try output.show(json: answer.body, names: [view.leader]) { _ in
            view.leader == view.previous
                ? "`\(view.leader)` leads already\n"
                : "`\(view.leader)` leads in term \(view.term), `\(view.previous)` no longer does\n"
        }
        output.next("cluster status")
    }
}
