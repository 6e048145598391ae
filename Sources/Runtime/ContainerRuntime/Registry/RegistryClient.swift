// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
internal import HTTPClient
internal import Model
internal import Synchronization

/// Asks registries for manifests and blobs (OCI distribution spec 1.1, anonymous).
///
/// Plain http for loopback hosts and those named insecure, https for all others. Whatever comes is checked against its
/// digest. Server errors and broken connections are tried again, blobs from where they broke off.
final class RegistryClient: Sendable {
    struct Fetched: Sendable {
        var descriptor: Descriptor
        var bytes: [UInt8]
    }

    private let http: HTTPClient
    private let insecure: Set<String>
    /// Bearer tokens by registry and scope, until the registry refuses them.
    private let tokens = Mutex<[String: String]>([:])
    private static let tokensMax = 1000

    init(http: HTTPClient, insecureRegistries: Set<String> = []) {
        self.http = http
        insecure = insecureRegistries
    }

    /// The digest behind a tag, without fetching the manifest where the registry allows that.
    func digest(of reference: ImageReference, attempts: Int = 2) async throws(ImageError) -> String {
        if let digest = reference.digest { return digest }
        let head = try await request(
            "HEAD", "manifests/\(reference.manifestKey)", of: reference, attempts: attempts)
        if head.isSuccess, let digest = head.headers["Docker-Content-Digest"], Digest.isValid(digest) { return digest }
        // Some registries answer HEAD badly; what GET says counts.
        return try await manifest(of: reference, key: reference.manifestKey, attempts: attempts).descriptor.digest
    }

    /// A manifest or index, checked against `key` when that is a digest.
    func manifest(
        of reference: ImageReference, key: String, attempts: Int = 4
    ) async throws(ImageError) -> Fetched {
        let response = try await request(
            "GET", "manifests/\(key)", of: reference, bytesMax: ImageLimits.manifestBytesMax, attempts: attempts)
        guard response.isSuccess else { throw refusal(response, "manifest \(key)", reference) }
        let digest = Digest.of(response.body)
        let promised = Digest.isValid(key) ? key : response.headers["Docker-Content-Digest"] ?? digest
        guard digest == promised else {
            throw ImageError(
                .digestMismatch,
                "registry \(reference.registry) sent a manifest of \(reference) with digest \(digest) "
                    + "instead of \(promised)",
                hint: "the registry or something between is broken; do not trust this image")
        }
        let type = try Self.mediaType(of: response.body, header: response.headers["Content-Type"], reference)
        return Fetched(
            descriptor: Descriptor(mediaType: type, digest: digest, size: Int64(response.body.count)),
            bytes: response.body)
    }

    /// A small blob as a whole.
    func blob(_ descriptor: Descriptor, of reference: ImageReference, bytesMax: Int) async throws(ImageError) -> [UInt8]
    {
        guard descriptor.size >= 0, descriptor.size <= bytesMax else {
            throw ImageError(
                .imageInvalid,
                "blob \(descriptor.digest) of \(reference) says it has \(descriptor.size) bytes; "
                    + "at most \(bytesMax) are accepted")
        }
        let collected = Mutex<[UInt8]>([])
        try await blob(descriptor, of: reference) { bytes throws(ImageError) in collected.withLock { $0 += bytes } }
        return collected.withLock { $0 }
    }

    /// Streams a blob; returns when size and digest were right. `consume` must make its effects final only after that.
    /// - Parameter consume: gets the bytes in order, each once, whatever breaks off in between.
    func blob(
        _ descriptor: Descriptor,
        of reference: ImageReference,
        consume: (_ bytes: [UInt8]) async throws(ImageError) -> Void
    ) async throws(ImageError) {
        var hash = SHA256()
        var offset: Int64 = 0
        var failures = 0
        repeat {
            let before = offset
            let stream = try await open("blobs/\(descriptor.digest)", of: reference, from: offset)
            // A server that does not know ranges starts over.
            var skip = stream.status == 206 ? 0 : offset
            var iterator = stream.body.makeAsyncIterator()
            while offset <= descriptor.size {
                let next: [UInt8]?
                do throws(HTTPError) { next = try await iterator.next() } catch {
                    guard error.isTransient else { throw Self.unreachable(error, reference) }
                    // Progress earns new tries: only a connection that gives nothing several times running is given up.
                    failures = offset > before ? 1 : failures + 1
                    guard failures < 4 else { throw Self.unreachable(error, reference) }
                    try await Self.pause(failures)
                    break
                }
                guard var bytes = next else {
                    guard offset == descriptor.size else { throw wrongSize(offset, descriptor, reference) }
                    break
                }
                if skip > 0 {
                    let dropped = Int(min(skip, Int64(bytes.count)))
                    bytes.removeFirst(dropped)
                    skip -= Int64(dropped)
                    if bytes.isEmpty { continue }
                }
                offset += Int64(bytes.count)
                guard offset <= descriptor.size else { throw wrongSize(offset, descriptor, reference) }
                hash.update(data: bytes)
                try await consume(bytes)
            }
        } while offset < descriptor.size
        let digest = Digest.text(hash.finalize())
        guard digest == descriptor.digest else {
            throw ImageError(
                .digestMismatch,
                "registry \(reference.registry) sent a blob of \(reference) with digest \(digest) instead of "
                    + descriptor.digest,
                hint: "the image or the registry is damaged; push the image again")
        }
    }

