// SPDX-License-Identifier: Apache-2.0

/// `PUT /v1/apps/{name}`
public struct PutAppRequest: Hashable, Codable, Sendable {
    public var services: [ServiceSpec]

    public init(services: [ServiceSpec]) { self.services = services }
}

/// `POST /v1/apps/{name}/scale`
public struct ScaleRequest: Hashable, Codable, Sendable {
    /// Nil for the app's only service, or the one named like it.
    public var service: String?
    /// 0...1000
    public var replicas: Int

    public init(service: String?, replicas: Int) {
        self.service = service
        self.replicas = replicas
    }
}

/// `POST /v1/images/pull`
public struct PullImageRequest: Hashable, Codable, Sendable {
    public var image: String

    public init(image: String) { self.image = image }
}

/// `PUT /v1/configs/{name}`
public struct PutConfigRequest: Hashable, Codable, Sendable {
    /// At most 1 MiB.
    public var data: String

    public init(data: String) { self.data = data }
}

/// `POST /v1/cluster/transfer-leader`
public struct TransferLeaderRequest: Hashable, Codable, Sendable {
    /// Name or id of the member that is to lead; nil for the voter that is furthest.
    public var to: String?

    public init(to: String?) { self.to = to }
}

/// `POST /v1/query`
public struct QueryRequest: Hashable, Codable, Sendable {
    public var sql: String

    public init(sql: String) { self.sql = sql }
}

/// One line of `GET /v1/apps/{name}/logs` (newline-delimited JSON).
public struct AppLogLine: Hashable, Codable, Sendable {
    public var task: TaskID
    public var service: String
    public var at: Timestamp
    public var stream: LogLine.Stream
    public var text: String
    /// Nil for a line of a container. Else what there is to know about the lines, for a person: a node that does not
    /// answer. `task`, `service` and `text` are empty then.
    public var notice: String?

    public init(task: TaskID, service: String, at: Timestamp, stream: LogLine.Stream, text: String) {
        self.task = task
        self.service = service
        self.at = at
        self.stream = stream
        self.text = text
    }

    public init(notice: String, at: Timestamp) {
        self.init(task: "", service: "", at: at, stream: .stderr, text: "")
        self.notice = notice
    }
}

/// RFC 9457 `application/problem+json`.
public struct Problem: Error, Hashable, Codable, Sendable, CustomStringConvertible {
    public enum Code: String, Codable, Sendable, CaseIterable {
        case badRequest = "bad_request"
        case invalidName = "invalid_name"
        case invalidSpec = "invalid_spec"
        case notFound = "not_found"
        case methodNotAllowed = "method_not_allowed"
        case conflict
        case compacted
        case preconditionFailed = "precondition_failed"
        case portConflict = "port_conflict"
        case volumeInUse = "volume_in_use"
        case imageInUse = "image_in_use"
        case imageNotFound = "image_not_found"
        case imageInvalid = "image_invalid"
        case registryUnreachable = "registry_unreachable"
        case registryDenied = "registry_denied"
        case payloadTooLarge = "payload_too_large"
        case unauthenticated
        case forbidden
        case busy
        case noLeader = "no_leader"
        case noSpace = "no_space"
        case timeout
        case runtimeUnavailable = "runtime_unavailable"
        case `internal` = "internal"

        /// The HTTP status this code is sent with.
        public var status: Int {
            switch self {
            case .badRequest, .invalidName: 400
            case .invalidSpec, .imageInvalid, .imageNotFound, .registryDenied: 422
            case .unauthenticated: 401
            case .forbidden: 403
            case .notFound: 404
            case .methodNotAllowed: 405
            case .conflict, .portConflict, .volumeInUse, .imageInUse: 409
            case .compacted: 410
            case .preconditionFailed: 412
            case .payloadTooLarge: 413
            case .busy: 429
            case .internal: 500
            case .registryUnreachable: 502
            case .noLeader, .runtimeUnavailable: 503
            case .timeout: 504
            case .noSpace: 507
            }
        }
    }

    public var status: Int
    public var code: Code
    public var title: String
    public var detail: String
    public var hint: String?
    public var requestId: String?
    /// Of `compacted`: the oldest index after which events are kept, and the applied index of the node that answers.
    public var oldestIndex: UInt64?
    public var currentIndex: UInt64?

    public init(_ code: Code, _ detail: String, hint: String? = nil) {
        self.code = code
        self.detail = detail
        self.hint = hint
        status = code.status
        title = code.rawValue.split(separator: "_").joined(separator: " ")
    }

    public var description: String { hint.map { "\(detail)\nhint: \($0)" } ?? detail }
}
