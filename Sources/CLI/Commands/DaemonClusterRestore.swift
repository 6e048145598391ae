// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Daemon
internal import FoundationEssentials
internal import Model

struct ClusterSnapshotRestore: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore", abstract: "Make a new cluster of one out of a snapshot, in an empty data directory.",
        discussion: """
            FILE is NAME.sqlite with NAME.manifest beside it, as `cluster snapshot save` leaves them. The new cluster \
            has an id of its own, and its index begins 1,000,000 higher, so that nobody takes its events for those of \
            the old one. Interrupted, run it again.

            Example:
              sudo hivemind cluster snapshot restore /backup/00000000000000004711-3-5f2a91c0.sqlite
            """)

    @Argument(help: "The snapshot, NAME.sqlite.", completion: .file(extensions: ["sqlite"]))
    var file: String
    @Option(
        help: ArgumentHelp(
            "Which node of the snapshot this machine is (default the one of the host's name, or the only one).",
            valueName: "name"))
    var node: String?
    @OptionGroup(title: "Common") var options: OfflineOptions

    func run() async throws {
        let output = try options.result()
        let terminal = output.terminal
        let directory = options.directory(terminal)
        let path = file.hasPrefix("/") ? file : MountParser.normalized("\(terminal.workingDirectory)/\(file)")
        let wanted = node
        let report = try Offline.run {
            try Restoration.restore(file: path, dataDirectory: directory, node: wanted)
        }
        try output.show(json: Array(try JSON.encode(report)), names: [report.clusterId]) { style in
            var block = Block()
            block.add("cluster", report.clusterId)
            block.add("node", report.node)
            block.add("directory", report.directory)
            block.add("snapshot", "\(report.snapshot) of \(report.createdAt)")
            block.add("entry", "\(report.snapshotIndex) of term \(report.snapshotTerm)")
            block.add("index", report.index)
            return block.rendered(style)
        }
        output.next("daemon --data-dir \(directory)")
    }
}