    private func wrongSize(_ got: Int64, _ descriptor: Descriptor, _ reference: ImageReference) -> ImageError {
        ImageError(
            .digestMismatch,
            "registry \(reference.registry) sent \(got) bytes or more for blob \(descriptor.digest) of "
                + "\(reference); the manifest says \(descriptor.size)",
            hint: "the image or the registry is damaged; push the image again")
    }

    // MARK: Requests

    func baseURL(of registry: String) -> String {
        let host = registry == "docker.io" ? "registry-1.docker.io" : registry
        let name = registry.hasPrefix("[") ? "[::1]" : String(registry.prefix { $0 != ":" })
        let isLoopback =
            name == "localhost" || registry.hasPrefix("[::1]")
            || (name.hasPrefix("127.") && name.split(separator: ".").count == 4
                && name.split(separator: ".").allSatisfy { UInt8($0) != nil })
        return (isLoopback || insecure.contains(registry) ? "http://" : "https://") + host
    }

    private func request(
        _ method: String, _ path: String, of reference: ImageReference, bytesMax: Int = 64 << 10, attempts: Int
    ) async throws(ImageError) -> HTTPResponse {
        try await retrying(attempts) { () async throws(ImageError) in
            let request = makeRequest(method, path, of: reference, bytesMax: bytesMax)
            var response = try await send(request, reference)
            if response.status == 401, try await authenticate(response.headers, reference) {
                response = try await send(makeRequest(method, path, of: reference, bytesMax: bytesMax), reference)
            }
            guard response.status < 500, ![401, 403, 404, 429].contains(response.status) else {
                throw refusal(response, path, reference)
            }
            return response
        }
    }

    /// Opens a download; its status is 200 or 206.
    private func open(
        _ path: String, of reference: ImageReference, from offset: Int64
    ) async throws(ImageError) -> HTTPStream {
        try await retrying(4) { () async throws(ImageError) in
            var request = makeRequest("GET", path, of: reference, bytesMax: 64 << 10)
            request.limits.total = nil
            if offset > 0 { request.headers["Range"] = "bytes=\(offset)-" }
            var stream = try await begin(request, reference)
            if stream.status == 401, try await authenticate(stream.headers, reference) {
                request.headers["Authorization"] = authorization(reference)
                stream = try await begin(request, reference)
            }
            if stream.status == 200 || stream.status == 206 { return stream }
            var answer = HTTPResponse(status: stream.status, headers: stream.headers, body: [], url: stream.url)
            do throws(HTTPError) { answer.body = try await stream.body.collect(bytesMax: 64 << 10) } catch {
                throw Self.unreachable(error, reference)
            }
            throw refusal(answer, path, reference)
        }
    }

    private func begin(_ request: HTTPRequest, _ reference: ImageReference) async throws(ImageError) -> HTTPStream {
        do throws(HTTPError) { return try await http.stream(request) } catch {
            throw Self.unreachable(error, reference)
        }
    }

    private func send(_ request: HTTPRequest, _ reference: ImageReference) async throws(ImageError) -> HTTPResponse {
        do throws(HTTPError) { return try await http.send(request) } catch {
            throw Self.unreachable(error, reference)
        }
    }

    private func retrying<Value>(
        _ attempts: Int, _ work: () async throws(ImageError) -> Value
    ) async throws(ImageError) -> Value {
        var attempt = 1
        while true {
            do throws(ImageError) { return try await work() } catch {
                guard error.isTransient, attempt < attempts else { throw error }
                try await Self.pause(attempt, after: error.retryAfterSeconds)
            }
            attempt += 1
        }
    }

    private func makeRequest(
        _ method: String, _ path: String, of reference: ImageReference, bytesMax: Int
    ) -> HTTPRequest {
        var headers: HTTPHeaders = [:]
        if path.hasPrefix("manifests/") { headers["Accept"] = MediaType.manifests.joined(separator: ", ") }
        if let authorization = authorization(reference) { headers["Authorization"] = authorization }
        return HTTPRequest(
            method: method, url: "\(baseURL(of: reference.registry))/v2/\(reference.repository)/\(path)",
            headers: headers, limits: HTTPLimits(connect: .seconds(5), bodyBytesMax: bytesMax))
    }

    // MARK: Tokens

    private func tokenKey(_ reference: ImageReference) -> String { "\(reference.registry)/\(reference.repository)" }

    private func authorization(_ reference: ImageReference) -> String? {
        tokens.withLock { $0[tokenKey(reference)] }.map { "Bearer " + $0 }
    }

