// SPDX-License-Identifier: Apache-2.0

/// One request to the API.
struct APIRequest: Sendable, Hashable {
    enum Body: Sendable, Hashable {
        case none
        case bytes([UInt8])
        /// Streamed from disk.
        case file(String)
    }

    var method: String
    /// Percent-encoded, with query: `/v1/apps/web?namespace=default`.
    var path: String
    var headers: [String: String] = [:]
    var body = Body.none
    /// From start to last byte; nil for a stream that may live for ever.
    var timeout: Duration? = .seconds(60)
    /// Longest time without a byte; nil for any.
    var silence: Duration?
}

struct APIReply: Sendable, Hashable {
    var status: Int
    /// Lower-case names.
    var headers: [String: String] = [:]
    var body: [UInt8]

    var isSuccess: Bool { (200..<300).contains(status) }
}

/// The way to the daemon. Failures to get an answer are thrown as `CLIError`; an answer of any status is none.
protocol Transport: Sendable {
    func send(_ request: APIRequest) async throws -> APIReply
    /// Lines of a 2xx answer; any other is thrown as `RefusedReply`.
    func lines(_ request: APIRequest) -> AsyncThrowingStream<[UInt8], any Error>
    /// The body of a 2xx answer in pieces; any other is thrown as `RefusedReply`.
    func pieces(_ request: APIRequest) -> AsyncThrowingStream<[UInt8], any Error>
}

struct RefusedReply: Error { var reply: APIReply }
