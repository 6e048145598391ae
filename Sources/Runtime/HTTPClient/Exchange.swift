// SPDX-License-Identifier: Apache-2.0
internal import CCurl
internal import Glibc

/// One transfer as its worker thread sees it: sets libcurl up, runs its loop, and takes its callbacks.
/// Lives and dies on that thread.
final class Exchange {
    private let transfer: Transfer
    private let settings: TransferSettings
    private var request: HTTPRequest { transfer.request }
    private var status = 0
    private var headers = HTTPHeaders()
    private var hasDeliveredHead = false
    private var source: UploadSource?
    private var lastProgress = ContinuousClock.now
    private var headerList: UnsafeMutablePointer<curl_slist>?
    private var errorText = [CChar](repeating: 0, count: Int(CURL_ERROR_SIZE) + 1)
    private var easy: UnsafeMutableRawPointer?

    init(transfer: Transfer, settings: TransferSettings) {
        self.transfer = transfer
        self.settings = settings
    }

    func run(easy: UnsafeMutableRawPointer, multi: UnsafeMutableRawPointer) {
        guard transfer.attach(multi) else { return transfer.finish(.failure(.cancelled)) }
        self.easy = easy
        hm_easy_reset(easy)
        defer {
            hm_easy_reset(easy)
            hm_slist_free(headerList)
        }
        let result: Result<Void, HTTPError> = errorText.withUnsafeMutableBufferPointer { text in
            do throws(HTTPError) {
                try configure(easy)
                _ = hm_easy_set_pointer(easy, CURLOPT_ERRORBUFFER, text.baseAddress)
                try check(hm_multi_add(multi, easy) == CURLM_OK, "libcurl takes no request")
                defer { _ = hm_multi_remove(multi, easy) }
                let code = try loop(easy: easy, multi: multi)
                if code == CURLE_OK {
                    deliverHead()
                    return .success(())
                }
                let detail = text.baseAddress.map { String(cString: $0) } ?? ""
                return .failure(CurlErrors.error(code, detail: detail, request: request, source: source))
            } catch {
                return .failure(error)
            }
        }
        transfer.finish(result)
    }

    private func loop(
        easy: UnsafeMutableRawPointer, multi: UnsafeMutableRawPointer
    ) throws(HTTPError) -> CURLcode {
        lastProgress = .now
        while true {
            var running: Int32 = 0
            try check(hm_multi_perform(multi, &running) == CURLM_OK, "libcurl failed")
            var code = CURLE_OK
            if hm_multi_ended(multi, &code) == 1 { return code }
            if transfer.isAborted { throw .cancelled }
            if transfer.takeResume() {
                lastProgress = .now
                _ = hm_easy_resume(easy)
                continue
            }
            var wait: Int32 = 1000
            if transfer.isPaused { lastProgress = .now }
            if let stall = request.limits.stall {
                let left = stall - (ContinuousClock.now - lastProgress)
                guard left > .zero else {
                    throw HTTPError(
                        code: .timeout,
                        message: "\(request.method) \(request.url): no byte came or went for \(stall)",
                        hint: "check the network and the other side, then try again")
                }
                wait = min(wait, Int32(clamping: left.milliseconds + 1))
            }
            _ = hm_multi_poll(multi, wait)
        }
    }

    // MARK: Set-up