    /// Gets a token as the registry asks; false when it asks for something else.
    private func authenticate(_ headers: HTTPHeaders, _ reference: ImageReference) async throws(ImageError) -> Bool {
        let challenges = headers.all("WWW-Authenticate").flatMap(AuthChallenge.parse)
        guard let challenge = challenges.first(where: { $0.scheme == "bearer" }),
            let realm = challenge.parameters["realm"]
        else { return false }
        let scope = challenge.parameters["scope"] ?? "repository:\(reference.repository):pull"
        var query = ["scope=" + Self.escape(scope)]
        if let service = challenge.parameters["service"] { query.append("service=" + Self.escape(service)) }
        let url = realm + (realm.contains("?") ? "&" : "?") + query.joined(separator: "&")
        let limits = HTTPLimits(connect: .seconds(5), total: .seconds(20), bodyBytesMax: 256 << 10)
        let response = try await send(HTTPRequest(url: url, limits: limits), reference)
        struct Answer: Decodable {
            var token: String?
            var accessToken: String?
        }
        guard response.isSuccess, let answer = try? JSON.decode(Answer.self, from: Data(response.body)),
            let token = answer.token ?? answer.accessToken, !token.isEmpty,
            token.utf8.allSatisfy({ $0 > 32 && $0 < 127 })
        else {
            throw ImageError(
                response.status >= 500 ? .registryUnreachable : .registryDenied,
                "\(realm) gives no token for \(reference.name) (status \(response.status))",
                hint: "check the name; images that need a login are not supported yet",
                isTransient: response.status >= 500)
        }
        tokens.withLock { tokens in
            if tokens.count >= Self.tokensMax { tokens = [:] }
            tokens[tokenKey(reference)] = token
        }
        return true
    }

    // MARK: Errors

    private func refusal(_ response: HTTPResponse, _ what: String, _ reference: ImageReference) -> ImageError {
        struct Answer: Decodable {
            struct Item: Decodable {
                var code: String?
                var message: String?
            }
            var errors: [Item]?
        }
        let answer = try? JSON.decode(Answer.self, from: Data(response.body))
        let item = answer?.errors?.first
        let said = [item?.code, item?.message].compactMap { $0 }.joined(separator: ": ").prefix(300)
        let detail = said.isEmpty ? "status \(response.status)" : "status \(response.status), \(said)"
        switch response.status {
        case 404:
            return ImageError(
                .imageNotFound, "image \(reference) is not in registry \(reference.registry) (\(what): \(detail))",
                hint: "check name and tag, or push the image")
        case 401, 403:
            return ImageError(
                .registryDenied, "registry \(reference.registry) refuses \(reference.name) (\(detail))",
                hint: "the image may not exist or needs a login, which is not supported yet")
        case 429:
            var error = ImageError(
                .registryUnreachable, "registry \(reference.registry) limits requests (\(detail))",
                hint: "wait and try again", isTransient: true)
            error.retryAfterSeconds = response.headers["Retry-After"].flatMap { Int($0) }
            return error
        default:
            return ImageError(
                .registryUnreachable, "registry \(reference.registry) failed on \(what) of \(reference) (\(detail))",
                hint: "try again later", isTransient: true)
        }
    }

    private static func unreachable(_ error: HTTPError, _ reference: ImageReference) -> ImageError {
        if error.code == .tooLarge {
            return ImageError(.imageInvalid, "registry \(reference.registry): \(error.message)")
        }
        return ImageError(
            .registryUnreachable, "cannot reach registry \(reference.registry) for \(reference): \(error.message)",
            hint: error.hint, isTransient: error.isTransient)
    }

    /// 0.2 s, doubling, at most 3 s; a registry's wish is followed up to 5 s.
    private static func pause(_ attempt: Int, after wish: Int? = nil) async throws(ImageError) {
        let own = min(3000, 200 << min(attempt, 5))
        let wished = min(max(wish ?? 0, 0), 5) * 1000
        do { try await Task.sleep(for: .milliseconds(max(own, wished))) } catch {
            throw ImageError(.registryUnreachable, "the pull was cancelled")
        }
    }

    private static func mediaType(
        of body: [UInt8], header: String?, _ reference: ImageReference
    ) throws(ImageError) -> String {
        struct Kind: Decodable { var mediaType: String? }
        let inside = (try? JSON.decode(Kind.self, from: Data(body)))?.mediaType
        let outside = header.map { String($0.prefix { $0 != ";" && $0 != " " }) }
        for type in [inside, outside] {
            if let type, MediaType.manifests.contains(type) { return type }
        }
        throw ImageError(
            .imageInvalid, "\(reference) has a manifest of type `\(inside ?? outside ?? "unknown")`",
            hint: "build it again with a current tool: only OCI and Docker schema 2 are understood")
    }

    private static func escape(_ text: String) -> String {
        let digits = Array("0123456789ABCDEF".unicodeScalars)
        var result = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), 48...57,
                UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"):
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                result += "%"
                result.unicodeScalars.append(digits[Int(byte >> 4)])
                result.unicodeScalars.append(digits[Int(byte & 15)])
            }
        }
        return result
    }
}
