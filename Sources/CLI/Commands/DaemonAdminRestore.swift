// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Daemon
internal import FoundationEssentials
internal import Model

/// What a person says beside the file a cluster is restored from.
struct RestoreChoice: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Which of its nodes this machine is (default the one of the host's name, or the only one).",
            valueName: "name"))
    var node: String?
    @Option(
        help: ArgumentHelp(
            "Address of this machine for the others (default its first one); of a cluster formed from tokens.",
            valueName: "address"))
    var advertise: String?
    @Option(help: ArgumentHelp("TCP port between nodes (default 4484).", valueName: "port"))
    var peerPort: Int?
    @Option(help: ArgumentHelp("TCP port of the API (default 4483).", valueName: "port"))
    var apiPort: Int?
    @Option(
        help: ArgumentHelp(
            "File with the recovery code of `cluster init`, - for standard input; asked for on a terminal.",
            valueName: "file"), completion: .file())
    var recoveryCodeFile: String?
    @Flag(help: "Without the code: make another authority. Join tokens and contexts end, apps and API tokens stay.")
    var newAuthority = false

    func validate() throws {
        guard recoveryCodeFile == nil || !newAuthority else {
            throw ValidationError("--new-authority and --recovery-code-file exclude each other")
        }
        for port in [peerPort, apiPort].compactMap({ $0 }) where !(1...65_535).contains(port) {
            throw ValidationError("\(port) is no port")
        }
    }

    func options(_ terminal: Terminal) throws -> RestorationOptions {
        RestorationOptions(
            node: node, advertise: advertise, peerPort: peerPort, apiPort: apiPort,
            recoveryCode: try recoveryCodeFile.map { try Self.code(in: $0, terminal) }, newAuthority: newAuthority)
    }

    static func code(in file: String, _ terminal: Terminal) throws -> String {
        String(
            decoding: try terminal.readFile(file == "-" ? .standardInput : .file(file)).prefix(1_024), as: UTF8.self)
    }
}

extension RestorationReport {
    func show(_ output: Output) throws {
        try output.show(json: Array(try JSON.encode(self)), names: [clusterId]) { style in
            var block = Block()
            block.add("cluster", clusterId)
            block.add("node", node)
            block.add("directory", directory)
            block.add("snapshot", "\(snapshot) of \(createdAt)")
            block.add("entry", "\(snapshotIndex) of term \(snapshotTerm)")
            block.add("index", index)
            if let address { block.add("address", address) }
            if let recoveryCode { block.add("recovery code", recoveryCode, .strong) }
            return block.rendered(style)
        }
        if recoveryCode != nil { output.note("the recovery code is shown this once: keep it with the backups") }
        output.next("daemon --data-dir \(directory)")
    }
}

struct AdminRestore: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore", abstract: "Make a cluster out of a backup, in an empty data directory.",
        discussion: """
            For the day on which all machines are lost. Works without a daemon, on one machine, which becomes the only \
            member; every byte of the file is checked first. Apps, volumes, configs and tokens are as they were; the other \
            nodes of the old cluster are down, their tasks run here until other machines join with a new token. The \
            recovery code opens the cluster's authority, so that contexts go on. Interrupted, run it again.

            Examples:
              hivemind admin restore cluster.backup --dry-run
              sudo hivemind admin restore cluster.backup --node alpha --recovery-code-file code.txt
            """)

    @Argument(help: "What `admin backup` wrote.", completion: .file())
    var file: String
    @Flag(help: "Check the file, show what is in it and change nothing.")
    var dryRun = false
    @OptionGroup var choice: RestoreChoice
    @OptionGroup(title: "Common") var options: OfflineOptions

    func run() async throws {
        let output = try options.result()
        let terminal = output.terminal
        let directory = options.directory(terminal)
        let path = file.hasPrefix("/") ? file : MountParser.normalized("\(terminal.workingDirectory)/\(file)")
        if dryRun {
            let found = try Offline.run { try Restoration.inspect(backup: path) }
            return try found.show(output, file: path)
        }
        var chosen = try choice.options(terminal)
        if chosen.recoveryCode == nil, !chosen.newAuthority, terminal.isInputTTY, terminal.isErrorTTY {
            terminal.writeError(Array("recovery code (empty when the cluster was never initialized): ".utf8))
            let typed = terminal.readSecret() ?? ""
            chosen.recoveryCode = typed.isEmpty ? nil : typed
        }
        let wanted = chosen
        let report = try Offline.run {
            try Restoration.restore(backup: path, dataDirectory: directory, options: wanted)
        }
        try report.show(output)
    }
}

/// What a file of a backup is, for people and programs.
struct BackupReport: Encodable {
    var file: String
    var bytes: UInt64
    var index: UInt64
    var clusterId: String
    var node: String
    var createdAt: Timestamp
    var version: String
}

extension BackupCheck.Contents {
    func show(_ output: Output, file: String) throws {
        let report = BackupReport(
            file: file, bytes: bytes, index: index, clusterId: head.clusterId, node: head.node,
            createdAt: head.createdAt, version: head.version)
        try output.show(json: Array(try JSON.encode(report)), names: [file]) { style in
            var block = Block()
            block.add("file", "\(file), \(Format.bytes(Int64(clamping: bytes))), intact")
            block.add("cluster", head.clusterId)
            block.add("entry", index)
            block.add("made", "\(head.createdAt) by node `\(head.node)`, version \(head.version)")
            return block.rendered(style)
        }
    }
}
