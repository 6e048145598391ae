// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Where an image is: registry, repository, tag and digest, by Docker's rules of what may be left out.
///
/// `nginx` is `docker.io/library/nginx:latest`. With a digest the tag says nothing and is kept for people only.
public struct ImageReference: Hashable, Sendable, CustomStringConvertible {
    /// Host and port, `docker.io` or `localhost:5000`.
    public let registry: String
    /// `library/nginx`
    public let repository: String
    public let tag: String?
    /// `sha256:<64 hex>`
    public let digest: String?

    /// - Throws: `imageInvalid` saying which part is wrong.
    public init(_ text: String) throws(ImageError) {
        func invalid(_ what: String, _ hint: String? = nil) -> ImageError {
            ImageError(
                .imageInvalid, "`\(text)` is not an image reference: \(what)",
                hint: hint ?? "write [registry[:port]/]name[:tag] or name@sha256:…, for example nginx:1.27")
        }
        guard !text.isEmpty else { throw invalid("it is empty") }
        guard text.utf8.count <= 512 else { throw invalid("it is longer than 512 bytes") }
        var rest = text[...]
        if let at = rest.firstIndex(of: "@") {
            let digest = String(rest[rest.index(after: at)...])
            guard Digest.isValid(digest) else {
                throw invalid("`\(digest)` is not a digest", "digests look like sha256: and 64 hexadecimal digits")
            }
            self.digest = digest
            rest = rest[..<at]
        } else {
            digest = nil
        }
        let lastPart = rest.lastIndex(of: "/").map { rest.index(after: $0) } ?? rest.startIndex
        if let colon = rest[lastPart...].lastIndex(of: ":") {
            let tag = String(rest[rest.index(after: colon)...])
            guard Self.isTag(tag) else {
                throw invalid("`\(tag)` is not a tag", "tags have letters, digits, `_`, `.`, `-`, at most 128")
            }
            self.tag = tag
            rest = rest[..<colon]
        } else {
            tag = digest == nil ? "latest" : nil
        }
        var registry = "docker.io"
        if let slash = rest.firstIndex(of: "/") {
            let first = rest[..<slash]
            if first == "localhost" || first.contains(where: { $0 == "." || $0 == ":" || $0.isUppercase }) {
                guard Self.isRegistry(first) else { throw invalid("`\(first)` is not a registry's host[:port]") }
                registry = first == "index.docker.io" ? "docker.io" : String(first)
                rest = rest[rest.index(after: slash)...]
            }
        }
        let isBareID = rest.utf8.count == 64 && rest.utf8.allSatisfy(Digest.isHex)
        guard !isBareID else { throw invalid("64 hexadecimal digits are an id, not a name") }
        var repository = String(rest)
        if registry == "docker.io", !repository.contains("/") { repository = "library/" + repository }
        if repository.contains(where: \.isUppercase) {
            throw invalid("`\(rest)` has upper-case letters", "names are lower case: \(rest.lowercased())")
        }
        let parts = repository.split(separator: "/", omittingEmptySubsequences: false)
        guard !rest.isEmpty, parts.allSatisfy(Self.isNamePart) else { throw invalid("`\(rest)` is not a name") }
        guard registry.utf8.count + repository.utf8.count < 255 else { throw invalid("the name is too long") }
        self.registry = registry
        self.repository = repository
    }

    /// The full form, under which the image is stored.
    public var description: String {
        "\(name)\(tag.map { ":" + $0 } ?? "")\(digest.map { "@" + $0 } ?? "")"
    }

    /// Without tag and digest.
    public var name: String { "\(registry)/\(repository)" }

    /// What a registry is asked for.
    var manifestKey: String { digest ?? tag ?? "latest" }

    // MARK: The grammar (github.com/distribution/reference, regexp.go)

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        default: false
        }
    }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        isAlphanumeric(byte) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
    }

    private static func isTag(_ text: String) -> Bool {
        guard let first = text.utf8.first, text.utf8.count <= 128 else { return false }
        let isWord = { (byte: UInt8) in isLetterOrDigit(byte) || byte == UInt8(ascii: "_") }
        return isWord(first)
            && text.utf8.allSatisfy { isWord($0) || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "-") }
    }

    /// Runs of `[a-z0-9]` parted by one `.`, one or two `_`, or any number of `-`.
    private static func isNamePart(_ part: Substring) -> Bool {
        var separator: [UInt8] = []
        guard let first = part.utf8.first, isAlphanumeric(first) else { return false }
        for byte in part.utf8 {
            if isAlphanumeric(byte) {
                let isLegal =
                    separator.isEmpty || separator == [UInt8(ascii: ".")] || separator == [UInt8(ascii: "_")]
                    || separator == [UInt8(ascii: "_"), UInt8(ascii: "_")]
                    || separator.allSatisfy { $0 == UInt8(ascii: "-") }
                guard isLegal else { return false }
                separator = []
            } else {
                guard [UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-")].contains(byte) else { return false }
                separator.append(byte)
            }
        }
        return separator.isEmpty
    }

    private static func isRegistry(_ text: Substring) -> Bool {
        var host = text
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { return false }
            let address = text[text.index(after: text.startIndex)..<end]
            guard !address.isEmpty, address.allSatisfy({ $0.isHexDigit || $0 == ":" }) else { return false }
            let port = text[text.index(after: end)...]
            return port.isEmpty || (port.first == ":" && isPort(port.dropFirst()))
        }
        if let colon = text.firstIndex(of: ":") {
            guard isPort(text[text.index(after: colon)...]) else { return false }
            host = text[..<colon]
        }
        return host.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
            guard let first = label.utf8.first, let last = label.utf8.last else { return false }
            return isLetterOrDigit(first) && isLetterOrDigit(last)
                && label.utf8.allSatisfy { isLetterOrDigit($0) || $0 == UInt8(ascii: "-") }
        }
    }

    private static func isPort(_ text: Substring) -> Bool {
        text.utf8.count <= 5 && text.utf8.allSatisfy { (48...57).contains($0) } && UInt16(text).map { $0 > 0 } ?? false
    }
}
