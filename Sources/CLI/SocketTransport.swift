// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import HTTPClient

/// HTTP over the daemon's unix socket.
struct SocketTransport: Transport {
    let socket: String
    private let client = HTTPClient(userAgent: "hivemind", transfersMax: 4)

    init(socket: String) { self.socket = socket }

    func send(_ request: APIRequest) async throws -> APIReply {
        do {
            return APIReply(try await client.send(httpRequest(request)))
        } catch {
            throw describe(error, request)
        }
    }

    func lines(_ request: APIRequest) -> AsyncThrowingStream<[UInt8], any Error> {
        stream(client.lines(httpRequest(request)), request)
    }

    func pieces(_ request: APIRequest) -> AsyncThrowingStream<[UInt8], any Error> {
        stream(client.pieces(httpRequest(request)), request)
    }

    private func stream(
        _ lines: AsyncThrowingStream<[UInt8], any Error>, _ request: APIRequest
    ) -> AsyncThrowingStream<[UInt8], any Error> {
        let iterator = LineIterator(lines.makeAsyncIterator())
        return AsyncThrowingStream {
            do {
                return try await iterator.next()
            } catch let error as HTTPError {
                if error.code == .status, let response = error.response {
                    throw RefusedReply(reply: APIReply(response))
                }
                throw describe(error, request)
            }
        }
    }

    private func httpRequest(_ request: APIRequest) -> HTTPRequest {
        var http = request.http(base: "http://hivemind")
        http.unixSocket = socket
        return http
    }

    private func describe(_ error: HTTPError, _ request: APIRequest) -> any Error {
        switch error.code {
        case .couldNotConnect: return SocketProbe.explain(socket: socket, otherwise: error.message)
        case .timeout:
            return CLIError(
                .timeout, "the daemon gave no answer to \(request.method) \(request.path) in time",
                hint: "look at `hivemind status` and the daemon's log, then try again")
        case .connectionLost:
            return CLIError(
                .connection, "the connection to the daemon broke during \(request.method) \(request.path)",
                hint: "look at `hivemind status`; a change may have been made or not")
        case .cancelled: return CancellationError()
        default: return CLIError(.general, error.message, hint: error.hint)
        }
    }
}

extension APIRequest {
    /// - Parameter base: scheme and host.
    func http(base: String) -> HTTPRequest {
        var fields = HTTPHeaders()
        for (name, value) in headers.sorted(by: { $0.key < $1.key }) { fields.add(name, value) }
        let bytes: HTTPRequest.Body =
            switch body {
            case .none: .none
            case .bytes(let bytes): .bytes(bytes)
            case .file(let path): .file(path: path)
            }
        return HTTPRequest(
            method: method,
            url: "\(base)\(path)",
            headers: fields,
            body: bytes,
            // The daemon answers in its own time (a pull takes minutes): only the whole is bounded, and the silence of a
            // stream that is never silent.
            limits: HTTPLimits(connect: .seconds(5), total: timeout, stall: silence, bodyBytesMax: 64 << 20),
            followsRedirects: false
        )
    }
}

extension APIReply {
    init(_ response: HTTPResponse) {
        var headers: [String: String] = [:]
        for field in response.headers.fields { headers[field.name.lowercased()] = field.value }
        self.init(status: response.status, headers: headers, body: response.body)
    }
}

/// The stream that pulls has one caller at a time: the closure of the stream it feeds.
actor LineIterator {
    private var iterator: AsyncThrowingStream<[UInt8], any Error>.Iterator?

    init(_ iterator: sending AsyncThrowingStream<[UInt8], any Error>.Iterator) { self.iterator = iterator }

    func next() async throws -> [UInt8]? {
        guard var iterator else { return nil }
        self.iterator = nil
        let line = try await iterator.next(isolation: self)
        if line != nil { self.iterator = iterator }
        return line
    }
}

/// Says why a socket cannot be connected to: libcurl only says that it cannot.
enum SocketProbe {
    static func explain(socket path: String, otherwise text: String) -> CLIError {
        switch connectError(path) {
        case EACCES, EPERM:
            CLIError(
                .permission, "permission denied on the daemon's socket \(path)",
                hint: "run as root: `sudo hivemind …`")
        case ENOENT:
            CLIError(
                .connection, "the daemon does not run: there is no socket \(path)", hint: Hints.startDaemon)
        case ECONNREFUSED:
            CLIError(
                .connection, "the daemon does not run: nothing listens on \(path)", hint: Hints.startDaemon)
        default: CLIError(.connection, text, hint: Hints.startDaemon)
        }
    }

    /// errno of a connect, 0 when it worked.
    private static func connectError(_ path: String) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return ENAMETOOLONG }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let descriptor = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return errno }
        defer { close(descriptor) }
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        return status == 0 ? 0 : errno
    }
}
