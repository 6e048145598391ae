// SPDX-License-Identifier: Apache-2.0

/// Why no (whole) response came. A response with status 4xx or 5xx is no error of `send` and `stream`.
public struct HTTPError: Error, Sendable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// libcurl is missing or too old.
        case libraryMissing
        /// The URL, a header or the body's file cannot be used.
        case badRequest
        /// Host name unknown, connection refused, socket file absent.
        case couldNotConnect
        /// The connection broke or the peer does not speak HTTP: the request may have had an effect.
        case connectionLost
        case timeout
        case tls
        case tooManyRedirects
        /// The body is longer than `HTTPLimits.bodyBytesMax`.
        case tooLarge
        case cancelled
        /// Only from `lines`: the status was not 2xx; `response` has it.
        case status
    }

    public var code: Code
    public var message: String
    public var hint: String?
    /// With `.status`: head and body (at most `bodyBytesMax`).
    public var response: HTTPResponse?
    /// As libcurl gave it, 0 when it was not asked.
    public var curlCode: UInt32

    public var description: String { hint.map { "\(message)\nhint: \($0)" } ?? message }

    /// The same request may go well later.
    public var isTransient: Bool {
        switch code {
        case .couldNotConnect, .connectionLost, .timeout: true
        default: false
        }
    }

    public init(
        code: Code,
        message: String,
        hint: String? = nil,
        response: HTTPResponse? = nil,
        curlCode: UInt32 = 0
    ) {
        self.code = code
        self.message = message
        self.hint = hint
        self.response = response
        self.curlCode = curlCode
    }

    static let cancelled = HTTPError(code: .cancelled, message: "the request was cancelled")
}
