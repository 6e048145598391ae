// SPDX-License-Identifier: Apache-2.0
internal import Model

/// A cluster as this user reaches it from elsewhere: where, how to know it, and the token to show.
///
/// The token is never shown: descriptions and mirrors leave it out.
struct Context: Hashable, Codable, Sendable, CustomStringConvertible, CustomReflectable {
    static let addressesMax = 16

    var name: String
    /// `host:port` of nodes, tried in order.
    var addresses: [String]
    /// Nothing is sent without one but what is for anybody.
    var token: String?
    /// PEM of what is believed; nil while nothing is known, when nobody is.
    var authority: String?
    /// SHA-256 of the public key of the authority this context began with, hexadecimal.
    var digest: String

    /// The context that is always there: this machine's daemon, over its socket.
    static let local = "local"

    var description: String { "context `\(name)`" }
    var customMirror: Mirror { Mirror(self, children: ["name": name, "addresses": addresses]) }

    /// - Throws: usage errors naming what is wrong.
    static func checkName(_ name: String) throws(CLIError) {
        guard name != local else {
            throw .usage(
                "`\(local)` is always this machine's daemon, over its socket",
                hint: "choose another name for the context")
        }
        let isPlain = name.utf8.allSatisfy {
            (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || [45, 46, 95].contains($0)
        }
        guard (1...63).contains(name.utf8.count), isPlain else {
            throw .usage(
                "`\(name)` is no name for a context", hint: "use letters, digits, `-`, `_` and `.`, at most 63")
        }
    }

    /// `host:port`, port 4483 when none is said.
    static func address(_ text: String) throws(CLIError) -> String {
        let hint = "write it as 10.0.0.1:4483 or [fd00::1]:4483"
        let isPlain = text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "@") }
        guard isPlain, (1...255).contains(text.utf8.count) else { throw .usage("`\(text)` is no address", hint: hint) }
        guard let colon = text.lastIndex(of: ":"), !text.hasSuffix("]") else { return "\(text):4483" }
        let (host, port) = (text[..<colon], text[text.index(after: colon)...])
        let isWhole = !host.isEmpty && (!host.contains(":") || host.hasPrefix("[") && host.hasSuffix("]"))
        guard isWhole, let number = UInt16(port), number > 0 else {
            throw .usage("`\(text)` is no address", hint: hint)
        }
        return text
    }
}

/// `contexts.json`: every context of this user, and which one is used.
struct ContextList: Hashable, Codable, Sendable {
    static let countMax = 100

    /// Nil: the local daemon.
    var current: String?
    var contexts: [Context] = []

    subscript(name: String) -> Context? {
        get { contexts.first { $0.name == name } }
        set {
            contexts.removeAll { $0.name == name }
            if let newValue { contexts.append(newValue) }
            contexts.sort { $0.name < $1.name }
        }
    }

    func required(_ name: String) throws(CLIError) -> Context {
        guard let context = self[name] else {
            throw CLIError(
                .notFound, "there is no context `\(name)`",
                hint: contexts.isEmpty
                    ? "add one: hivemind context add \(name) --address HOST:4483 --token hm_…"
                    : "there are \(contexts.map(\.name).joined(separator: ", ")); `hivemind context ls` shows them")
        }
        return context
    }
}
