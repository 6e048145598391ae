// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Synchronization

/// A decoded answer together with the bytes it came as: `-o json` shows those.
struct Answer<Value: Sendable>: Sendable {
    var value: Value
    var body: [UInt8]
    var status: Int
    /// Id of the operation to follow, from `Location: /v1/operations/{id}`.
    var operation: String?
}

/// Says once that a node which knows no leader shows what it knew when it last had one.
final class Staleness: Sendable {
    private let isSaid: Mutex<Bool>

    init(isSaid: Bool = false) { self.isSaid = Mutex(isSaid) }

    func note(_ reply: APIReply) {
        guard let text = reply.headers["hivemind-leaderless-milliseconds"], let milliseconds = Int64(text),
            milliseconds >= 1_000,
            !isSaid.withLock({ said in
                defer { said = true }; return said
            })
        else { return }
        Terminal.current.note(
            "note: this node has known no leader for \(milliseconds / 1_000) s: it shows what it knew then")
    }
}

/// Typed calls of the API.
struct Client: Sendable {
    let transport: any Transport
    /// Sent when the user gave one; the daemon has the default.
    let namespace: String?
    private var staleness = Staleness()

    init(transport: any Transport, namespace: String?) {
        self.transport = transport
        self.namespace = namespace
    }

    /// For those who know that the node has no leader, and wait for it to have one.
    var silent: Client {
        var client = self
        client.staleness = Staleness(isSaid: true)
        return client
    }

    func get<Value: Decodable & Sendable>(
        _ path: String, _ query: [(String, String?)] = [], as type: Value.Type = Value.self
    ) async throws -> Answer<Value> {
        try decode(try await call("GET", path, query))
    }

    func send<Value: Decodable & Sendable>(
        _ method: String, _ path: String, _ query: [(String, String?)] = [], body: some Encodable & Sendable,
        headers: [String: String] = [:], timeout: Duration = .seconds(60), as type: Value.Type = Value.self
    ) async throws -> Answer<Value> {
        let bytes = APIRequest.Body.bytes(Array(try JSON.encode(body)))
        return try decode(
            try await call(method, path, query, body: bytes, headers: headers, timeout: timeout))
    }

    /// A request whose 2xx answer may be empty.
    /// - Throws: `CLIError` made of the problem for any other status.
    func call(
        _ method: String, _ path: String, _ query: [(String, String?)] = [], body: APIRequest.Body = .none,
        headers: [String: String] = [:], timeout: Duration = .seconds(60)
    ) async throws -> APIReply {
        let request = self.request(method, path, query, body: body, headers: headers, timeout: timeout)
        let reply = try await transport.send(request)
        guard reply.isSuccess else { throw Self.error(reply, request) }
        staleness.note(reply)
        return reply
    }

    func decode<Value: Decodable & Sendable>(_ reply: APIReply) throws -> Answer<Value> {
        do {
            let value = try JSON.decode(Value.self, from: Data(reply.body))
            return Answer(value: value, body: reply.body, status: reply.status, operation: reply.operation)
        } catch {
            throw CLIError(
                .general, "the daemon's answer cannot be understood: \(error)",
                hint: "compare the versions of daemon and command line: `hivemind version`")
        }
    }

    /// Each log line as it comes, with the bytes it came as.
    func logs(
        app: String, _ query: [(String, String?)], timeout: Duration?,
        each: (AppLogLine, [UInt8]) throws -> Void
    ) async throws {
        let request = self.request("GET", "/v1/apps/\(Self.escape(app))/logs", query, timeout: timeout)
        do {
            for try await line in transport.lines(request) where !line.isEmpty {
                let answer: Answer<AppLogLine> = try decode(APIReply(status: 200, body: line))
                try each(answer.value, line)
            }
        } catch let refused as RefusedReply {
            throw Self.error(refused.reply, request)
        }
    }

    /// The body of an answer in pieces.
    func pieces(
        _ method: String, _ path: String, _ query: [(String, String?)], timeout: Duration?,
        each: ([UInt8]) throws -> Void
    ) async throws {
        let request = self.request(method, path, query, timeout: timeout)
        do {
            for try await piece in transport.pieces(request) { try each(piece) }
        } catch let refused as RefusedReply {
            throw Self.error(refused.reply, request)
        }
    }

