// SPDX-License-Identifier: Apache-2.0
internal import CCurl
internal import Glibc

/// Tables from libcurl's codes to ours.
enum CurlErrors {
    static func libraryMissing(_ reason: String) -> HTTPError {
        HTTPError(
            code: .libraryMissing, message: "libcurl cannot be used: \(reason)",
            hint: "install it (Debian: apt-get install libcurl4)")
    }

    static func error(_ code: CURLcode, detail: String, request: HTTPRequest, source: UploadSource?) -> HTTPError {
        let place = request.unixSocket.map { "socket \($0)" } ?? request.url
        let text = detail.isEmpty ? String(cString: hm_easy_strerror(code)) : detail
        func make(_ ours: HTTPError.Code, _ message: String, hint: String? = nil) -> HTTPError {
            HTTPError(code: ours, message: message, hint: hint, curlCode: code.rawValue)
        }
        switch code {
        case CURLE_COULDNT_CONNECT, CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY:
            return make(
                .couldNotConnect, "cannot connect to \(place): \(text)",
                hint: "check that it runs and that the address is right")
        case CURLE_OPERATION_TIMEDOUT:
            return make(
                .timeout, "\(request.method) \(place): \(text)", hint: "try again; the other side is slow or away")
        case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CERTPROBLEM, CURLE_SSL_CACERT_BADFILE,
            CURLE_SSL_ISSUER_ERROR, CURLE_SSL_CIPHER, CURLE_SSL_ENGINE_INITFAILED, CURLE_SSL_CRL_BADFILE,
            CURLE_SSL_INVALIDCERTSTATUS:
            return make(
                .tls, "no secure connection to \(place): \(text)",
                hint: "check the certificate; SSL_CERT_FILE names a bundle of authorities to trust")
        case CURLE_TOO_MANY_REDIRECTS: return make(.tooManyRedirects, "\(place) redirects in circles")
        case CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL, CURLE_BAD_FUNCTION_ARGUMENT:
            return make(.badRequest, "`\(request.url)` cannot be used: \(text)")
        case CURLE_ABORTED_BY_CALLBACK, CURLE_READ_ERROR:
            guard let source, source.failure != 0 else { return .cancelled }
            return make(.badRequest, "cannot read the body to send: \(String(cString: strerror(source.failure)))")
        case CURLE_OUT_OF_MEMORY: return make(.libraryMissing, "libcurl ran out of memory")
        default:
            return make(
                .connectionLost, "\(request.method) \(place): \(text)", hint: "try again; the connection broke off")
        }
    }

    static func checkURL(_ url: String) throws(HTTPError) {
        let isPrintable = url.utf8.allSatisfy { $0 > 32 && $0 < 127 }
        let lower = url.prefix(8).lowercased()
        guard isPrintable, lower.hasPrefix("http://") || lower.hasPrefix("https://") else {
            throw HTTPError(
                code: .badRequest, message: "`\(url)` is not an http or https URL",
                hint: "percent-encode everything that is not printable ASCII")
        }
    }
}
