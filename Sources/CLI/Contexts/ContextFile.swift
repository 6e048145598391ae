// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
internal import Model

/// Where contexts are kept: `contexts.json` in `HIVEMIND_CONFIG_DIR`, else in `~/.config/hivemind`. It holds tokens, so only
/// its owner may read it.
struct ContextFile: Sendable {
    static let bytesMax = 4 << 20

    /// Nil when the environment names no place.
    let directory: String?

    init(_ terminal: Terminal) {
        directory = terminal.setting("HIVEMIND_CONFIG_DIR") ?? terminal.setting("HOME").map { "\($0)/.config/hivemind" }
    }

    private func path(_ directory: String) -> String { "\(directory)/contexts.json" }

    /// Empty when there is no file.
    func read() throws(CLIError) -> ContextList {
        guard let directory else { return ContextList() }
        let path = path(directory)
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            if errno == ENOENT || errno == ENOTDIR { return ContextList() }
            throw Self.fault("read", path, errno)
        }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw Self.fault("read", path, errno) }
        guard status.st_mode & 0o077 == 0 else {
            throw CLIError(
                .general, "\(path) holds tokens and can be read by others",
                hint: "chmod 600 \(path), then revoke the tokens")
        }
        guard status.st_size <= Self.bytesMax else {
            throw CLIError(
                .general, "\(path) is larger than \(Self.bytesMax) bytes", hint: "remove it and add the contexts again")
        }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var filled = 0
        while filled < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                pread(file, $0.baseAddress?.advanced(by: filled), $0.count - filled, off_t(filled))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            filled += count
        }
        do {
            return try JSON.decode(ContextList.self, from: Data(bytes.prefix(filled)))
        } catch {
            throw CLIError(
                .general, "\(path) cannot be understood: \(error)", hint: "move it away and add the contexts again")
        }
    }

    /// Whole or not at all: another process never sees a half of it.
    func write(_ list: ContextList) throws {
        guard let directory else {
            throw CLIError(.general, "there is no place for contexts: HOME is not set", hint: "set HIVEMIND_CONFIG_DIR")
        }
        guard list.contexts.count <= ContextList.countMax else {
            throw CLIError(
                .conflict, "there are \(ContextList.countMax) contexts already",
                hint: "remove some: hivemind context rm NAME")
        }
        try Self.makeDirectory(directory)
        let temporary = "\(path(directory)).\(getpid())"
        unlink(temporary)
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw Self.fault("write", temporary, errno) }
        let bytes = Array(try JSON.encode(list, pretty: true)) + [UInt8(ascii: "\n")]
        do throws(CLIError) {
            defer { close(file) }
            var sent = 0
            while sent < bytes.count {
                let count = bytes[sent...].withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw Self.fault("write", temporary, errno) }
                sent += count
            }
            guard fsync(file) == 0 else { throw Self.fault("write", temporary, errno) }
        } catch {
            unlink(temporary)
            throw error
        }
        guard rename(temporary, path(directory)) == 0 else {
            let number = errno
            unlink(temporary)
            throw Self.fault("write", path(directory), number)
        }
    }

    /// Missing parents are made as any directory is, the last one for its owner alone.
    private static func makeDirectory(_ path: String) throws(CLIError) {
        var made = path.hasPrefix("/") ? "" : "."
        let parts = path.split(separator: "/")
        for (index, part) in parts.enumerated() {
            made += "/\(part)"
            if mkdir(made, index == parts.count - 1 ? 0o700 : 0o755) != 0, errno != EEXIST {
                throw fault("make", made, errno)
            }
        }
    }

    private static func fault(_ verb: String, _ path: String, _ number: Int32) -> CLIError {
        CLIError(
            number == EACCES || number == EPERM ? .permission : .general,
            "cannot \(verb) \(path): \(String(cString: strerror(number)))",
            hint: "check its rights, or name another place with HIVEMIND_CONFIG_DIR")
    }
}
