// SPDX-License-Identifier: Apache-2.0
internal import Dispatch
internal import Glibc
internal import Model

/// Everything a command touches outside itself: terminal, environment, clock, and the way to the daemon.
///
/// Commands take it from `Terminal.current`; a test puts its own in place for the length of one run.
struct Terminal: Sendable {
    @TaskLocal static var current = Terminal.process

    var isOutputTTY: Bool
    var isErrorTTY: Bool
    var isInputTTY: Bool
    /// Columns of the terminal.
    var width: Int
    var environment: @Sendable (String) -> String?
    var write: @Sendable ([UInt8]) -> Void
    var writeError: @Sendable ([UInt8]) -> Void
    /// One line of standard input without its end; nil at the end of input.
    var readLine: @Sendable () -> String?
    var readFile: @Sendable (InputSource) throws -> [UInt8]
    var now: @Sendable () -> Timestamp
    /// Since some fixed moment, never running backwards.
    var elapsed: @Sendable () -> Duration
    var sleep: @Sendable (Duration) async throws -> Void
    /// Yields once for each Ctrl-C, which from then on no longer ends the process.
    var interrupts: @Sendable () -> AsyncStream<Void>
    /// A transport to the daemon behind a socket path.
    var connect: @Sendable (String) -> any Transport
    /// A transport to the nodes of a context.
    var remote: @Sendable (Context) -> any Transport = { RemoteTransport($0) }
    /// One line of the terminal that does not show what is typed; nil at its end.
    var readSecret: @Sendable () -> String? = { SecretInput.readLine() }

    var usesColor: Bool {
        isOutputTTY && (environment("NO_COLOR") ?? "").isEmpty && environment("TERM") != "dumb"
    }
    var usesErrorColor: Bool {
        isErrorTTY && (environment("NO_COLOR") ?? "").isEmpty && environment("TERM") != "dumb"
    }

    func print(_ text: String) { write(Array("\(text)\n".utf8)) }
    /// Everything that is not data.
    func note(_ text: String) { writeError(Array("\(text)\n".utf8)) }

    /// As the caller sees it (`PWD` may name a link), else as the kernel does.
    var workingDirectory: String {
        if let directory = setting("PWD"), directory.hasPrefix("/") { return directory }
        guard let buffer = getcwd(nil, 0) else { return "/" }
        defer { free(buffer) }
        return String(cString: buffer)
    }

    /// The variable `name`, nil when unset or empty.
    func setting(_ name: String) -> String? {
        guard let value = environment(name), !value.isEmpty else { return nil }
        return value
    }
}

extension Terminal {
    static var process: Terminal {
        let isErrorTTY = isatty(STDERR_FILENO) == 1
        let isOutputTTY = isatty(STDOUT_FILENO) == 1
        return Terminal(
            isOutputTTY: isOutputTTY,
            isErrorTTY: isErrorTTY,
            isInputTTY: isatty(STDIN_FILENO) == 1,
            width: columns(),
            environment: { name in getenv(name).map { String(cString: $0) } },
            write: { bytes in put(bytes, on: STDOUT_FILENO) },
            writeError: { bytes in put(bytes, on: STDERR_FILENO) },
            readLine: { Swift.readLine(strippingNewline: true) },
            readFile: { source in try source.read() },
            now: {
                var time = timespec()
                clock_gettime(CLOCK_REALTIME, &time)
                return Timestamp(milliseconds: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000)
            },
            elapsed: {
                var time = timespec()
                clock_gettime(CLOCK_MONOTONIC, &time)
                return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
            },
            sleep: { duration in try await Task.sleep(for: duration) },
            interrupts: interruptStream,
            connect: { SocketTransport(socket: $0) }
        )
    }

    private static func columns() -> Int {
        var size = winsize()
        for descriptor in [STDOUT_FILENO, STDERR_FILENO]
        where ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 {
            return Int(size.ws_col)
        }
        return 80
    }

    /// A reader that went away ends the process by SIGPIPE; any other failed write leaves nobody to tell.
    private static func put(_ bytes: [UInt8], on descriptor: Int32) {
        bytes.withUnsafeBytes { all in
            var offset = 0
            while offset < all.count, let base = all.baseAddress {
                let written = Glibc.write(descriptor, base + offset, all.count - offset)
                if written < 0, errno == EINTR { continue }
                guard written > 0 else { return }
                offset += written
            }
        }
    }

    private static func interruptStream() -> AsyncStream<Void> {
        AsyncStream(bufferingPolicy: .bufferingNewest(1)) { continuation in
            signal(SIGINT, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: SIGINT, queue: .global())
            source.setEventHandler { continuation.yield() }
            let held = HeldSource(source: source)
            continuation.onTermination = { _ in
                held.source.cancel()
                signal(SIGINT, SIG_DFL)
            }
            source.resume()
        }
    }
}

/// Unchecked: of a dispatch source only `cancel` is called, which any thread may do.
private struct HeldSource: @unchecked Sendable { let source: any DispatchSourceSignal }

/// Where bytes are read from.
enum InputSource: Sendable, Hashable {
    case standardInput
    case file(String)

    var name: String {
        switch self {
        case .standardInput: "standard input"
        case .file(let path): path
        }
    }

    static let bytesMax = 4 << 20

    /// All of it, at most `bytesMax`.
    func read() throws(CLIError) -> [UInt8] {
        var descriptor = STDIN_FILENO
        if case .file(let path) = self {
            descriptor = open(path, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw failure(errno) }
        }
        defer { if descriptor != STDIN_FILENO { close(descriptor) } }
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure(errno) }
            guard count > 0 else { return all }
            all += buffer[..<count]
            guard all.count <= Self.bytesMax else {
                throw CLIError(.general, "\(name) is longer than 4 MiB", hint: "pass a smaller file")
            }
        }
    }

    private func failure(_ number: Int32) -> CLIError {
        CLIError(
            .general, "cannot read \(name): \(String(cString: strerror(number)))", hint: "check the path and its rights"
        )
    }
}

extension Terminal {
    /// Runs `operation` until it ends or Ctrl-C comes: then it is cancelled and the answer is nil.
    func untilInterrupted<Value: Sendable>(
        _ operation: @escaping @Sendable () async throws -> Value
    ) async throws -> Value? {
        let signals = interrupts()
        return try await withThrowingTaskGroup(of: Value?.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await operation() }
            group.addTask {
                for await _ in signals { return nil }
                throw CancellationError()
            }
            return try await group.next() ?? nil
        }
    }

    /// Asks before something is lost. `yes` answers; without a terminal to ask on it is required.
    /// - Parameter instead: what says yes beforehand.
    func confirm(_ question: String, yes: Bool, instead: String = "add --yes") throws(CLIError) {
        if yes { return }
        guard isInputTTY, isErrorTTY else {
            throw .usage("\(question) needs a yes, and there is no terminal to ask on", hint: instead)
        }
        writeError(Array("\(question)? [y/N] ".utf8))
        let answer = (readLine() ?? "").lowercased()
        guard answer == "y" || answer == "yes" else {
            throw CLIError(.general, "nothing was changed", hint: "answer y, or \(instead)")
        }
    }
}
