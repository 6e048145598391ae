// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc
internal import Synchronization

/// A program started by a test. It leads a process group, so it and its children can be ended together.
public final class ChildProcess: Sendable {
    public let pid: Int32
    private let status = Mutex<Int32?>(nil)

    /// - Parameters:
    ///   - environment: added to the test's own, from which proxy settings are taken out: all traffic is local.
    ///   - log: standard output and error are appended to this file.
    public convenience init(_ arguments: [String], environment: [String: String] = [:], log: String) throws {
        let file = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw TestFailure("cannot open \(log): \(String(cString: strerror(errno)))") }
        defer { close(file) }
        let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
        defer { close(null) }
        try self.init(
            arguments, environment: environment, directory: nil, stdin: null, stdout: file, stderr: file)
    }

    init(
        _ arguments: [String], environment: [String: String], directory: String?, stdin: Int32, stdout: Int32,
        stderr: Int32
    ) throws {
        // posix_spawn's own chdir is hidden from Swift; env(1) has one.
        let arguments = directory.map { ["env", "--chdir=\($0)"] + arguments } ?? arguments
        guard let name = arguments.first, let program = name.contains("/") ? name : Host.program(name) else {
            throw TestFailure("no program `\(arguments.first ?? "")` in PATH")
        }
        var variables = ProcessInfo.processInfo.environment.filter { !$0.key.lowercased().hasSuffix("_proxy") }
        variables.merge(environment) { $1 }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, stdin, 0)
        posix_spawn_file_actions_adddup2(&actions, stdout, 1)
        posix_spawn_file_actions_adddup2(&actions, stderr, 2)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setpgroup(&attributes, 0)
        let flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
        posix_spawnattr_setflags(&attributes, Int16(flags))

        var argv = arguments.map { strdup($0) } + [nil]
        var envp = variables.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var child = pid_t()
        let result = posix_spawn(&child, program, &actions, &attributes, &argv, &envp)
        guard result == 0 else {
            throw TestFailure("cannot start `\(program)`: \(String(cString: strerror(result)))")
        }
        pid = child
    }

    /// Exit code or 128 + signal once it has ended, nil while it runs.
    public var exitStatus: Int32? {
        status.withLock { known in
            if known != nil { return known }
            var raw: Int32 = 0
            guard waitpid(pid, &raw, WNOHANG) == pid else { return nil }
            let signal = raw & 0x7f
            known = signal == 0 ? (raw >> 8) & 0xff : 128 + signal
            return known
        }
    }

    public var isRunning: Bool { exitStatus == nil }

    /// No effect once it has ended: its pid may be another's by then.
    public func signal(_ number: Int32) {
        if isRunning { kill(pid, number) }
    }

    public func signalGroup(_ number: Int32) {
        if isRunning { kill(-pid, number) }
    }

    /// - Returns: nil when it still runs at the deadline.
    public func wait(within limit: Duration) async throws -> Int32? {
        try? await eventually("process \(pid) ends", within: limit, every: .milliseconds(10)) { self.exitStatus }
    }

    /// SIGKILL for the whole group, and the child is reaped.
    public func kill9() async throws {
        signalGroup(SIGKILL)
        guard try await wait(within: .seconds(10)) != nil else { throw TestFailure("process \(pid) survived SIGKILL") }
    }

    func waitBlocking(timeout: Duration) -> Int32? {
        let deadline = ContinuousClock.now + timeout
        while true {
            if let status = exitStatus { return status }
            if ContinuousClock.now >= deadline { return nil }
            usleep(2000)
        }
    }
}
