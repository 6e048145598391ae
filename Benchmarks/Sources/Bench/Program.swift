// SPDX-License-Identifier: Apache-2.0
import Foundation

struct BenchError: Error, CustomStringConvertible {
    var description: String
    init(_ text: String) { description = text }
}

/// A process started without a shell. Not Foundation's: that one adds milliseconds of its own.
struct Program {
    let pid: pid_t

    /// - Parameter output: file for both outputs; nil drops them.
    init(_ arguments: [String], output: String? = nil, descriptor: Int32? = nil) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        if let descriptor {
            posix_spawn_file_actions_adddup2(&actions, descriptor, 1)
        } else {
            posix_spawn_file_actions_addopen(&actions, 1, output ?? "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        }
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for pointer in argv { free(pointer) } }
        var pid = pid_t()
        let status = posix_spawnp(&pid, arguments[0], &actions, nil, &argv, environ)
        guard status == 0 else { throw BenchError("\(arguments[0]): \(String(cString: strerror(status)))") }
        self.pid = pid
    }

    /// Exit code, or 128 and the signal's number.
    @discardableResult
    func wait() -> Int32 {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        return status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
    }

    func kill(_ signal: Int32) { Glibc.kill(pid, signal) }

    /// Runs to the end.
    /// - Throws: also when it fails, with what it printed.
    @discardableResult
    static func run(_ arguments: [String]) throws -> (output: String, milliseconds: Double) {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw BenchError("no pipe") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let began = now()
        let program = try Program(arguments, descriptor: ends[1])
        close(ends[1])
        let data = FileHandle(fileDescriptor: ends[0], closeOnDealloc: true).readDataToEndOfFile()
        let code = program.wait()
        let took = now() - began
        let text = String(decoding: data, as: UTF8.self)
        guard code == 0 else { throw BenchError("\(arguments.joined(separator: " ")): exit code \(code): \(text)") }
        return (text, took)
    }
}

/// Looks again until the body answers.
func eventually<Value>(
    _ what: String, seconds: Double = 60, everyMicroseconds: UInt32 = 1000, _ body: () throws -> Value?
) throws -> Value {
    let deadline = now() + seconds * 1000
    while true {
        if let value = try body() { return value }
        guard now() < deadline else { throw BenchError("not within \(Int(seconds)) s: \(what)") }
        usleep(everyMicroseconds)
    }
}
