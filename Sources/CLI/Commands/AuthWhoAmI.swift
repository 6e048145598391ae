// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct AuthWhoAmI: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "whoami", abstract: "Show as whom the cluster sees you.",
        discussion: "Example:\n  hivemind auth whoami --context prod")

    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let who: Answer<IdentityView> = try await global.client().get("/v1/whoami")
        let view = who.value
        let rows = [
            ("kind", view.kind), ("name", view.name), ("token", view.token ?? ""), ("role", view.role),
            ("namespace", view.namespace ?? "all"), ("expires", view.expiresAt?.description ?? "never"),
            ("node", view.node ?? ""),
        ].filter { !$0.1.isEmpty }
        try output.show(json: who.body, names: [view.name]) {
            Table(["KEY", "VALUE"], rows.map { [Cell($0.0), Cell($0.1)] }).rendered($0)
        }
        output.next("auth can-i deploy app", afterReading: true)
    }
}

struct AuthCanI: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "can-i", abstract: "Ask whether something may be done, without doing it.",
        discussion: """
            Prints yes or no; ends with 5 for no.

            Examples:
              hivemind auth can-i deploy app
              hivemind auth can-i read configs --namespace shop
            """)

    @Argument(help: "read, write, or what the command is called: deploy, scale, delete, drain…") var verb: String
    @Argument(help: "app, task, volume, config, image, node, token, snapshot…") var kind: String
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let output = try global.result(namespace: scope.namespace)
        let answer: Answer<PermissionView> = try await global.client(namespace: scope.namespace).get(
            "/v1/can-i", [("verb", verb), ("kind", kind)])
        let text = answer.value.allowed ? "yes" : "no"
        try output.show(json: answer.body, names: [text]) { _ in "\(text)\n" }
        guard answer.value.allowed else {
            throw CLIError(
                .permission, answer.value.reason ?? "it may not be done",
                hint: answer.value.hint ?? Hints.problem(.forbidden))
        }
    }
}
