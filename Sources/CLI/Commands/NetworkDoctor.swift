// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct NetworkDoctor: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Try the way from every node to every other one, and name what is wrong.",
        discussion: """
            Each node sends packets of both sizes to all others, between the machines and through the overlay. Ends \
            with 1 when something is wrong.

            Example:
              hivemind network doctor
            """)

    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let answer: Answer<NetworkDoctorView> = try await global.client().get("/v1/network/doctor")
        let view = answer.value
        let table = Table(
            ["FROM", "TO", "FINDING", "WHY"],
            view.paths.map { path in
                let isWell = path.finding == .healthy
                return [
                    Cell(path.from), Cell(path.to), Cell(path.finding.rawValue, isWell ? .good : .bad),
                    Cell(path.reason?.message),
                ]
            })
        try output.show(json: answer.body, names: view.paths.map { "\($0.from) \($0.to)" }) { table.rendered($0) }
        for node in view.silent { output.note("note: node `\(node.node)` could not be asked: \(node.why)") }
        let wrong = view.paths.filter { $0.finding != .healthy }
        // What is wrong on one end shows on both: the one that says most comes first.
        let cause = wrong.first { [.missingRoute, .duplicateAddress].contains($0.finding) } ?? wrong.first
        if let hint = cause?.reason?.hint {
            throw CLIError(.general, "\(wrong.count) of \(view.paths.count) ways are not healthy", hint: hint)
        }
        guard view.healthy else {
            throw CLIError(
                .general, "\(view.silent.count) nodes could not be asked",
                hint: "see that their daemons run: hivemind node ls")
        }
        output.note(view.paths.isEmpty ? "there is no other node" : "all \(view.paths.count) ways are healthy")
    }
}
