// SPDX-License-Identifier: Apache-2.0

/// Where a member listens for the others: `10.0.0.1:4484`, `[fd00::1]:4484`, `node-a.example:4484`; the port may be left out.
struct PeerAddress: Hashable, Sendable, CustomStringConvertible {
    /// Of the API over TLS.
    static let standardAPIPort = 4_483
    static let standardPort = 4484

    var host: String
    /// In 1...65535; 0 only to listen on any free one.
    var port: Int

    init(host: String, port: Int = PeerAddress.standardPort) {
        self.host = host
        self.port = port
    }

    /// Nil when the text is not an address of that form.
    init?(_ text: String) {
        var host = text[...]
        var port = Self.standardPort
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { return nil }
            host = text[text.index(after: text.startIndex)..<end]
            let rest = text[text.index(after: end)...]
            if !rest.isEmpty {
                guard rest.hasPrefix(":"), let number = Self.port(rest.dropFirst()) else { return nil }
                port = number
            }
        } else if text.count(where: { $0 == ":" }) == 1, let colon = text.firstIndex(of: ":") {
            guard let number = Self.port(text[text.index(after: colon)...]) else { return nil }
            host = text[..<colon]
            port = number
        }
        guard !host.isEmpty, host.utf8.count <= 253, !host.contains(where: { $0.isWhitespace || $0 == "/" }) else {
            return nil
        }
        self.init(host: String(host), port: port)
    }

    private static func port(_ text: Substring) -> Int? {
        guard !text.isEmpty, text.utf8.count <= 5, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let number = Int(text), (0...65_535).contains(number)
        else { return nil }
        return number
    }

    var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
