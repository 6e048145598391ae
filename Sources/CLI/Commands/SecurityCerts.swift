// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct SecurityCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "security", abstract: "Look after what nodes show one another.",
        subcommands: [SecurityCertsCommand.self])
}

struct SecurityCertsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "certs", abstract: "Certificates of the nodes, and the authority that signs them.",
        subcommands: [SecurityCertsStatus.self, SecurityCertsRenew.self, SecurityCertsRotate.self])
}

struct SecurityCertsStatus: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the certificate of each node, and when it is renewed.",
        discussion: "Example:\n  hivemind security certs status")

    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption

    func run() async throws {
        let output = try global.result()
        let view: Answer<CertificatesView> = try await global.client().get(Certificates.path, read.query)
        try Certificates.show(view, output)
        output.next("security certs renew", afterReading: true)
    }
}

struct SecurityCertsRenew: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "renew", abstract: "Give nodes new certificates now; their connections go on.",
        discussion: """
            Nodes do it by themselves at half of a certificate's life. One that is down does it when it is back,
            and is waited for until then.

            Examples:
              hivemind security certs renew
              hivemind security certs renew alpha beta
            """)

    @Argument(help: "Names of nodes; without one all of them.") var nodes: [String] = []
    @OptionGroup var waiting: CertificateWaiting
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let client = global.client()
        let end = try waiting.end
        var view: Answer<CertificatesView> = try await client.send(
            "POST", "\(Certificates.path)/renew",
            body: CertificateRenewRequest(nodes: nodes.isEmpty ? nil : nodes))
        let asked = Set(view.value.items.filter { $0.isRenewing == true }.map(\.node))
        while !waiting.noWait {
            let left = view.value.items.filter { $0.isRenewing == true && asked.contains($0.node) }
            if left.isEmpty { break }
            guard ContinuousClock.now < end else {
                throw CLIError(
                    .timeout, "\(left.count) nodes have their old certificates still, `\(left[0].node)` among them",
                    hint: "a node that is down renews it when it is back: hivemind security certs status")
            }
            try await Task.sleep(for: .milliseconds(200))
            view = try await client.get(Certificates.path)
        }
        try Certificates.show(view, output)
        output.next("security certs status")
    }
}

struct SecurityCertsRotate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rotate-ca", abstract: "Put a new authority in the place of the cluster's; connections go on.",
        discussion: """
            First every node believes the new one, too, then each gets a certificate of it, then the old one is dropped.
            It waits for nodes that are down: bring them back, or remove them. Join tokens made before are void after it.
            Ctrl-C ends the waiting, not the exchange.

            Example:
              hivemind security certs rotate-ca --yes
            """)

    @Flag(name: [.customShort("y"), .long], help: "Do not ask.")
    var yes = false
    @OptionGroup var waiting: CertificateWaiting
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let client = global.client()
        let end = try waiting.end
        try output.terminal.confirm("exchange the cluster's authority; join tokens made before are void", yes: yes)
        var view: Answer<CertificatesView> = try client.decode(
            try await client.call("POST", "/v1/security/authority/rotate"))
        var said: AuthorityExchangeView?
        while !waiting.noWait, let exchange = view.value.exchange {
            if exchange != said, !exchange.waitingFor.isEmpty {
                output.note(Certificates.text(of: exchange))
                said = exchange
            }
            guard ContinuousClock.now < end else {
                throw CLIError(
                    .timeout, "the exchange is not at its end: \(Certificates.text(of: exchange))",
                    hint: "it goes on; bring the nodes back or remove them: hivemind security certs status")
            }
            try await Task.sleep(for: .milliseconds(200))
            view = try await client.get(Certificates.path, [("consistency", "linearizable")])
        }
        try Certificates.show(view, output)
        output.next("cluster token create", "security certs status")
    }
}

struct CertificateWaiting: ParsableArguments {
    @Flag(help: "Do not wait.") var noWait = false
    @Option(help: ArgumentHelp("Give up waiting after this long (2m).", valueName: "time")) var timeout = "2m"

    var end: ContinuousClock.Instant {
        get throws { ContinuousClock.now + .milliseconds(try DurationParser.milliseconds(timeout, flag: "--timeout")) }
    }
}

/// What the verbs share: where the list is and how a person reads it.
enum Certificates {
    static let path = "/v1/security/certificates"

    static func show(_ view: Answer<CertificatesView>, _ output: Output) throws {
        let items = view.value.items
        let table = Table(
            [
                "NODE", "STATE", "SERIAL", "AUTHORITY", "VALID UNTIL", "DAYS LEFT", "RENEWS", .wide("SUBJECT"),
                .wide("VALID FROM"),
            ],
            items.map { item in
                [
                    Cell(item.node), .state(item.state), Cell(item.serial.map { String($0.prefix(16)) }),
                    Cell(item.authority.map { String($0.prefix(8)) }), Cell(item.notAfter?.description),
                    Cell(item.daysLeft.map { "\($0)" }, item.daysLeft.map { $0 < 14 ? .bad : .plain } ?? .plain),
                    item.isRenewing == true ? Cell("now", .busy) : Cell(item.renewsAt?.description),
                    Cell(item.subject), Cell(item.notBefore?.description),
                ]
            })
        try output.show(json: view.body, names: items.map(\.node)) { table.rendered($0) }
        if let exchange = view.value.exchange {
            output.note("the authority is exchanged: \(text(of: exchange))")
        }
    }

    /// What an exchange of the authority does now.
    static func text(of exchange: AuthorityExchangeView) -> String {
        let nodes = exchange.waitingFor.isEmpty ? "nobody" : exchange.waitingFor.joined(separator: ", ")
        return exchange.step == "spreading"
            ? "waiting for nodes to believe the new authority, too: \(nodes)"
            : "waiting for nodes to get certificates of the new authority: \(nodes)"
    }
}