    private func configure(_ easy: UnsafeMutableRawPointer) throws(HTTPError) {
        try CurlErrors.checkURL(request.url)
        func set(_ option: CURLoption, _ value: Int) { _ = hm_easy_set_long(easy, option, value) }
        func set(_ option: CURLoption, _ value: String) { _ = hm_easy_set_string(easy, option, value) }
        set(CURLOPT_URL, request.url)
        set(CURLOPT_NOSIGNAL, 1)
        set(CURLOPT_PROTOCOLS_STR, "http,https")
        set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https")
        set(CURLOPT_USERAGENT, settings.userAgent)
        set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1)
        set(CURLOPT_BUFFERSIZE, 256 << 10)
        set(CURLOPT_CONNECTTIMEOUT_MS, request.limits.connect.milliseconds)
        if let total = request.limits.total { set(CURLOPT_TIMEOUT_MS, total.milliseconds) }
        set(CURLOPT_FOLLOWLOCATION, request.followsRedirects ? 1 : 0)
        set(CURLOPT_MAXREDIRS, 10)
        switch request.trust {
        case .system:
            if let bundle = settings.caBundle ?? Self.environment("SSL_CERT_FILE") { set(CURLOPT_CAINFO, bundle) }
        case .authority(let text):
            // The directory of the system's authorities would be believed beside it.
            _ = hm_easy_set_pointer(easy, CURLOPT_CAPATH, nil)
            let bytes = Array(text.utf8)
            _ = hm_easy_set_blob(easy, CURLOPT_CAINFO_BLOB, bytes, bytes.count)
            set(CURLOPT_SSL_VERIFYHOST, 0)
        case .unverified:
            set(CURLOPT_SSL_VERIFYPEER, 0)
            set(CURLOPT_SSL_VERIFYHOST, 0)
        }
        if let socket = request.unixSocket {
            // The kernel's limit of a socket address; libcurl says only "bad argument".
            try check(!socket.isEmpty && socket.utf8.count < 108, "`\(socket)` is not a socket path of 1 to 107 bytes")
            set(CURLOPT_UNIX_SOCKET_PATH, socket)
            set(CURLOPT_PROXY, "")
        } else if Self.isLoopback(request.url) {
            set(CURLOPT_PROXY, "")
        }
        try setHeaders(easy)
        try setBody(easy)
        let me = Unmanaged.passUnretained(self).toOpaque()
        _ = hm_easy_set_pointer(easy, CURLOPT_HEADERDATA, me)
        _ = hm_easy_set_pointer(easy, CURLOPT_WRITEDATA, me)
        _ = hm_easy_set_io(easy, CURLOPT_HEADERFUNCTION) { buffer, size, count, context in
            guard let buffer, let context else { return 0 }
            Unmanaged<Exchange>.fromOpaque(context).takeUnretainedValue()
                .header(UnsafeRawBufferPointer(start: buffer, count: size * count))
            return size * count
        }
        _ = hm_easy_set_io(easy, CURLOPT_WRITEFUNCTION) { buffer, size, count, context in
            guard let buffer, let context else { return 0 }
            let exchange = Unmanaged<Exchange>.fromOpaque(context).takeUnretainedValue()
            return exchange.body(UnsafeRawBufferPointer(start: buffer, count: size * count))
                ? size * count : hm_write_pause
        }
    }

    private func setHeaders(_ easy: UnsafeMutableRawPointer) throws(HTTPError) {
        // No pause before an upload for a `100 Continue` that most servers never send.
        headerList = hm_slist_append(nil, "Expect:")
        for field in request.headers.fields {
            let isClean = !field.name.isEmpty && (field.name + field.value).utf8.allSatisfy { $0 >= 32 && $0 != 127 }
            try check(isClean, "header `\(field.name)` contains a control character or has no name")
            let line = field.value.isEmpty ? "\(field.name);" : "\(field.name): \(field.value)"
            headerList = hm_slist_append(headerList, line)
        }
        _ = hm_easy_set_list(easy, CURLOPT_HTTPHEADER, headerList)
    }

    private func setBody(_ easy: UnsafeMutableRawPointer) throws(HTTPError) {
        let isBodyExpected = ["POST", "PUT", "PATCH"].contains(request.method)
        switch request.body {
        case .none: source = isBodyExpected ? UploadSource(bytes: []) : nil
        case .bytes(let bytes): source = UploadSource(bytes: bytes)
        case .file(let path): source = try UploadSource(path: path)
        }
        if request.method == "HEAD" {
            _ = hm_easy_set_long(easy, CURLOPT_NOBODY, 1)
        } else if let source {
            _ = hm_easy_set_long(easy, CURLOPT_UPLOAD, 1)
            _ = hm_easy_set_offset(easy, CURLOPT_INFILESIZE_LARGE, curl_off_t(source.count))
            _ = hm_easy_set_string(easy, CURLOPT_CUSTOMREQUEST, request.method)
            let me = Unmanaged.passUnretained(self).toOpaque()
            _ = hm_easy_set_pointer(easy, CURLOPT_READDATA, me)
            _ = hm_easy_set_pointer(easy, CURLOPT_SEEKDATA, me)
            _ = hm_easy_set_io(easy, CURLOPT_READFUNCTION) { buffer, size, count, context in
                guard let buffer, let context else { return hm_read_abort }
                return Unmanaged<Exchange>.fromOpaque(context).takeUnretainedValue()
                    .read(UnsafeMutableRawBufferPointer(start: buffer, count: size * count))
            }
            _ = hm_easy_set_seek(easy) { context, offset, origin in
                guard let context, origin == SEEK_SET else { return CURL_SEEKFUNC_FAIL }
                Unmanaged<Exchange>.fromOpaque(context).takeUnretainedValue().source?.seek(to: Int64(offset))
                return CURL_SEEKFUNC_OK
            }
        } else if request.method != "GET" {
            _ = hm_easy_set_string(easy, CURLOPT_CUSTOMREQUEST, request.method)
        }
    }

    // MARK: Callbacks

    private func header(_ bytes: UnsafeRawBufferPointer) {
        lastProgress = .now
        guard !hasDeliveredHead else { return }
        var line = String(decoding: bytes, as: UTF8.self)[...]
        while let last = line.unicodeScalars.last, last == "\r" || last == "\n" { line.unicodeScalars.removeLast() }
        if line.hasPrefix("HTTP/") {
            headers = HTTPHeaders()
            status = line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        } else if line.isEmpty {
            let isRedirect = request.followsRedirects && [301, 302, 303, 307, 308].contains(status)
            if status >= 200, !(isRedirect && headers["Location"] != nil) { deliverHead() }
        } else if let colon = line.utf8.firstIndex(of: UInt8(ascii: ":")), headers.fields.count < 500 {
            headers.add(
                String(line[..<colon]),
                String(line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }))
        }
    }

    private func deliverHead() {
        guard !hasDeliveredHead else { return }
        hasDeliveredHead = true
        var pointer: UnsafeMutablePointer<CChar>?
        if let easy { _ = hm_easy_get_string(easy, CURLINFO_EFFECTIVE_URL, &pointer) }
        let url = pointer.map { String(cString: $0) } ?? request.url
        transfer.deliver(Transfer.Head(status: status, headers: headers, url: url))
    }

    private func body(_ bytes: UnsafeRawBufferPointer) -> Bool {
        lastProgress = .now
        // The body of a redirect that is followed is nobody's.
        guard hasDeliveredHead else { return true }
        return transfer.deliver(bytes)
    }

    private func read(_ buffer: UnsafeMutableRawBufferPointer) -> Int {
        lastProgress = .now
        return source?.read(into: buffer) ?? hm_read_abort
    }

    // MARK: Details

    private func check(_ condition: Bool, _ message: String) throws(HTTPError) {
        guard condition else { throw HTTPError(code: .badRequest, message: message) }
    }

    private static func environment(_ name: String) -> String? {
        guard let value = getenv(name), value.pointee != 0 else { return nil }
        return String(cString: value)
    }

    static func isLoopback(_ url: String) -> Bool {
        guard let start = url.range(of: "://") else { return false }
        let authority = url[start.upperBound...].prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        let host = authority.split(separator: "@").last ?? ""
        if host.hasPrefix("[::1]") { return true }
        let name = host.prefix { $0 != ":" }
        return name == "localhost" || (name.hasPrefix("127.") && name.split(separator: ".").count == 4)
    }
}

extension String {
    /// The first place of `text`: the one function of Foundation this module would need.
    func range(of text: String) -> Range<String.Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
            start = index(after: start)
        }
        return nil
    }
}

extension Duration {
    var milliseconds: Int {
        let (seconds, attoseconds) = components
        return Int(clamping: seconds.multipliedReportingOverflow(by: 1000).partialValue)
            + Int(attoseconds / 1_000_000_000_000_000)
    }
}
