// SPDX-License-Identifier: Apache-2.0

/// The bytes of a response as they arrive, in pieces of up to about 1 MiB. One consumer, one pass.
public struct HTTPBody: AsyncSequence, Sendable {
    public typealias Element = [UInt8]
    public typealias Failure = HTTPError

    let guardian: TransferGuard

    public struct AsyncIterator: AsyncIteratorProtocol, Sendable {
        let guardian: TransferGuard

        public mutating func next() async throws(HTTPError) -> [UInt8]? { try await guardian.transfer.next() }

        public mutating func next(
            isolation actor: isolated (any Actor)?
        ) async throws(HTTPError) -> [UInt8]? {
            try await guardian.transfer.next()
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(guardian: guardian) }

    /// All of it; throws `.tooLarge` above the bound.
    public func collect(bytesMax: Int, of url: String = "the response") async throws(HTTPError) -> [UInt8] {
        var all: [UInt8] = []
        while let bytes = try await guardian.transfer.next() {
            guard all.count + bytes.count <= bytesMax else {
                guardian.transfer.abort()
                throw HTTPError(code: .tooLarge, message: "the answer of \(url) is longer than \(bytesMax) bytes")
            }
            if all.isEmpty { all = bytes } else { all += bytes }
        }
        return all
    }
}

/// A body that is opened by the first call. An actor only because the stream that pulls from it must be sendable.
actor PieceReader {
    private let opener: LineReader
    private var body: HTTPBody.AsyncIterator?

    init(_ opener: LineReader) { self.opener = opener }

    func next() async throws(HTTPError) -> [UInt8]? {
        if body == nil { body = try await opener.open() }
        guard var iterator = body else { return nil }
        return try await iterator.next()
    }
}

/// Cuts a body into lines. An actor only because the stream that pulls from it must be sendable; it has one caller.
actor LineReader {
    private let client: HTTPClient
    private let request: HTTPRequest
    private var body: HTTPBody.AsyncIterator?
    private var buffer: [UInt8] = []
    private var start = 0
    private var scanned = 0
    private var isAtEnd = false

    init(client: HTTPClient, request: HTTPRequest) {
        self.client = client
        self.request = request
    }

    func next() async throws(HTTPError) -> [UInt8]? {
        if body == nil { body = try await open() }
        while true {
            if let line = takeLine() { return line }
            guard !isAtEnd, var iterator = body else { return nil }
            guard buffer.count - start <= request.limits.bodyBytesMax else {
                guardianAbort()
                throw HTTPError(
                    code: .tooLarge,
                    message: "a line of \(request.url) is longer than \(request.limits.bodyBytesMax) bytes")
            }
            let bytes = try await iterator.next()
            buffer.removeFirst(start)
            scanned -= start
            start = 0
            if let bytes { buffer += bytes } else { isAtEnd = true }
        }
    }

    func open() async throws(HTTPError) -> HTTPBody.AsyncIterator {
        let stream = try await client.stream(request)
        guard !stream.isSuccess else { return stream.body.makeAsyncIterator() }
        let body = try await stream.body.collect(bytesMax: request.limits.bodyBytesMax, of: request.url)
        let response = HTTPResponse(status: stream.status, headers: stream.headers, body: body, url: stream.url)
        throw HTTPError(
            code: .status, message: "\(request.method) \(request.url) was answered with status \(stream.status)",
            response: response)
    }

    private func guardianAbort() { body?.guardian.transfer.abort() }

    private func takeLine() -> [UInt8]? {
        var end = scanned
        while end < buffer.count, buffer[end] != UInt8(ascii: "\n") { end += 1 }
        scanned = end
        guard end < buffer.count || (isAtEnd && start < end) else { return nil }
        defer {
            start = min(end + 1, buffer.count)
            scanned = start
        }
        let isCRLF = end > start && buffer[end - 1] == UInt8(ascii: "\r")
        return Array(buffer[start..<(isCRLF ? end - 1 : end)])
    }
}
