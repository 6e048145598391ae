// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import HummingbirdCore
internal import Model
internal import NIOCore

/// What a handler answers.
struct APIReply: Sendable {
    enum Body: Sendable {
        case empty
        case bytes(ByteBuffer)
        /// Made while it is sent.
        case stream(any BodySource)
    }

    var status: HTTPResponse.Status
    var headers = HTTPFields()
    var body = Body.empty

    init(_ status: HTTPResponse.Status, index: UInt64? = nil) {
        self.status = status
        if let index { headers[.hivemindIndex] = String(index) }
    }

    /// - Parameters:
    ///   - index: for `Hivemind-Index`.
    ///   - version: for `ETag`.
    static func json(
        _ value: some Encodable, _ status: HTTPResponse.Status = .ok, index: UInt64? = nil, version: UInt64? = nil
    ) throws -> APIReply {
        var reply = APIReply(status, index: index)
        reply.headers[.contentType] = "application/json"
        if let version { reply.headers[.eTag] = "\"\(version)\"" }
        reply.body = .bytes(ByteBuffer(bytes: try JSON.encode(value)))
        return reply
    }

    /// The same bytes, much sooner.
    static func json(_ value: ConfigView, index: UInt64, version: UInt64) -> APIReply {
        var reply = APIReply(.ok, index: index)
        reply.headers[.contentType] = "application/json"
        reply.headers[.eTag] = "\"\(version)\""
        reply.body = .bytes(ByteBuffer(bytes: value.json))
        return reply
    }

    static func text(_ text: String, type: String) -> APIReply {
        var reply = APIReply(.ok)
        reply.headers[.contentType] = type
        reply.body = .bytes(ByteBuffer(string: text))
        return reply
    }

    static func problem(_ problem: Problem) -> APIReply {
        var reply = APIReply(HTTPResponse.Status(code: problem.status))
        reply.headers[.contentType] = "application/problem+json"
        // A Problem is text and a number: it has no value JSON cannot hold.
        if let bytes = try? JSON.encode(problem) { reply.body = .bytes(ByteBuffer(bytes: bytes)) }
        return reply
    }

    func location(_ path: String?) -> APIReply {
        var copy = self
        if let path { copy.headers[.location] = path }
        return copy
    }
}

extension HTTPField.Name {
    static let hivemindIndex = hivemind("Hivemind-Index")
    static let hivemindLeaderless = hivemind("Hivemind-Leaderless-Milliseconds")
    static let lastEventID = hivemind("Last-Event-ID")
    static let requestID = hivemind("X-Request-Id")

    /// - Precondition: `text` is a legal field name.
    private static func hivemind(_ text: String) -> Self {
        guard let name = HTTPField.Name(text) else { preconditionFailure("`\(text)` is no field name") }
        return name
    }
}
