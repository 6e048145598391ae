// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import HummingbirdCore
internal import Model
internal import NIOCore

/// Reads one request's body, once, in bounded memory.
struct BodyReader {
    /// The connection broke: there is nobody to answer.
    struct Broken: Error { var cause: any Error }

    private var iterator: RequestBody.AsyncIterator
    private(set) var isEnded = false
    private var bytes: Int64 = 0
    let hasBody: Bool
    /// `Content-Length`, nil for a chunked body.
    let declared: Int64?
    private let deadline: NIODeadline

    init(_ request: Request, deadline: NIODeadline) {
        iterator = request.body.makeAsyncIterator()
        declared = request.headers[.contentLength].flatMap { Int64($0) }
        hasBody = (declared ?? 0) > 0 || request.headers[.transferEncoding] != nil
        self.deadline = deadline
    }

    /// The next part, nil at the end.
    /// - Throws: `timeout` when the reading side was closed at the deadline, `badRequest` for a body shorter than
    ///   declared, `Broken`.
    mutating func next() async throws -> ByteBuffer? {
        guard !isEnded else { return nil }
        let part: ByteBuffer?
        do { part = try await iterator.next() } catch {
            // Closing the reading side at the deadline looks like a client that stopped in the middle.
            guard NIODeadline.now() >= deadline else { throw Broken(cause: error) }
            part = nil
        }
        if let part {
            bytes += Int64(part.readableBytes)
            return part
        }
        isEnded = true
        if NIODeadline.now() >= deadline {
            throw Problem(.timeout, "the body did not arrive in time", hint: "send it faster, or from this machine")
        }
        if let declared, bytes < declared {
            throw Problem(.badRequest, "the body ended after \(bytes) of \(declared) bytes")
        }
        return nil
    }

    /// The whole body.
    /// - Throws: `payloadTooLarge`.
    mutating func collect(upTo bytesMax: Int) async throws -> ByteBuffer {
        try refuse(above: Int64(bytesMax))
        var whole = ByteBuffer()
        while var part = try await next() {
            guard whole.readableBytes + part.readableBytes <= bytesMax else { throw Self.tooLarge(Int64(bytesMax)) }
            whole.writeBuffer(&part)
        }
        return whole
    }

    /// Refuses by the declared length, before anything is read.
    func refuse(above bytesMax: Int64) throws(Problem) {
        if let declared, declared > bytesMax { throw Self.tooLarge(bytesMax) }
    }

    /// Reads and forgets at most `bytesMax`, so that the client comes to read its answer. Ended afterwards if it fits.
    mutating func discard(upTo bytesMax: Int64) async throws {
        let end = bytes + bytesMax
        while bytes < end, try await next() != nil {}
    }

    static func tooLarge(_ bytesMax: Int64) -> Problem {
        Problem(.payloadTooLarge, "the body is larger than \(bytesMax) bytes", hint: "send less")
    }
}
