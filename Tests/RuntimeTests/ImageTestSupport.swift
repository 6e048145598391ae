// SPDX-License-Identifier: Apache-2.0
import Glibc
import Synchronization

struct TestFailure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// A directory that goes away with its owner.
final class TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/hm-images-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw TestFailure("mkdtemp failed") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = try? ChildProcess.run("/bin/rm", ["-rf", path]) }

    func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        let file = "\(path)/\(name)"
        let descriptor = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw TestFailure("cannot open \(file)") }
        defer { close(descriptor) }
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress.map { $0 + done }, $0.count - done)
            }
            guard count > 0 else { throw TestFailure("cannot write \(file)") }
            done += count
        }
        return file
    }
}

func readFile(_ path: String) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = read(descriptor, &buffer, buffer.count)
        guard count > 0 else { return all }
        all += buffer[..<count]
    }
}

/// A process started by a test, killed at the latest with its owner.
final class ChildProcess: @unchecked Sendable {
    let pid: pid_t
    // Only the owner waits.
    private var status: Int32?

    /// No process starts while a pipe is not yet marked: it would hold its end open.
    private static let starting = Mutex(())

    /// Reading and writing end, neither inherited.
    static func pipe() throws -> [Int32] {
        try starting.withLock { _ in
            var ends: [Int32] = [0, 0]
            guard Glibc.pipe(&ends) == 0 else { throw TestFailure("no pipe") }
            for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
            return ends
        }
    }

    /// - Parameter descriptors: child's number to ours; 0, 1, 2 are /dev/null unless named.
    init(_ program: String, _ arguments: [String], descriptors: [Int32: Int32] = [:]) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        var moved: [Int32] = []
        defer { for descriptor in moved { close(descriptor) } }
        for number in Int32(0)...2 where descriptors[number] == nil {
            posix_spawn_file_actions_addopen(&actions, number, "/dev/null", O_RDWR, 0)
        }
        for (number, own) in descriptors {
            // Out of the way of the numbers it will get there.
            let high = fcntl(own, F_DUPFD_CLOEXEC, 100)
            moved.append(high)
            posix_spawn_file_actions_adddup2(&actions, high, number)
        }
        var argv: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for pointer in argv { free(pointer) } }
        var child = pid_t()
        let status = Self.starting.withLock { _ in posix_spawn(&child, program, &actions, nil, &argv, environ) }
        guard status == 0 else { throw TestFailure("cannot start \(program): \(String(cString: strerror(status)))") }
        pid = child
    }

    deinit {
        if status == nil {
            kill(pid, SIGKILL)
            _ = wait()
        }
    }

    /// Exit code, or 128 + signal.
    func wait() -> Int32 {
        if let status { return status }
        var raw: Int32 = 0
        while waitpid(pid, &raw, 0) < 0, errno == EINTR {}
        let code = raw & 0x7f == 0 ? (raw >> 8) & 0xff : 128 + (raw & 0x7f)
        status = code
        return code
    }

    func signal(_ number: Int32) { kill(pid, number) }

    @discardableResult
    static func run(_ program: String, _ arguments: [String]) throws -> Int32 {
        try ChildProcess(program, arguments).wait()
    }
}

/// Looks until the condition holds, at most `seconds`.
func eventually(_ seconds: Int = 60, _ condition: () async throws -> Bool) async throws -> Bool {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < deadline {
        if try await condition() { return true }
        try await Task.sleep(for: .milliseconds(20))
    }
    return false
}
