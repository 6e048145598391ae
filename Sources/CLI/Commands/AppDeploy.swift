// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct AppDeploy: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "deploy",
        abstract: "Create an app or replace it by a new release.",
        discussion: """
            Waits until every replica runs the new release. Replicas are replaced one by one; a deploy that cannot \
            succeed ends with 8 when the previous release runs again, with 9 when there is none.

            Examples:
              hivemind app deploy web --image nginx:1.27 --replicas 3 --port 8080:80 --env TOKEN
              hivemind app deploy db --image postgres:16 --volume data:/var/lib/postgresql/data
              hivemind app deploy tick --image busybox:1.36 --restart no -- echo hello
            """)

    @OptionGroup var app: AppNameArgument
    @OptionGroup(title: "What runs") var service: ServiceOptions
    @OptionGroup(title: "Waiting") var wait: WaitOptions
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    @Argument(parsing: .postTerminator, help: ArgumentHelp("After --: command and arguments in place of the image's."))
    var command: [String] = []

    func run() async throws {
        let terminal = Terminal.current
        let started = terminal.elapsed()
        let name = try app.required()
        let output = try global.result(namespace: scope.namespace)
        let client = global.client(namespace: scope.namespace)
        let timeout = try wait.deadline()
        let spec = try service.spec(name: name, command: command, terminal: terminal)
        let answer: Answer<AppView>
        do {
            answer = try await client.send(
                "PUT", "/v1/apps/\(Client.escape(name))", body: PutAppRequest(services: [spec]), timeout: timeout)
        } catch let error as CLIError {
            throw await ImageProblem.deployError(error, app: name, client: client)
        }
        let outcome = RolloutOutcome(client: client, output: output, app: name, verb: "deploy")
        try await outcome.finish(answer, wait: wait, started: started)
    }
}

