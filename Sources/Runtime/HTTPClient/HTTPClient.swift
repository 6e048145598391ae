// SPDX-License-Identifier: Apache-2.0

/// The one HTTP client: for registries and for the daemon's unix socket.
///
/// Transfers run on threads of their own, at most `transfersMax` at once (the rest queue); a worker keeps its
/// connections for the next request and ends after ten idle seconds. libcurl is opened by the first request.
/// Proxies come from `http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`; never for loopback and unix sockets.
/// Cancelling the calling task aborts the transfer at once.
public struct HTTPClient: Sendable {
    private let workers: TransferWorkers

    /// - Parameter caBundle: PEM file; nil takes `SSL_CERT_FILE` or the system's.
    public init(caBundle: String? = nil, userAgent: String = "hivemind", transfersMax: Int = 16) {
        workers = TransferWorkers(
            settings: TransferSettings(caBundle: caBundle, userAgent: userAgent), workersMax: transfersMax)
    }

    /// Sends and returns the whole body, at most `limits.bodyBytesMax`.
    public func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
        let stream = try await stream(request)
        let body = try await stream.body.collect(bytesMax: request.limits.bodyBytesMax, of: request.url)
        return HTTPResponse(status: stream.status, headers: stream.headers, body: body, url: stream.url)
    }

    /// Sends and returns with the head; the body is pulled, at most 1 MiB waits in memory.
    ///
    /// Mind `limits.total`: it bounds the whole body as well.
    public func stream(_ request: HTTPRequest) async throws(HTTPError) -> HTTPStream {
        let transfer = Transfer(request)
        let guardian = TransferGuard(transfer)
        workers.submit(transfer)
        let head = try await transfer.waitForHead()
        return HTTPStream(
            status: head.status, headers: head.headers, url: head.url, body: HTTPBody(guardian: guardian))
    }

    /// Lines of a 2xx response without their line ends, empty ones too; any other status throws `.status`.
    ///
    /// Ends with the response. Letting go of the stream aborts the transfer. One line has at most `limits.bodyBytesMax` bytes.
    public func lines(_ request: HTTPRequest) -> AsyncThrowingStream<[UInt8], any Error> {
        let reader = LineReader(client: self, request: request)
        return AsyncThrowingStream { try await reader.next() }
    }

    /// The body of a 2xx response as it comes, in pieces of up to about 1 MiB; any other status throws `.status`.
    ///
    /// Letting go of the stream aborts the transfer.
    public func pieces(_ request: HTTPRequest) -> AsyncThrowingStream<[UInt8], any Error> {
        let reader = PieceReader(LineReader(client: self, request: request))
        return AsyncThrowingStream { try await reader.next() }
    }
}
