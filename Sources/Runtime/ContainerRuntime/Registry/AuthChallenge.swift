// SPDX-License-Identifier: Apache-2.0

/// One challenge of a `WWW-Authenticate` header: `Bearer realm="https://auth.example/token",service="example"`.
struct AuthChallenge: Hashable, Sendable {
    /// Lower case.
    var scheme: String
    /// Names in lower case.
    var parameters: [String: String] = [:]

    /// Reads every challenge of a header (RFC 9110, 11.6.1); what does not parse ends the reading.
    static func parse(_ header: String) -> [AuthChallenge] {
        var scanner = Scanner(bytes: Array(header.utf8))
        var challenges: [AuthChallenge] = []
        while true {
            scanner.skip(" \t,")
            guard let word = scanner.token() else { return challenges }
            scanner.skip(" \t")
            if !challenges.isEmpty, scanner.take(UInt8(ascii: "=")) {
                scanner.skip(" \t")
                guard let value = scanner.value() else { return challenges }
                challenges[challenges.count - 1].parameters[word.lowercased()] = value
            } else {
                challenges.append(AuthChallenge(scheme: word.lowercased()))
            }
        }
    }

    private struct Scanner {
        let bytes: [UInt8]
        var index = 0

        init(bytes: [UInt8]) { self.bytes = bytes }

        mutating func skip(_ set: String) {
            let set = Array(set.utf8)
            while index < bytes.count, set.contains(bytes[index]) { index += 1 }
        }

        mutating func take(_ byte: UInt8) -> Bool {
            guard index < bytes.count, bytes[index] == byte else { return false }
            index += 1
            return true
        }

        mutating func token() -> String? {
            let start = index
            let stops = Array(" \t,=\"".utf8)
            while index < bytes.count, !stops.contains(bytes[index]) { index += 1 }
            return index > start ? String(decoding: bytes[start..<index], as: UTF8.self) : nil
        }

        mutating func value() -> String? {
            guard take(UInt8(ascii: "\"")) else { return token() }
            var text: [UInt8] = []
            while index < bytes.count, bytes[index] != UInt8(ascii: "\"") {
                if bytes[index] == UInt8(ascii: "\\"), index + 1 < bytes.count { index += 1 }
                text.append(bytes[index])
                index += 1
            }
            return take(UInt8(ascii: "\"")) ? String(decoding: text, as: UTF8.self) : nil
        }
    }
}
