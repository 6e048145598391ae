// SPDX-License-Identifier: Apache-2.0

/// What a person or program shows to the API on TCP: `hm_`, an id that lists show, `_`, and a secret that nobody can show
/// again.
///
/// The secret is never shown: descriptions and mirrors leave it out, `text` alone has it.
public struct APIToken: Hashable, Sendable, CustomStringConvertible, CustomReflectable {
    public static let prefix = "hm_"
    public static let identityBytes = 5
    public static let secretBytes = 20
    /// More than any token has.
    public static let textBytesMax = 128

    /// Eight base32 letters.
    public let id: String
    public let secret: [UInt8]

    /// - Returns: nil unless the lengths are as above.
    public init?(identity: [UInt8], secret: [UInt8]) {
        guard identity.count == Self.identityBytes, secret.count == Self.secretBytes else { return nil }
        id = Base32.text(identity)
        self.secret = secret
    }

    /// Nil for what is no token, mistyped or cut off.
    public init?(_ text: String) {
        guard text.utf8.count <= Self.textBytesMax, text.hasPrefix(Self.prefix) else { return nil }
        let parts = text.dropFirst(Self.prefix.count).split(separator: "_", omittingEmptySubsequences: false)
        guard parts.count == 2, let identity = Base32.bytes(parts[0]), let secret = Base32.bytes(parts[1]) else {
            return nil
        }
        self.init(identity: identity, secret: secret)
    }

    /// For its owner, and for nobody's log.
    public var text: String { "\(Self.prefix)\(id)_\(Base32.text(secret))" }

    public var description: String { "API token \(id)" }
    public var customMirror: Mirror { Mirror(self, children: ["id": id]) }
}

/// What whoever asks may do. Each includes the ones before it.
public enum APIRole: String, Hashable, Codable, Sendable, CaseIterable, Comparable {
    /// Looks at everything but secrets, reads logs.
    case viewer
    /// Runs apps: everything but tokens, coming and going of nodes, certificates and backups.
    case `operator`
    case admin

    public static func < (left: Self, right: Self) -> Bool { left.rank < right.rank }

    private var rank: Int {
        switch self {
        case .viewer: 0
        case .operator: 1
        case .admin: 2
        }
    }
}
