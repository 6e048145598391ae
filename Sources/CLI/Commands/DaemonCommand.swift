// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Daemon
internal import FoundationEssentials
internal import Model
internal import Yams

struct DaemonCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "daemon", abstract: "Run this machine's node until it is told to stop.",
        discussion: """
            Every flag has a variable, HIVEMIND_DATA_DIR for --data-dir and so on, and a key of the same name in the \
            configuration file. Flags win over variables, variables over the file. Containers go on when the daemon \
            ends and are taken over by the next one.

            Examples:
              sudo hivemind daemon
              hivemind daemon --runtime simulated --data-dir /tmp/hm --socket /tmp/hm.sock
            """)

    @Option(
        help: ArgumentHelp("State, volumes and logs (default /var/lib/hivemind).", valueName: "dir"),
        completion: .directory)
    var dataDir: String?
    @Option(help: ArgumentHelp("Socket of the API (default /run/hivemind/hivemind.sock).", valueName: "path"))
    var socket: String?
    @Option(
        help: ArgumentHelp("Socket of a containerd to use (default: a private one is started).", valueName: "address"))
    var containerd: String?
    @Option(help: ArgumentHelp("containerd or simulated (default containerd).", valueName: "kind"))
    var runtime: String?
    @Option(
        help: ArgumentHelp("JSON file with the members of the cluster and this node's certificate.", valueName: "file"))
    var peers: String?
    @Option(help: ArgumentHelp("Name of the node (default the host's).", valueName: "name"))
    var nodeName: String?
    @Option(
        help: ArgumentHelp("trace, debug, info, notice, warning, error or critical (default info).", valueName: "level")
    )
    var logLevel: String?
    @Option(
        help: ArgumentHelp("Time between two comparisons of the members' states (default 10m).", valueName: "time"))
    var compareInterval: String?
    @Option(
        help: ArgumentHelp(
            "Time between two snapshots of the state that are kept, or off (default 24h; seven are kept).",
            valueName: "time"))
    var snapshotInterval: String?
    @Option(
        help: ArgumentHelp(
            "Addresses of containers, for a new data directory (default 10.210.0.0/16).", valueName: "cidr"))
    var containerSubnet: String?
    @Option(
        help: ArgumentHelp(
            "Addresses of services, for a new data directory (default 10.211.0.0/16).", valueName: "cidr"))
    var virtualSubnet: String?
    @Option(
        help: ArgumentHelp(
            "YAML file of these options (default /etc/hivemind/daemon.yaml if it is there).", valueName: "file"))
    var config: String?

    static let standardFile = "/etc/hivemind/daemon.yaml"
    static let keys = [
        "data-dir", "socket", "containerd", "runtime", "peers", "node-name", "log-level", "compare-interval",
        "snapshot-interval", "container-subnet", "virtual-subnet",
    ]

    func run() async throws {
        let configuration = try daemonConfiguration(Terminal.current)
        do {
            try await DaemonMain.run(configuration)
        } catch let error as DaemonError {
            throw CLIError(.general, error.message, hint: error.hint ?? "see the lines above")
        } catch let error as any ReasonError {
            throw CLIError(.general, error.reason.message, hint: error.reason.hint ?? "see the lines above")
        }
    }

    /// Flag, else environment, else file, else default.
    func daemonConfiguration(_ terminal: Terminal) throws(CLIError) -> DaemonConfiguration {
        let file = try fileSettings(config ?? terminal.setting("HIVEMIND_CONFIG"), terminal)
        func value(_ flag: String?, _ name: String) -> String? {
            let key = name.lowercased().split(separator: "_").joined(separator: "-")
            return flag ?? terminal.setting("HIVEMIND_\(name)") ?? file[key]
        }
        var result = DaemonConfiguration()
        if let path = value(dataDir, "DATA_DIR") { result.dataDirectory = absolute(path, terminal) }
        if let path = value(socket, "SOCKET") { result.socketPath = absolute(path, terminal) }
        result.containerdAddress = value(containerd, "CONTAINERD")
        if let path = value(peers, "PEERS") { result.peersFile = absolute(path, terminal) }
        result.nodeName = value(nodeName, "NODE_NAME")
        if let text = value(runtime, "RUNTIME") {
            guard let kind = DaemonConfiguration.RuntimeKind(rawValue: text) else {
                throw .usage("--runtime `\(text)` is unknown", hint: "give containerd or simulated")
            }
            result.runtime = kind
        }
        if let level = value(logLevel, "LOG_LEVEL") {
            let levels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]
            guard levels.contains(level) else {
                throw .usage("--log-level `\(level)` is unknown", hint: "give one of \(levels.joined(separator: ", "))")
            }
            result.logLevel = level
        }
        if let text = value(compareInterval, "COMPARE_INTERVAL") {
            result.compareInterval = .milliseconds(try DurationParser.milliseconds(text, flag: "--compare-interval"))
        }
        if let text = value(snapshotInterval, "SNAPSHOT_INTERVAL") {
            result.snapshotInterval =
                text == "off"
                ? nil : .milliseconds(try DurationParser.milliseconds(text, flag: "--snapshot-interval"))
        }
        if let text = value(containerSubnet, "CONTAINER_SUBNET") {
            result.ranges.containers = try subnet(text, "--container-subnet")
        }
        if let text = value(virtualSubnet, "VIRTUAL_SUBNET") {
            result.ranges.virtual = try subnet(text, "--virtual-subnet")
        }
        return result
    }

    private func fileSettings(_ given: String?, _ terminal: Terminal) throws(CLIError) -> [String: String] {
        let path = given.map { absolute($0, terminal) } ?? Self.standardFile
        guard let data = FileManager.default.contents(atPath: path) else {
            if given == nil { return [:] }
            throw .usage("configuration file `\(path)` cannot be read", hint: "check the path and its permissions")
        }
        let loaded: Any?
        do { loaded = try Yams.load(yaml: String(decoding: data, as: UTF8.self)) } catch {
            throw .usage("configuration file `\(path)` is not YAML: \(error)", hint: "write one `key: value` a line")
        }
        let known = "keys are \(Self.keys.joined(separator: ", "))"
        guard let mapping = (loaded ?? [String: Any]()) as? [String: Any] else {
            throw .usage("configuration file `\(path)` does not hold `key: value` lines", hint: known)
        }
        if let unknown = mapping.keys.sorted().first(where: { !Self.keys.contains($0) }) {
            throw .usage("configuration file `\(path)` has an unknown key `\(unknown)`", hint: known)
        }
        return mapping.mapValues { "\($0)" }
    }

    private func absolute(_ path: String, _ terminal: Terminal) -> String {
        path.hasPrefix("/") ? path : MountParser.normalized("\(terminal.workingDirectory)/\(path)")
    }

    private func subnet(_ text: String, _ flag: String) throws(CLIError) -> IPv4Subnet {
        guard let subnet = IPv4Subnet(text), subnet.description == text else {
            throw .usage("\(flag) `\(text)` is not an IPv4 network", hint: "write it as 10.210.0.0/16, host bits zero")
        }
        return subnet
    }
}
