// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Daemon
internal import FoundationEssentials
internal import Model

struct ClusterRecover: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recover", abstract: "Make a survivor a cluster of its own when the quorum is lost for ever.",
        discussion: """
            Works on the data directory of a stopped daemon. First look at every survivor with --dry-run and choose the \
            one with the highest last entry: term first, then index. What only the lost members held is lost; all this \
            survivor holds is kept, and the apps are not touched. The directory is backed up first. In a cluster \
            formed from tokens the other nodes that are up go on in the new one by themselves; members from a list of peers \
            are refused: empty their data directories and add them anew. Interrupted, run it again.

            Examples:
              hivemind cluster recover --dry-run
              sudo hivemind cluster recover --yes
            """)

    @Flag(help: "Show what this survivor holds and change nothing.")
    var dryRun = false
    @Flag(name: [.customShort("y"), .long], help: "Do not ask.")
    var yes = false
    @Option(
        help: ArgumentHelp(
            "File with the recovery code, - for standard input: for a survivor that does not hold the cluster's key.",
            valueName: "file"), completion: .file())
    var recoveryCodeFile: String?
    @OptionGroup(title: "Common") var options: OfflineOptions

    func run() async throws {
        let output = try options.result()
        let directory = options.directory(output.terminal)
        let found = try Offline.run { try Recovery.survey(dataDirectory: directory) }
        if dryRun {
            try output.show(json: Array(try JSON.encode(found)), names: [found.node]) { Self.block(found).rendered($0) }
            return output.next("cluster recover --data-dir \(directory)")
        }
        if !output.format.isForPrograms { output.terminal.note(Self.block(found).rendered(.plain)) }
        try output.terminal.confirm(
            "make `\(found.node)` a cluster of its own and give up every other member", yes: yes)
        let code = try recoveryCodeFile.map { try RestoreChoice.code(in: $0, output.terminal) }
        let done = try Offline.run { try Recovery.recover(dataDirectory: directory, code: code) }
        try output.show(json: Array(try JSON.encode(done)), names: [done.result?.clusterId ?? done.node]) { style in
            var block = Block()
            if let result = done.result {
                block.add("cluster", result.clusterId)
                block.add("member", "\(done.node), the only one")
                block.add("term", result.term)
                block.add("index", result.index)
                block.add("gave up", result.removed.map { "\($0)" }.joined(separator: ", "))
                block.add("backup", result.backup)
            }
            return block.rendered(style)
        }
        output.note(
            "nodes that came by a token follow by themselves; a peer list of the old cluster is void: start this node "
                + "without --peers, or with a new list")
        output.next("daemon --data-dir \(directory)")
    }

    private static func block(_ report: RecoveryReport) -> Block {
        var block = Block()
        block.add("directory", report.directory)
        block.add("node", "\(report.node), member \(report.memberId)")
        block.add("cluster", report.clusterId)
        block.add("last entry", "term \(report.lastTerm), index \(report.lastIndex)", .strong)
        block.add("term", report.term)
        block.add("committed", "\(report.commitIndex) at least")
        block.add("applied", report.appliedIndex)
        if report.uncertainEntries > 0 {
            block.add(
                "uncertain", "\(report.uncertainEntries) entries that were perhaps never agreed; they are kept", .busy)
        }
        block.add("voters", report.voters.map { "\($0)" }.joined(separator: ", "))
        block.add("standbys", report.learners.map { "\($0)" }.joined(separator: ", "))
        block.add(
            "may be lost",
            report.isUnderWay
                ? "decided: an interrupted recovery is gone on with"
                : "every change another survivor has beyond (term \(report.lastTerm), index \(report.lastIndex)): "
                    + "look at each with --dry-run", .bad)
        return block
    }
}

/// What offline verbs share.
enum Offline {
    /// Problems of an offline verb as the same problem of the API would end the command.
    static func run<Value>(_ body: () throws -> Value) throws -> Value {
        do {
            return try body()
        } catch let problem as Problem {
            throw CLIError(
                Client.exitStatus(code: problem.code, status: problem.status), problem.detail,
                hint: problem.hint ?? Hints.problem(problem.code), code: problem.code.rawValue)
        } catch let error as any ReasonError {
            throw CLIError(.general, error.reason.message, hint: error.reason.hint ?? "see the lines above")
        } catch let error as DaemonError {
            throw CLIError(.general, error.message, hint: error.hint ?? "see the lines above")
        }
    }
}
