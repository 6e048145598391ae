// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct ClusterSet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Set what holds for the whole cluster.",
        discussion: """
            A node that says nothing loses its traffic after two seconds, and after --down-after its tasks: they are \
            started elsewhere. A longer time suits networks that stumble and machines that restart quickly.

            Example:
              hivemind cluster set --down-after 30s
            """)

    @Option(
        help: ArgumentHelp(
            "How long a node may say nothing before its tasks are replaced; 3s to 1h (default 5s).",
            valueName: "duration"))
    var downAfter: String?
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        guard let downAfter else { throw CLIError.usage("nothing is to be set", hint: "give --down-after 30s") }
        _ = try DurationParser.milliseconds(downAfter, flag: "--down-after")
        let answer: Answer<ClusterView> = try await global.client().send(
            "PATCH", "/v1/cluster", body: ClusterPatch(downAfter: downAfter))
        try output.show(json: answer.body, names: [answer.value.id]) { _ in
            "a node is down after \(answer.value.downAfter ?? downAfter) of silence\n"
        }
        output.next("cluster status")
    }
}