/// The flags that make a service.
struct ServiceOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Image: nginx:1.27, registry:5000/team/app@sha256:…", valueName: "image"))
    var image: String?

    @Option(help: ArgumentHelp("Replicas to run, 0 to 1000.", valueName: "n"))
    var replicas: Int = 1

    @Option(help: ArgumentHelp("So many replicas, or one on every node that may run it.", valueName: "mode"))
    var mode: ServiceMode = .replicated

    @Option(
        name: [.customShort("p"), .long],
        help: ArgumentHelp(
            "Publish a port on every node, or with target=80,published=8080,mode=host on those of its tasks; repeatable.",
            valueName: "[host:]container[/udp]"))
    var port: [String] = []

    @Option(
        name: [.customShort("v"), .long],
        help: ArgumentHelp(
            "Mount a volume, or a path of the node; repeatable.", valueName: "source:/path[:ro]"))
    var volume: [String] = []

    @Option(help: ArgumentHelp("Mount memory; repeatable.", valueName: "/path[:size=64m]"))
    var tmpfs: [String] = []

    @Option(
        name: [.customShort("e"), .long],
        help: ArgumentHelp("Set a variable, or pass on yours by its name; repeatable.", valueName: "name[=value]"))
    var env: [String] = []

    @Option(
        help: ArgumentHelp("Read variables from a file, one to a line; repeatable.", valueName: "file"),
        completion: .file())
    var envFile: [String] = []

    @Option(help: ArgumentHelp("Cores at most, as 0.5, 2 or 250m.", valueName: "cores"))
    var cpu: String?

    @Option(name: [.customShort("m"), .long], help: ArgumentHelp("Memory at most, as 256m or 1g.", valueName: "size"))
    var memory: String?

    @Option(help: ArgumentHelp("Cores its node must have left for it.", valueName: "cores"))
    var reserveCpu: String?

    @Option(help: ArgumentHelp("Memory its node must have left for it.", valueName: "size"))
    var reserveMemory: String?

    @Option(
        help: ArgumentHelp(
            "Run only where this holds; repeatable.", valueName: "node.labels.zone == eu"))
    var constraint: [String] = []

    @Option(
        help: ArgumentHelp(
            "Spread replicas over the values of this node label, before zones; repeatable.", valueName: "label"))
    var spread: [String] = []

    @Option(help: ArgumentHelp("Run also on nodes with this taint; repeatable.", valueName: "taint"))
    var toleration: [String] = []

    @Option(help: ArgumentHelp("Replicas on one node at most.", valueName: "n"))
    var maxPerNode: Int?

    @Option(help: ArgumentHelp("Processes and threads at most (default 4096).", valueName: "n"))
    var pids: Int64?

    @Option(help: ArgumentHelp("When a container ended by itself.", valueName: "policy"))
    var restart: RestartPolicy = .always

    @Option(name: [.customShort("u"), .long], help: ArgumentHelp("User in the container.", valueName: "user[:group]"))
    var user: String?

    @Option(name: [.customShort("w"), .long], help: ArgumentHelp("Working directory.", valueName: "path"))
    var workdir: String?

    @Option(help: ArgumentHelp("Host name in the container.", valueName: "name"))
    var hostname: String?

    @Option(
        help: ArgumentHelp("Program in place of the image's entrypoint; repeat for its arguments.", valueName: "word"))
    var entrypoint: [String] = []

    @Option(
        name: [.customShort("l"), .long], help: ArgumentHelp("Label; repeatable.", valueName: "name=value"))
    var label: [String] = []

    @Flag(help: "Mount the container's root read-only.")
    var readOnly = false

    @Option(help: ArgumentHelp("Add a capability; repeatable.", valueName: "capability"))
    var capAdd: [String] = []

    @Option(help: ArgumentHelp("Drop a capability, or all; repeatable.", valueName: "capability"))
    var capDrop: [String] = []

    @Option(help: ArgumentHelp("Signal that asks to stop (default the image's).", valueName: "signal"))
    var stopSignal: String?

    @Option(help: ArgumentHelp("Time to stop before it is killed (default 10s).", valueName: "duration"))
    var stopTimeout: String?

    @Option(help: ArgumentHelp("What the name answers with.", valueName: "mode"))
    var endpointMode: EndpointMode = .vip

    /// - Throws: `CLIError` with `.usage` naming the flag and what is wrong with its value.
    func spec(name: String, command: [String], terminal: Terminal) throws -> ServiceSpec {
        guard let image, !image.isEmpty else {
            throw CLIError.usage("which image? --image is missing", hint: "add --image, as --image nginx:1.27")
        }
        guard (0...1000).contains(replicas) else {
            throw CLIError.usage("--replicas \(replicas) is not within 0 to 1000", hint: "give a number in that range")
        }
        guard mode == .replicated || replicas == 1 else {
            throw CLIError.usage("--replicas does not go with --mode global", hint: "leave one of them out")
        }
        if let pids, pids < 1 { throw CLIError.usage("--pids \(pids) is less than 1", hint: "leave it out for 4096") }
        let directory = terminal.workingDirectory
        var resources = Resources()
        resources.cpuMillis = try cpu.map { try SizeParser.cpuMillis($0, flag: "--cpu") }
        resources.memoryBytes = try memory.map { try SizeParser.bytes($0, flag: "--memory") }
        if let pids { resources.pidsMax = pids }
        resources.reservedCpuMillis = try reserveCpu.map { try SizeParser.cpuMillis($0, flag: "--reserve-cpu") }
        resources.reservedMemoryBytes = try reserveMemory.map { try SizeParser.bytes($0, flag: "--reserve-memory") }
        for text in constraint where PlacementConstraint(text) == nil {
            throw CLIError.usage(
                "--constraint `\(text)` is no constraint",
                hint: "write --constraint 'node.labels.zone == eu'; there are node.id, node.hostname and node.role, too"
            )
        }
        let placement = Placement(
            constraints: constraint,
            // As Compose files write it, too.
            spread: spread.map { $0.hasPrefix("node.labels.") ? String($0.dropFirst("node.labels.".count)) : $0 },
            tolerations: toleration, maxReplicasPerNode: maxPerNode)
        let stop = try stopTimeout.map { try DurationParser.milliseconds($0, flag: "--stop-timeout") } ?? 10_000
        guard stop <= 3_600_000 else {
            throw CLIError.usage(
                "--stop-timeout `\(stopTimeout ?? "")` is longer than an hour", hint: "give at most 1h")
        }
        return ServiceSpec(
            name: name,
            image: image,
            replicas: replicas,
            entrypoint: entrypoint.isEmpty ? nil : entrypoint.filter { !$0.isEmpty },
            command: command.isEmpty ? nil : command,
            environment: try variables(terminal),
            user: user,
            workingDirectory: workdir,
            hostname: hostname,
            labels: Dictionary(try label.map { try EnvironmentParser.label($0) }, uniquingKeysWith: { $1 }),
            mounts: try volume.map { try MountParser.volume($0, directory: directory) }
                + tmpfs.map { try MountParser.tmpfs($0) },
            ports: try port.map { try PortParser.port($0) },
            resources: resources,
            restart: restart,
            endpointMode: endpointMode,
            readOnlyRoot: readOnly,
            capabilitiesAdd: capAdd.map(Self.capability),
            capabilitiesDrop: capDrop.map(Self.capability),
            stopSignal: stopSignal.map(Self.signal),
            stopTimeoutMilliseconds: Int(stop),
            placement: placement.isEmpty ? nil : placement,
            mode: mode == .replicated ? nil : mode
        )
    }

    /// Files first, so that a flag wins over them; the last of two wins.
    private func variables(_ terminal: Terminal) throws -> [String: String] {
        var all: [(String, String)] = []
        for path in envFile {
            let text = String(decoding: try terminal.readFile(.file(path)), as: UTF8.self)
            all += try EnvironmentParser.file(text, name: path, environment: terminal.environment)
        }
        all += try env.map {
            try EnvironmentParser.variable($0, flag: "--env", environment: terminal.environment)
        }
        return Dictionary(all, uniquingKeysWith: { $1 })
    }

    /// `net_admin` → `CAP_NET_ADMIN`
    static func capability(_ text: String) -> String {
        let upper = text.uppercased()
        return upper == "ALL" || upper.hasPrefix("CAP_") ? upper : "CAP_\(upper)"
    }

    /// `term` → `SIGTERM`; numbers stay.
    static func signal(_ text: String) -> String {
        let upper = text.uppercased()
        return upper.hasPrefix("SIG") || Int(upper) != nil ? upper : "SIG\(upper)"
    }
}
