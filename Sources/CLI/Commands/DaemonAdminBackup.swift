// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Daemon
internal import FoundationEssentials
internal import Glibc
internal import Model

struct AdminBackup: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup", abstract: "Write everything the cluster is into one file.",
        discussion: """
            Through any node, while the cluster runs. The file holds apps, configs, volumes (not what is in them), tokens \
            (hashed) and the cluster's authority (its key is sealed: the recovery code opens it). Configs are in it as they \
            are: keep it as a secret, readable by its owner only. Without a leader, --consistency local takes what the node \
            that answers has.

            Examples:
              hivemind admin backup /backup/cluster.backup
              hivemind admin backup - | ssh vault 'cat > cluster.backup'
            """)

    @Argument(help: "File to write, - for standard output.", completion: .file())
    var file: String
    @Flag(help: "Replace the file when it is there.")
    var force = false
    @OptionGroup var read: ReadOption
    @OptionGroup(title: "Common") var global: GlobalOptions

    func run() async throws {
        let output = try global.result()
        let terminal = output.terminal
        var check = BackupCheck()
        if file == "-" {
            guard !terminal.isOutputTTY else {
                throw CLIError.usage("a backup is nothing for a terminal", hint: "name a file, or pipe it on")
            }
            try await fetch { piece in
                check.take(piece)
                terminal.write(piece)
            }
            let contents = try Offline.run { try check.finish("what arrived") }
            return output.note("a backup of cluster `\(contents.head.clusterId)` at entry \(contents.index)")
        }
        let path = file.hasPrefix("/") ? file : MountParser.normalized("\(terminal.workingDirectory)/\(file)")
        guard force || access(path, F_OK) != 0 else {
            throw CLIError(.conflict, "`\(path)` is there already", hint: "name another file, or add --force")
        }
        let target = try NewFile(path)
        do {
            try await fetch { piece in
                check.take(piece)
                try target.write(piece)
            }
            let contents = try Offline.run { try check.finish("what arrived") }
            try target.finish()
            try contents.show(output, file: path)
        } catch {
            target.discard()
            throw error
        }
        // That one asks no daemon.
        Output(format: output.format, terminal: terminal).next("admin restore \(path) --dry-run")
    }

    private func fetch(_ each: ([UInt8]) throws -> Void) async throws {
        try await global.client().pieces(
            "POST", "/v1/backup", [("consistency", read.consistency?.rawValue)], timeout: .seconds(24 * 3_600),
            each: each)
    }
}

/// A file that is there whole or not at all, for its owner only.
private final class NewFile {
    private let path: String
    private let temporary: String
    private let descriptor: Int32

    init(_ path: String) throws(CLIError) {
        self.path = path
        temporary = "\(path).\(getpid()).part"
        descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Self.failure("make", temporary) }
    }

    // After an init that threw there is nothing to close, and -1 is no descriptor of anybody.
    deinit { close(descriptor) }

    private static func failure(_ verb: String, _ path: String) -> CLIError {
        CLIError(
            .general, "cannot \(verb) `\(path)`: \(String(cString: strerror(errno)))",
            hint: "check the directory, its rights and its free space")
    }

    func write(_ bytes: [UInt8]) throws(CLIError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Self.failure("write", temporary) }
            rest = rest.dropFirst(count)
        }
    }

    func finish() throws(CLIError) {
        guard fsync(descriptor) == 0 else { throw Self.failure("sync", temporary) }
        guard rename(temporary, path) == 0 else { throw Self.failure("rename", temporary) }
        let parent = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
        let directory = open(parent.isEmpty ? "/" : parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw Self.failure("open", parent) }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw Self.failure("sync", parent) }
    }

    func discard() { unlink(temporary) }
}
