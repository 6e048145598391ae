// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import HTTPTypes
internal import Model
internal import NIOCore

/// A request as handlers see it: names and query decoded, body read.
struct APIRequest: Sendable {
    let id: String
    let backend: any Backend
    let metrics: APIMetrics
    let caller: Caller
    /// From the path.
    let names: [String: String]
    let query: [String: String]
    let headers: HTTPFields
    /// `?consistency=`
    let consistency: ReadConsistency?
    var body = ByteBuffer()
    /// Where the uploaded archive is; it is deleted after the handler.
    var archive: String?

    init(
        id: String, backend: any Backend, metrics: APIMetrics, caller: Caller, names: [String: String], query: String?,
        headers: HTTPFields
    ) throws(Problem) {
        self.id = id
        self.backend = backend
        self.metrics = metrics
        self.caller = caller
        self.names = names
        self.headers = headers
        var decoded = try Self.decoded(query ?? "")
        // Whoever is bound to a namespace means that one.
        if decoded["namespace"] == nil, let own = caller.namespace { decoded["namespace"] = own }
        self.query = decoded
        consistency = try Self.consistency(self.query["consistency"])
    }

    private static func consistency(_ text: String?) throws(Problem) -> ReadConsistency? {
        guard let text else { return nil }
        guard let consistency = ReadConsistency(rawValue: text) else {
            throw Problem(
                .badRequest, "consistency \(Validation.shown(text)) is not known",
                hint: "use \(ReadConsistency.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        return consistency
    }

    private static func decoded(_ query: String) throws(Problem) -> [String: String] {
        var result: [String: String] = [:]
        for pair in query.split(separator: "&") {
            let halves = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let key = percentDecoded(halves[0]),
                let value = halves.count == 2 ? percentDecoded(halves[1]) : ""
            else {
                throw Problem(
                    .badRequest, "`\(pair)` in the query is not percent-encoded UTF-8", hint: "write % as %25")
            }
            if result[key] == nil { result[key] = value }
        }
        return result
    }
}

// MARK: Who asks

extension APIRequest {
    /// For what is only known once it was found: an object of another namespace is none to a caller that is bound to one.
    func isVisible(_ namespace: String) -> Bool { caller.namespace.map { $0 == namespace } ?? true }

    /// - Throws: `forbidden`.
    func permit(_ verb: Authorization.Verb, _ kind: Authorization.Kind) throws(Problem) {
        try Authorization.judge(caller, verb, kind, namespace: query["namespace"])
    }
}

// MARK: What would be ignored

extension APIRequest {
    /// A write that is asked for with care is not made without.
    /// - Throws: `badRequest`.
    func refuseUnheeded(_ route: Route) throws(Problem) {
        guard route.method != .get, route.reads == nil else { return }
        if try flag("dry_run") {
            throw Problem(
                .badRequest, "dry_run is not possible here: nothing was changed",
                hint: "leave it out to make the change")
        }
        guard !route.takesCondition else { return }
        for name in [HTTPField.Name.ifMatch, .ifNoneMatch] where headers[name] != nil {
            throw Problem(
                .badRequest, "\(name.canonicalName) is not possible on this write: nothing was changed",
                hint: "apps and configs can be changed under a condition; leave it out here")
        }
    }
}

// MARK: Names and query

extension APIRequest {
    var name: String { names["name"] ?? "" }

    /// `?namespace=`, nil for all.
    func namespaceFilter() throws(Problem) -> String? {
        guard let namespace = query["namespace"] else { return nil }
        try Validation.name(namespace, kind: "namespace")
        return namespace
    }

    /// The name of the path in `?namespace=` or the default one.
    func key(_ kind: String) throws(Problem) -> ObjectKey {
        let key = ObjectKey(namespace: try namespaceFilter() ?? ObjectKey.defaultNamespace, name: name)
        try Validation.name(key.name, kind: kind)
        return key
    }

    func configKey() throws(Problem) -> ObjectKey {
        let key = ObjectKey(namespace: try namespaceFilter() ?? ObjectKey.defaultNamespace, name: name)
        try Validation.configName(key.name)
        return key
    }

    /// `?app=`
    func app() throws(Problem) -> String? {
        guard let app = query["app"] else { return nil }
        try Validation.name(app, kind: "app")
        return app
    }

    /// Absent is false, present without value is true.
    func flag(_ name: String) throws(Problem) -> Bool {
        switch query[name] {
        case nil, "false", "0": return false
        case "true", "1", "": return true
        case let text?:
            throw Problem(
                .badRequest, "\(name) \(Validation.shown(text)) is not a truth value", hint: "use true or false")
        }
    }

    func logFilter() throws(Problem) -> LogFilter {
        var filter = LogFilter(
            service: query["service"], task: query["task"], tail: nil, since: nil, follow: try flag("follow"))
        if let service = filter.service { try Validation.name(service, kind: "service") }
        if let text = query["tail"] {
            guard let tail = Int(text), (0...1_000_000).contains(tail) else {
                throw Problem(.badRequest, "tail \(Validation.shown(text)) is not a number of 0...1000000")
            }
            filter.tail = tail
        }
        if let text = query["since"] {
            guard let since = Timestamp(text) else {
                throw Problem(
                    .badRequest, "since \(Validation.shown(text)) is not an RFC 3339 time",
                    hint: "write it like 2026-03-01T12:30:05Z, a + as %2B")
            }
            filter.since = since
        }
        return filter
    }
}

// MARK: Conditions

extension APIRequest {
    /// `If-Match: "<version>"` or `If-None-Match: *`; anything else of the two headers is refused.
    func condition() throws(Problem) -> WriteCondition {
        let match = headers[.ifMatch], noneMatch = headers[.ifNoneMatch]
        switch (match, noneMatch) {
        case (nil, nil): return .none
        case (_?, _?):
            throw Problem(.badRequest, "If-Match and If-None-Match cannot be combined", hint: "send one of them")
        case (nil, let text?):
            guard text == "*" else {
                throw Problem(
                    .badRequest, "If-None-Match \(Validation.shown(text)) is not possible on writes",
                    hint: "use `If-None-Match: *` to create only")
            }
            return .absent
        case (let text?, nil):
            if text.hasPrefix("W/") {
                throw Problem(
                    .badRequest, "If-Match \(Validation.shown(text)) is a weak tag, which never matches",
                    hint: "send the ETag of the object as it was answered")
            }
            guard text.count > 2, text.hasPrefix("\""), text.hasSuffix("\""),
                let version = UInt64(text.dropFirst().dropLast())
            else {
                throw Problem(
                    .badRequest, "If-Match \(Validation.shown(text)) is not one version in quotes",
                    hint: "send the ETag of the object, like \"17\"")
            }
            return .version(version)
        }
    }
}

// MARK: Body

extension APIRequest {
    /// - Throws: `badRequest` naming the field and what is wrong with it.
    func json<Value: Decodable>(_ type: Value.Type) throws(Problem) -> Value {
        try decoded(type)
    }

    /// The same, much sooner for what clients usually send.
    func json(_ type: PutConfigRequest.Type) throws(Problem) -> PutConfigRequest {
        if let plain = body.withUnsafeReadableBytes({ PutConfigRequest(plain: $0) }) { return plain }
        return try decoded(type)
    }

    private func decoded<Value: Decodable>(_ type: Value.Type) throws(Problem) -> Value {
        guard body.readableBytes > 0 else {
            throw Problem(.badRequest, "the request has no body", hint: "send a JSON object")
        }
        do {
            return try JSON.decode(type, from: Data(body.readableBytesView))
        } catch let error as DecodingError {
            throw Problem(.badRequest, Self.text(error))
        } catch {
            throw Problem(.badRequest, "the body is not valid JSON: \(error)")
        }
    }

    private static func text(_ error: DecodingError) -> String {
        switch error {
        case .keyNotFound(let key, let context):
            "\(field(context.codingPath + [key])) is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context):
            "\(field(context.codingPath)): \(context.debugDescription)"
        case .dataCorrupted(let context) where context.codingPath.isEmpty:
            "the body is not valid JSON\(context.underlyingError.map { ": \($0)" } ?? "")"
        case .dataCorrupted(let context):
            "\(field(context.codingPath)): \(context.debugDescription)"
        @unknown default: "the body does not have the right form"
        }
    }

    /// `services[0].image_digest`, as the client wrote it.
    private static func field(_ path: [any CodingKey]) -> String {
        var text = ""
        for key in path {
            if let index = key.intValue {
                text += "[\(index)]"
            } else {
                text += text.isEmpty ? "" : "."
                for character in key.stringValue {
                    text += character.isUppercase ? "_\(character.lowercased())" : String(character)
                }
            }
        }
        return text.isEmpty ? "the body" : "`\(text)`"
    }
}
