// SPDX-License-Identifier: Apache-2.0

/// Whom a command talks to.
enum Target: Hashable, Sendable {
    case socket(String)
    case context(Context)

    /// An explicit socket wins, then a context by flag, then the environment in the same order, then the context that was
    /// chosen with `context use`; else the socket of this machine's daemon.
    static func chosen(socket: String?, context: String?, _ terminal: Terminal) throws(CLIError) -> Target {
        if let socket { return .socket(socket) }
        if let context { return try named(context, terminal) }
        if let socket = terminal.setting("HIVEMIND_SOCKET") { return .socket(socket) }
        if let context = terminal.setting("HIVEMIND_CONTEXT") { return try named(context, terminal) }
        let list = try ContextFile(terminal).read()
        guard let current = list.current else { return .socket(GlobalOptions.defaultSocket) }
        return .context(try list.required(current))
    }

    private static func named(_ name: String, _ terminal: Terminal) throws(CLIError) -> Target {
        if name == Context.local { return .socket(GlobalOptions.defaultSocket) }
        return .context(try ContextFile(terminal).read().required(name))
    }
}

extension Terminal {
    func transport(_ target: Target) -> any Transport {
        switch target {
        case .socket(let path): connect(path)
        case .context(let context): remote(context)
        }
    }
}

/// The way to a daemon that could not be chosen: says why when it is used.
struct ClosedTransport: Transport {
    let error: CLIError

    func send(_ request: APIRequest) async throws -> APIReply { throw error }

    func lines(_ request: APIRequest) -> AsyncThrowingStream<[UInt8], any Error> {
        AsyncThrowingStream { $0.finish(throwing: error) }
    }

    func pieces(_ request: APIRequest) -> AsyncThrowingStream<[UInt8], any Error> { lines(request) }
}
