// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// One operation of the API.
struct Route: Sendable {
    /// What the request's body is.
    enum Body: Sendable {
        /// Ignored.
        case none
        /// Read whole before the handler runs.
        case json
        /// Stored in a file before the handler runs, which is deleted after it.
        case archive
    }

    enum Part: Hashable, Sendable {
        case text(String)
        case name(String)
        /// Everything that is left, for names with slashes.
        case rest(String)
    }

    var method: HTTPRequest.Method
    var parts: [Part]
    var body: Body
    /// Takes as long as images take.
    var isImageWork: Bool
    /// How current the state must be that the handler reads, unless the request says otherwise; nil when it reads none.
    var reads: ReadConsistency?
    /// Every wait of the handler has a bound of its own, so that no other has to be watched.
    var endsByItself: Bool
    /// Whether `If-Match` and `If-None-Match` have a meaning for this write.
    var takesCondition: Bool
    /// For whoever asks, also without a token.
    var isPublic: Bool
    var handler: @Sendable (APIRequest) async throws -> APIReply

    /// - Parameter pattern: `/v1/apps/{name}/logs`; `{name...}` takes the rest of the path.
    init(
        _ method: HTTPRequest.Method, _ pattern: String, body: Body = .none, isImageWork: Bool = false,
        endsByItself: Bool = false, reads: ReadConsistency? = nil, takesCondition: Bool = false,
        isPublic: Bool = false,
        handler: @escaping @Sendable (APIRequest) async throws -> APIReply
    ) {
        self.method = method
        self.body = body
        self.isImageWork = isImageWork
        self.reads = reads
        self.endsByItself = endsByItself
        self.takesCondition = takesCondition
        self.isPublic = isPublic
        self.handler = handler
        parts = pattern.split(separator: "/").map { part in
            guard part.hasPrefix("{") else { return .text(String(part)) }
            let name = part.dropFirst().dropLast()
            return name.hasSuffix("...") ? .rest(String(name.dropLast(3))) : .name(String(name))
        }
    }

    /// The same for whoever asks.
    var toAnybody: Route {
        var copy = self
        copy.isPublic = true
        return copy
    }

    /// Names found in the path, or nil when it is another's.
    func match(_ path: [String]) -> [String: String]? {
        var names: [String: String] = [:]
        for (index, part) in parts.enumerated() {
            guard index < path.count else { return nil }
            switch part {
            case .text(let text): if path[index] != text { return nil }
            case .name(let name): names[name] = path[index]
            case .rest(let name):
                names[name] = path[index...].joined(separator: "/")
                return names
            }
        }
        return parts.count == path.count ? names : nil
    }
}

/// All operations. A lookup compares with each: some thirty short lists.
struct RouteTable: Sendable {
    let routes: [Route]

    /// - Throws: `badRequest` for a path that cannot be decoded, `notFound`, `methodNotAllowed` with what is allowed.
    func find(_ method: HTTPRequest.Method, path: String) throws(RouteFault) -> (Route, [String: String]) {
        var decoded: [String] = []
        for part in path.split(separator: "/", omittingEmptySubsequences: true) {
            guard let text = percentDecoded(part) else {
                throw RouteFault(
                    Problem(.badRequest, "`\(part)` in the path is not percent-encoded UTF-8", hint: "write % as %25"))
            }
            decoded.append(text)
        }
        var allowed: [String] = []
        for route in routes {
            guard let names = route.match(decoded) else { continue }
            if route.method == method || (method == .head && route.method == .get) { return (route, names) }
            allowed.append(route.method.rawValue)
        }
        guard !allowed.isEmpty else {
            throw RouteFault(
                Problem(.notFound, "there is nothing at \(Validation.shown(path))", hint: "the API is below /v1"))
        }
        let methods = allowed.sorted().joined(separator: ", ")
        throw RouteFault(
            Problem(
                .methodNotAllowed, "\(method.rawValue) is not possible at \(Validation.shown(path))",
                hint: "use \(methods)"),
            allow: methods)
    }
}

struct RouteFault: Error {
    var problem: Problem
    /// Methods for the `Allow` header.
    var allow: String?

    init(_ problem: Problem, allow: String? = nil) {
        self.problem = problem
        self.allow = allow
    }
}

/// Text with `%41` as `A`; nil when an escape is cut off or the bytes are not UTF-8. `+` stays.
func percentDecoded(_ text: some StringProtocol) -> String? {
    guard text.utf8.contains(UInt8(ascii: "%")) else { return String(text) }
    func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - 48
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - 87
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - 55
        default: nil
        }
    }
    var bytes: [UInt8] = []
    var iterator = text.utf8.makeIterator()
    while let byte = iterator.next() {
        guard byte == UInt8(ascii: "%") else {
            bytes.append(byte)
            continue
        }
        guard let high = iterator.next().flatMap(digit), let low = iterator.next().flatMap(digit) else { return nil }
        bytes.append(high << 4 | low)
    }
    return String(validating: bytes, as: UTF8.self)
}
