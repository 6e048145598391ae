// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NetworkAddressCheck: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Compare the addresses in the state with those on every node.",
        discussion: """
            Names addresses that leaked, are missing, or are there twice. Ends with 1 when there are any.

            Example:
              hivemind network ipam check
            """)

    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let answer: Answer<AddressCheckView> = try await global.client().get("/v1/network/addresses")
        let view = answer.value
        try output.show(json: answer.body, names: view.findings.map(\.address.description)) { style in
            guard !view.findings.isEmpty else { return "" }
            return Table(
                ["ADDRESS", "FINDING", "NODE", "WHY"],
                view.findings.map {
                    [Cell($0.address.description), Cell($0.kind.rawValue, .bad), Cell($0.node), Cell($0.message)]
                }
            ).rendered(style)
        }
        for node in view.silent { output.note("note: node `\(node.node)` could not be asked: \(node.why)") }
        if let first = view.findings.first {
            throw CLIError(.general, "\(view.findings.count) addresses are not as they should be", hint: first.hint)
        }
        guard view.healthy else {
            throw CLIError(
                .general, "\(view.silent.count) nodes could not be asked",
                hint: "see that their daemons run: hivemind node ls")
        }
        output.note("\(view.compared) addresses of containers are where they should be")
    }
}
