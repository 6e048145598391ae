// SPDX-License-Identifier: Apache-2.0

/// One request. Everything not given has a default that cannot hang.
public struct HTTPRequest: Sendable {
    public enum Body: Sendable {
        case none
        case bytes([UInt8])
        /// Streamed from disk; memory use does not depend on its size.
        case file(path: String)
    }

    /// Whose certificates are believed.
    public enum Trust: Hashable, Sendable {
        /// Those of the client's bundle, with the name in them that was asked for.
        case system
        /// Those of this authority alone (PEM), whatever name is in them.
        case authority(String)
        /// Anybody's. Say nothing secret, believe nothing that you do not check.
        case unverified
    }

    /// Upper case.
    public var method: String
    /// `http://` or `https://`, percent-encoded. With `unixSocket` the host is only a name, `http://hivemind/v1/apps`.
    public var url: String
    public var headers: HTTPHeaders
    public var body: Body
    /// Path of a unix socket to connect to instead of the host of `url`.
    public var unixSocket: String?
    public var limits: HTTPLimits
    /// At most 10 are followed; `Authorization` is not sent on to another host.
    public var followsRedirects: Bool
    public var trust: Trust

    public init(
        method: String = "GET",
        url: String,
        headers: HTTPHeaders = [:],
        body: Body = .none,
        unixSocket: String? = nil,
        limits: HTTPLimits = HTTPLimits(),
        followsRedirects: Bool = true,
        trust: Trust = .system
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.unixSocket = unixSocket
        self.limits = limits
        self.followsRedirects = followsRedirects
        self.trust = trust
    }
}

/// What bounds one request.
public struct HTTPLimits: Sendable {
    /// Until the connection, TLS included, stands.
    public var connect: Duration
    /// From start to last byte; nil for a stream that may live for ever.
    public var total: Duration?
    /// Longest time without a byte in either direction; the time a slow consumer takes does not count. nil: no bound.
    public var stall: Duration?
    /// Of a whole body (`HTTPClient.send`) or one line (`HTTPClient.lines`).
    public var bodyBytesMax: Int

    public init(
        connect: Duration = .seconds(10),
        total: Duration? = .seconds(60),
        stall: Duration? = .seconds(30),
        bodyBytesMax: Int = 16 << 20
    ) {
        self.connect = connect
        self.total = total
        self.stall = stall
        self.bodyBytesMax = bodyBytesMax
    }

    /// A stream that may be silent for hours: only connecting is bounded.
    public static let endless = HTTPLimits(total: nil, stall: nil)
}

/// Header fields in the order sent; names compare without case.
public struct HTTPHeaders: Sendable, Hashable, ExpressibleByDictionaryLiteral {
    public struct Field: Sendable, Hashable {
        public var name: String
        public var value: String
    }

    public private(set) var fields: [Field] = []

    public init(dictionaryLiteral elements: (String, String)...) {
        fields = elements.map { Field(name: $0.0, value: $0.1) }
    }

    /// The first field of that name; setting replaces all of that name, nil removes them.
    public subscript(name: String) -> String? {
        get { fields.first { Self.same($0.name, name) }?.value }
        set {
            fields.removeAll { Self.same($0.name, name) }
            if let newValue { fields.append(Field(name: name, value: newValue)) }
        }
    }

    public func all(_ name: String) -> [String] { fields.filter { Self.same($0.name, name) }.map(\.value) }

    public mutating func add(_ name: String, _ value: String) { fields.append(Field(name: name, value: value)) }

    private static func same(_ left: String, _ right: String) -> Bool {
        left.utf8.count == right.utf8.count && left.lowercased() == right.lowercased()
    }
}

/// A whole response.
public struct HTTPResponse: Sendable {
    public var status: Int
    public var headers: HTTPHeaders
    public var body: [UInt8]
    /// Where it came from after redirects.
    public var url: String

    public var isSuccess: Bool { (200..<300).contains(status) }

    public init(status: Int, headers: HTTPHeaders, body: [UInt8], url: String) {
        self.status = status
        self.headers = headers
        self.body = body
        self.url = url
    }
}

/// A response whose body is still arriving.
public struct HTTPStream: Sendable {
    public var status: Int
    public var headers: HTTPHeaders
    public var url: String
    /// One consumer. Letting go of it aborts the transfer.
    public var body: HTTPBody

    public var isSuccess: Bool { (200..<300).contains(status) }
}
