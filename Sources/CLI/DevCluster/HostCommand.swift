// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc

/// Programs of the host.
enum HostCommand {
    /// Runs it to its end.
    /// - Throws: `CLIError` with what it wrote when it fails or is not installed.
    static func run(_ arguments: String...) throws(CLIError) {
        let (status, text) = try output(arguments)
        guard status == 0 else {
            throw CLIError(.general, "`\(arguments.joined(separator: " "))` failed: \(text)")
        }
    }

    /// Its exit code and what it wrote, at most 64 KiB of it.
    static func output(_ arguments: [String]) throws(CLIError) -> (status: Int32, text: String) {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw fault("cannot make a pipe", errno) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        defer { close(ends[0]) }
        let child: pid_t
        do {
            child = try spawn(arguments, output: ends[1], session: false)
        } catch {
            close(ends[1])
            throw error
        }
        close(ends[1])
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4_096)
        while true {
            let count = read(ends[0], &buffer, buffer.count)
            if count <= 0 { break }
            if text.count < 64 << 10 { text += buffer.prefix(count) }
        }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        let code = status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
        return (code, String(decoding: text, as: UTF8.self).split(separator: "\n").joined(separator: "; "))
    }

    /// Begins a program that outlives this one, in a session of its own, writing to the end of a file.
    /// - Returns: its process id.
    static func begin(_ arguments: [String], log path: String) throws(CLIError) -> pid_t {
        let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
        guard file >= 0 else { throw fault("cannot open `\(path)`", errno) }
        defer { close(file) }
        return try spawn(arguments, output: file, session: true)
    }

    private static func spawn(_ arguments: [String], output: Int32, session: Bool) throws(CLIError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, output, 2)
        // POSIX_SPAWN_SETSID of spawn.h, which Swift does not see.
        if session { posix_spawnattr_setflags(&attributes, 0x80) }
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var child: pid_t = 0
        let status = posix_spawnp(&child, arguments[0], &actions, &attributes, &words, environ)
        guard status == 0 else {
            throw CLIError(
                .general, "cannot run `\(arguments[0])`: \(String(cString: strerror(status)))",
                hint: status == ENOENT ? "install it: apt install iproute2 util-linux" : nil)
        }
        return child
    }

    private static func fault(_ what: String, _ code: Int32) -> CLIError {
        CLIError(.general, "\(what): \(String(cString: strerror(code)))")
    }
}
