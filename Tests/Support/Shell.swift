// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc

/// What a program printed and how it ended.
public struct ShellOutput: Sendable, CustomStringConvertible {
    public var arguments: [String]
    /// Exit code, or 128 + signal; 124 when the deadline ended it.
    public var status: Int32
    public var stdout: String
    public var stderr: String

    public var succeeded: Bool { status == 0 }
    /// Without the line end, as `$(…)` in a shell.
    public var text: String {
        var end = stdout.endIndex
        while end > stdout.startIndex, stdout[stdout.index(before: end)].isNewline { end = stdout.index(before: end) }
        return String(stdout[..<end])
    }
    public var lines: [String] { text.isEmpty ? [] : text.split(separator: "\n").map(String.init) }

    public var description: String {
        "`\(arguments.joined(separator: " "))` ended with \(status)\n\(stdout)\(stderr)"
    }

    /// Itself, when the program succeeded.
    @discardableResult
    public func checked() throws -> ShellOutput {
        guard succeeded else { throw TestFailure(description) }
        return self
    }
}

/// Runs programs with a deadline, each in a process group of its own so that the deadline ends all it started.
public enum Shell {
    /// Waits on a thread of its own, never on the cooperative pool.
    public static func run(
        _ arguments: [String], environment: [String: String] = [:], input: String? = nil, directory: String? = nil,
        timeout: Duration = .seconds(60)
    ) async throws -> ShellOutput {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread {
                continuation.resume(
                    with: Result {
                        try runBlocking(
                            arguments, environment: environment, input: input, directory: directory, timeout: timeout)
                    })
            }
        }
    }

    static func runBlocking(
        _ arguments: [String], environment: [String: String] = [:], input: String? = nil, directory: String? = nil,
        timeout: Duration
    ) throws -> ShellOutput {
        // Files, not pipes: a background process that inherits them cannot keep the reader waiting.
        let (stdin, stdout, stderr) = (try unnamedFile(), try unnamedFile(), try unnamedFile())
        defer { for file in [stdin, stdout, stderr] { close(file) } }
        if let input { try write(input, to: stdin) }
        let process = try ChildProcess(
            arguments, environment: environment, directory: directory, stdin: stdin, stdout: stdout, stderr: stderr)
        var status = process.waitBlocking(timeout: timeout)
        var note = ""
        if status == nil {
            process.signalGroup(SIGKILL)
            _ = process.waitBlocking(timeout: .seconds(10))
            status = 124
            note = "\ntest: killed after \(timeout)\n"
        }
        return ShellOutput(
            arguments: arguments, status: status ?? 124, stdout: contents(of: stdout),
            stderr: contents(of: stderr) + note)
    }

    private static func unnamedFile() throws -> Int32 {
        var template = Array("/tmp/hmt-io-XXXXXX".utf8CString)
        let file = mkstemp(&template)
        guard file >= 0 else { throw TestFailure("cannot make a file in /tmp: \(String(cString: strerror(errno)))") }
        _ = fcntl(file, F_SETFD, FD_CLOEXEC)
        unlink(template)
        return file
    }

    private static func write(_ text: String, to file: Int32) throws {
        let bytes = Array(text.utf8)
        guard Glibc.write(file, bytes, bytes.count) == bytes.count else { throw TestFailure("cannot write input") }
        lseek(file, 0, SEEK_SET)
    }

    private static func contents(of file: Int32) -> String {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = pread(file, &buffer, buffer.count, bytes.count)
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
