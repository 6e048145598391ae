// SPDX-License-Identifier: Apache-2.0
internal import Model

/// `--volume` and `--tmpfs`.
enum MountParser {
    static let form = "write NAME:/path, /host/path:/path or ./path:/path, with :ro for read-only"

    /// `name:/path[:ro|:rw]`, or a path of the node in place of the name.
    /// - Parameter directory: what a relative path is relative to.
    static func volume(_ text: String, directory: String) throws(CLIError) -> MountSpec {
        func refuse(_ why: String, hint: String = form) -> CLIError { .usage("--volume `\(text)`: \(why)", hint: hint) }
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard parts.count > 1 else {
            throw refuse(
                "says only one of source and target", hint: text.hasPrefix("/") ? "name it: NAME:\(text)" : form)
        }
        guard parts.count <= 3 else { throw refuse("has more than three parts") }
        var isReadOnly = false
        if parts.count == 3 {
            guard parts[2] == "ro" || parts[2] == "rw" else { throw refuse("`\(parts[2])` is neither ro nor rw") }
            isReadOnly = parts[2] == "ro"
        }
        guard parts[1].hasPrefix("/") else { throw refuse("`\(parts[1])` is not an absolute path in the container") }
        return MountSpec(
            source: try source(parts[0], directory: directory, refuse), target: parts[1], readOnly: isReadOnly)
    }

    private static func source(
        _ text: String, directory: String, _ refuse: (String, String) -> CLIError
    ) throws(CLIError) -> MountSpec.Source {
        guard !text.isEmpty else { throw refuse("has no source", form) }
        if text.hasPrefix("/") { return .bind(normalized(text)) }
        if text.hasPrefix("~") { throw refuse("the shell did not expand `~`", "write $HOME in its place") }
        if text.hasPrefix(".") || text.contains("/") { return .bind(normalized("\(directory)/\(text)")) }
        let isName =
            text.utf8.allSatisfy {
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || $0 == UInt8(ascii: "-")
            }
        guard isName else {
            throw refuse(
                "`\(text)` is not a volume name",
                "names have lower-case letters, digits and hyphens; a path starts with / or ./")
        }
        return .volume(text)
    }

    /// `/path[:size=64m]`
    static func tmpfs(_ text: String) throws(CLIError) -> MountSpec {
        func refuse(_ why: String) -> CLIError {
            .usage("--tmpfs `\(text)`: \(why)", hint: "write /path or /path:size=64m")
        }
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard parts[0].hasPrefix("/") else { throw refuse("`\(parts[0])` is not an absolute path in the container") }
        guard parts.count == 2 else { return MountSpec(source: .tmpfs(sizeBytes: nil), target: parts[0]) }
        guard parts[1].hasPrefix("size=") else { throw refuse("`\(parts[1])` is not size=…") }
        let size = try SizeParser.bytes(String(parts[1].dropFirst(5)), flag: "--tmpfs size")
        return MountSpec(source: .tmpfs(sizeBytes: size), target: parts[0])
    }

    /// Without `.`, `..` and doubled slashes.
    static func normalized(_ path: String) -> String {
        var parts: [Substring] = []
        for part in path.split(separator: "/") {
            if part == ".." { _ = parts.popLast() } else if part != "." { parts.append(part) }
        }
        return "/" + parts.joined(separator: "/")
    }
}
