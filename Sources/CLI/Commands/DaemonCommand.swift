// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Daemon
internal import FoundationEssentials
internal import Model
internal import Yams

/// The daemon of this node, in the same binary.
struct DaemonCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "daemon",
        abstract: "Run this node.",
        discussion: """
            Runs in the foreground until SIGTERM; containers outlive it and are taken up again at the next start. \
            Each option may also come from the environment (HIVEMIND_DATA_DIR, …) or the configuration file; flags win.

            Examples:
              hivemind daemon
              hivemind daemon --data-dir /tmp/hive --socket /tmp/hive.sock --runtime simulated
            """)

    @Option(help: ArgumentHelp("State, logs and volumes (default /var/lib/hivemind).", valueName: "dir"), completion: .directory)
    var dataDir: String?

    @Option(help: ArgumentHelp("Unix socket to listen on (default /run/hivemind/hivemind.sock).", valueName: "path"))
    var socket: String?

    @Option(help: ArgumentHelp("Socket of a running containerd; without it a private one is started.", valueName: "address"))
    var containerd: String?

    @Option(help: ArgumentHelp("containerd, or simulated to try without root (default containerd).", valueName: "kind"))
    var runtime: String?

    @Option(help: ArgumentHelp("Name of this node, kept from the first start (default: the host's).", valueName: "name"))
    var nodeName: String?

    @Option(help: ArgumentHelp("trace, debug, info, notice, warning, error or critical (default info).", valueName: "level"))
    var logLevel: String?

    @Option(help: ArgumentHelp("Addresses of containers, for a new data directory (default 10.210.0.0/16).", valueName: "cidr"))
    var containerSubnet: String?

    @Option(help: ArgumentHelp("Addresses of services, for a new data directory (default 10.211.0.0/16).", valueName: "cidr"))
    var virtualSubnet: String?

    @Option(help: ArgumentHelp("YAML file with these options as keys (default /etc/hivemind/daemon.yaml if present).", valueName: "file"))
    var config: String?

    static let standardConfigFile = "/etc/hivemind/daemon.yaml"
    static let keys = [
        "data-dir", "socket", "containerd", "runtime", "node-name", "log-level", "container-subnet", "virtual-subnet",
    ]

    func run() async throws {
        let configuration = try resolved(environment: Terminal.current.setting)
        do {
            try await DaemonMain.run(configuration)
        } catch let error as DaemonError {
            throw CLIError(.general, error.message, hint: error.hint)
        } catch let error as any ReasonError {
            throw CLIError(.general, error.reason.message, hint: error.reason.hint)
        }
    }

    /// Flag before environment before file before default.
    func resolved(environment: (String) -> String?) throws -> DaemonConfiguration {
        let file = try settings(path: config ?? environment("HIVEMIND_CONFIG"))
        func setting(_ flag: String?, _ key: String) -> String? {
            let variable = "HIVEMIND_" + key.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
            return flag ?? environment(variable) ?? file[key]
        }
        func subnet(_ flag: String?, _ key: String, _ standard: IPv4Subnet) throws -> IPv4Subnet {
            guard let text = setting(flag, key) else { return standard }
            guard let subnet = IPv4Subnet(text) else {
                throw CLIError.usage("--\(key) `\(text)` is not a subnet", hint: "for example \(standard)")
            }
            return subnet
        }
        let kind = setting(runtime, "runtime") ?? "containerd"
        guard let runtime = DaemonConfiguration.RuntimeKind(rawValue: kind) else {
            throw CLIError.usage("--runtime `\(kind)` is unknown", hint: "use containerd or simulated")
        }
        let level = setting(logLevel, "log-level") ?? "info"
        guard ["trace", "debug", "info", "notice", "warning", "error", "critical"].contains(level) else {
            throw CLIError.usage(
                "--log-level `\(level)` is unknown", hint: "use trace, debug, info, notice, warning, error or critical")
        }
        let name = setting(nodeName, "node-name")
        return DaemonConfiguration(
            dataDirectory: Self.absolute(setting(dataDir, "data-dir") ?? DaemonConfiguration.standardDataDirectory),
            socketPath: Self.absolute(setting(socket, "socket") ?? DaemonConfiguration.standardSocketPath),
            containerdAddress: setting(containerd, "containerd"), runtime: runtime, nodeName: name, logLevel: level,
            ranges: AddressRanges(
                containers: try subnet(containerSubnet, "container-subnet", AddressRanges.standard.containers),
                virtual: try subnet(virtualSubnet, "virtual-subnet", AddressRanges.standard.virtual)))
    }

    private func settings(path: String?) throws -> [String: String] {
        let file = path ?? Self.standardConfigFile
        guard let data = FileManager.default.contents(atPath: file) else {
            if path == nil { return [:] }
            throw CLIError.usage("configuration file `\(file)` cannot be read", hint: "check the path")
        }
        let loaded: Any?
        do { loaded = try Yams.load(yaml: String(decoding: data, as: UTF8.self)) } catch {
            throw CLIError.usage("configuration file `\(file)` is not YAML: \(error)", hint: "write one `key: value` a line")
        }
        guard let mapping = (loaded ?? [:]) as? [String: Any] else {
            throw CLIError.usage("configuration file `\(file)` must hold `key: value` pairs", hint: "keys: \(Self.keys.joined(separator: ", "))")
        }
        if let unknown = mapping.keys.sorted().first(where: { !Self.keys.contains($0) }) {
            throw CLIError.usage(
                "configuration file `\(file)` has an unknown key `\(unknown)`", hint: "keys: \(Self.keys.joined(separator: ", "))")
        }
        return mapping.mapValues { "\($0)" }
    }

    private static func absolute(_ path: String) -> String {
        path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
    }
}