    /// Frames of the event stream as they come, until the daemon ends it.
    func events(
        after place: String?, _ query: [(String, String?)], each: (EventFrame) throws -> Void
    ) async throws {
        var request = self.request("GET", "/v1/events", [("after", place)] + query, timeout: nil)
        request.silence = EventWatch.silence
        var reader = EventFrame.Reader()
        do {
            for try await line in transport.lines(request) {
                if let frame = reader.take(line) { try each(frame) }
            }
        } catch let refused as RefusedReply {
            throw Self.error(refused.reply, request)
        }
    }

    private func request(
        _ method: String, _ path: String, _ query: [(String, String?)], body: APIRequest.Body = .none,
        headers: [String: String] = [:], timeout: Duration?
    ) -> APIRequest {
        let pairs = ([("namespace", namespace)] + query).compactMap { name, value in
            value.map { "\(name)=\(Self.escape($0))" }
        }
        var headers = headers
        if case .bytes = body { headers["Content-Type"] = "application/json" }
        if case .file = body { headers["Content-Type"] = "application/x-tar" }
        return APIRequest(
            method: method, path: pairs.isEmpty ? path : "\(path)?\(pairs.joined(separator: "&"))",
            headers: headers, body: body, timeout: timeout)
    }

    /// Percent-encodes all but the unreserved characters of RFC 3986.
    static func escape(_ text: String) -> String {
        let digits = Array("0123456789ABCDEF".unicodeScalars)
        var escaped = String.UnicodeScalarView()
        for byte in text.utf8 {
            let scalar = Unicode.Scalar(byte)
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9", "-", ".", "_", "~": escaped.append(scalar)
            default: escaped.append(contentsOf: ["%", digits[Int(byte >> 4)], digits[Int(byte & 15)]])
            }
        }
        return String(escaped)
    }
}

extension APIReply {
    fileprivate var operation: String? {
        guard let location = headers["location"], let slash = location.lastIndex(of: "/"),
            location[..<slash].hasSuffix("/operations")
        else { return nil }
        return String(location[location.index(after: slash)...])
    }
}

extension Client {
    /// A problem read leniently: a newer daemon may know more codes than this program.
    private struct ProblemReply: Decodable {
        var code: String?
        var title: String?
        var detail: String?
        var hint: String?
        var requestId: String?
    }

    /// The table from problems to exit codes.
    static func error(_ reply: APIReply, _ request: APIRequest) -> CLIError {
        guard let problem = try? JSON.decode(ProblemReply.self, from: Data(reply.body)),
            let text = problem.detail ?? problem.title
        else {
            // Not a problem document: something else answered, and its status is all there is to say.
            return CLIError(
                exitStatus(code: nil, status: reply.status),
                "\(request.method) \(request.path) was answered with status \(reply.status)",
                hint: "is this the socket of a hivemind daemon? compare versions with `hivemind version`")
        }
        let code = problem.code.flatMap { Problem.Code(rawValue: $0) }
        var hint = problem.hint ?? code.flatMap { Hints.problem($0) }
        if code == .internal, let id = problem.requestId { hint = "look for request \(id) in the daemon's log" }
        return CLIError(
            exitStatus(code: code, status: reply.status), text, hint: hint ?? Hints.generic, code: problem.code)
    }

    static func exitStatus(code: Problem.Code?, status: Int) -> ExitStatus {
        switch code {
        case .badRequest, .invalidName, .invalidSpec: return .usage
        case .notFound, .imageNotFound: return .notFound
        case .conflict, .preconditionFailed, .portConflict, .volumeInUse, .imageInUse: return .conflict
        case .unauthenticated: return .authentication
        case .forbidden, .registryDenied: return .permission
        case .timeout: return .timeout
        case .methodNotAllowed, .imageInvalid, .registryUnreachable, .payloadTooLarge, .busy, .noLeader, .noSpace,
            .runtimeUnavailable, .compacted, .internal:
            return .general
        case nil: break
        }
        switch status {
        case 401: return .authentication
        case 403: return .permission
        case 404: return .notFound
        case 409, 412: return .conflict
        case 408, 504: return .timeout
        default: return .general
        }
    }
}
