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
    @OptionGroup var choice: RestoreChoice
    @OptionGroup(title: "Common") var options: OfflineOptions

    func run() async throws {
        let output = try options.result()
        let terminal = output.terminal
        let directory = options.directory(terminal)
        let path = file.hasPrefix("/") ? file : MountParser.normalized("\(terminal.workingDirectory)/\(file)")
        let report = try restoring(terminal) { options in
            try Restoration.restore(file: path, dataDirectory: directory, options: options)
        }
        try report.show(output)
    }

    private func restoring(
        _ terminal: Terminal, _ body: (RestorationOptions) throws -> RestorationReport
    ) throws -> RestorationReport {
        let options = try choice.options(terminal)
        return try Offline.run { try body(options) }
    }
}
