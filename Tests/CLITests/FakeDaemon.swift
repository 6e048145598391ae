// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Model
import Synchronization

@testable import CLI

/// A daemon that answers from a script and keeps what it was asked.
final class FakeDaemon: Transport {
    private struct State {
        var script: [String: [Result<APIReply, CLIError>]] = [:]
        var requests: [APIRequest] = []
    }

    private let state = Mutex(State())

    var requests: [APIRequest] { state.withLock { $0.requests } }
    var log: [String] { requests.map { "\($0.method) \($0.path)" } }

    /// Answers in turn; the last one again and again.
    @discardableResult
    func on(_ request: String, _ replies: APIReply...) -> FakeDaemon {
        state.withLock { $0.script[request, default: []] += replies.map { .success($0) } }
        return self
    }

    @discardableResult
    func fail(_ request: String, _ error: CLIError) -> FakeDaemon {
        state.withLock { $0.script[request, default: []].append(.failure(error)) }
        return self
    }

    func send(_ request: APIRequest) async throws -> APIReply {
        let key = "\(request.method) \(request.path)"
        return try state.withLock { state in
            state.requests.append(request)
            guard var queue = state.script[key], let reply = queue.first else {
                return .problem(Problem(.notFound, "nothing is scripted for \(key)"))
            }
            if queue.count > 1 {
                queue.removeFirst()
                state.script[key] = queue
            }
            return try reply.get()
        }
    }

    func pieces(_ request: APIRequest) -> AsyncThrowingStream<[UInt8], any Error> {
        AsyncThrowingStream { continuation in
            Task {
                do {
                    let reply = try await self.send(request)
                    guard reply.isSuccess else { throw RefusedReply(reply: reply) }
                    for start in stride(from: 0, to: reply.body.count, by: 7) {
                        continuation.yield(Array(reply.body[start..<min(start + 7, reply.body.count)]))
                    }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
    }

    func lines(_ request: APIRequest) -> AsyncThrowingStream<[UInt8], any Error> {
        AsyncThrowingStream { continuation in
            Task {
                do {
                    let reply = try await self.send(request)
                    guard reply.isSuccess else { throw RefusedReply(reply: reply) }
                    let lines = reply.body.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
                    for line in lines.dropLast() { continuation.yield(Array(line)) }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
    }
}

extension APIReply {
    static func ok(_ value: some Encodable, status: Int = 200, operation: String? = nil) -> APIReply {
        let body = (try? JSON.encode(value)).map { Array($0) } ?? []
        return APIReply(
            status: status, headers: operation.map { ["location": "/v1/operations/\($0)"] } ?? [:], body: body)
    }

    static func problem(_ problem: Problem) -> APIReply {
        APIReply(status: problem.status, body: (try? JSON.encode(problem)).map { Array($0) } ?? [])
    }

    static func lines(_ values: [some Encodable]) -> APIReply {
        let lines = values.map { ((try? JSON.encode($0)).map { Array($0) } ?? []) + [UInt8(ascii: "\n")] }
        return APIReply(status: 200, body: lines.flatMap { $0 })
    }

    static let empty = APIReply(status: 204, body: [])
}

/// What one command line left behind.
struct RunResult {
    var status: Int32
    var out: String
    var err: String
}

/// A terminal made of values: a virtual clock, a script of keystrokes, captured output.
final class FakeTerminal: Sendable {
    struct Options {
        var isTTY = false
        var environment: [String: String] = [:]
        var answers: [String] = []
        var files: [String: String] = [:]
        var input = ""
        /// Ctrl-C comes at once.
        var isInterrupted = false
        /// Typed without echo.
        var secret: String?
    }

    private struct State {
        var out: [UInt8] = []
        var err: [UInt8] = []
        var answers: [String] = []
        var elapsed = Duration.zero
        var sockets: [String] = []
        var contexts: [Context] = []
    }

    private let state = Mutex(State())
    static let now = Timestamp(milliseconds: 1_772_368_205_000)

    var sockets: [String] { state.withLock { $0.sockets } }
    var contexts: [Context] { state.withLock { $0.contexts } }

    func terminal(_ daemon: FakeDaemon, _ options: Options) -> Terminal {
        state.withLock { $0.answers = options.answers }
        return Terminal(
            isOutputTTY: options.isTTY, isErrorTTY: options.isTTY, isInputTTY: options.isTTY, width: 100,
            environment: { options.environment[$0] },
            write: { bytes in self.state.withLock { $0.out += bytes } },
            writeError: { bytes in self.state.withLock { $0.err += bytes } },
            readLine: { self.state.withLock { $0.answers.isEmpty ? nil : $0.answers.removeFirst() } },
            readFile: { source in
                switch source {
                case .standardInput: return Array(options.input.utf8)
                case .file(let path):
                    guard let text = options.files[path] else { return try source.read() }
                    return Array(text.utf8)
                }
            },
            now: { Self.now },
            elapsed: { self.state.withLock { $0.elapsed } },
            sleep: { duration in
                self.state.withLock { $0.elapsed += duration }
                try Task.checkCancellation()
                await Task.yield()
            },
            interrupts: {
                AsyncStream { continuation in
                    if options.isInterrupted { continuation.yield() }
                }
            },
            connect: { socket in
                self.state.withLock { $0.sockets.append(socket) }
                return daemon
            },
            remote: { context in
                self.state.withLock { $0.contexts.append(context) }
                return daemon
            },
            readSecret: { options.secret })
    }

    func result(_ status: Int32) -> RunResult {
        state.withLock {
            RunResult(
                status: status, out: String(decoding: $0.out, as: UTF8.self),
                err: String(decoding: $0.err, as: UTF8.self))
        }
    }
}

/// Runs one command line as `main` does.
func hivemind(
    _ arguments: String..., daemon: FakeDaemon = FakeDaemon(), options: FakeTerminal.Options = .init(),
    fake: FakeTerminal = FakeTerminal()
) async -> RunResult {
    let status = await Terminal.$current.withValue(fake.terminal(daemon, options)) {
        await Hivemind.execute(arguments)
    }
    return fake.result(status)
}
