// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser

/// What the argument parser found wrong, in our form.
enum UsageError {
    static func describe(_ error: any Error, arguments: [String], root: any ParsableCommand.Type) -> CLIError {
        let (path, unknown) = walk(arguments, root)
        let help = "see `\(path.map { $0._commandName }.joined(separator: " ")) --help`"
        if let unknown, let last = path.last {
            let known = last.configuration.subcommands.flatMap { [$0._commandName] + $0.configuration.aliases }
            let nearest = known.map { (distance: distance($0, unknown), name: $0) }.min { $0.distance < $1.distance }
            let suggestion = nearest.flatMap { $0.distance <= 2 ? "did you mean `\($0.name)`? " : nil } ?? ""
            return .usage("`\(unknown)` is not a command", hint: suggestion + help)
        }
        var message = root.message(for: error).split(separator: "\n").first.map(String.init) ?? "wrong usage"
        var hint = help
        if let start = message.range(of: " Did you mean ") {
            hint = "d\(message[start.lowerBound...].dropFirst(2)) \(help)".replacingQuotes
            message = String(message[..<start.lowerBound])
        }
        if let start = message.range(of: ". Please provide ") {
            hint = "give \(message[start.lowerBound...].dropFirst(17))".replacingQuotes
            message = String(message[..<start.lowerBound])
        }
        while message.hasSuffix(".") { message.removeLast() }
        message = message.prefix(1).lowercased() + message.dropFirst()
        return .usage(message.replacingQuotes, hint: hint)
    }

    /// The commands the arguments name, and the first word that should name one and does not.
    private static func walk(
        _ arguments: [String], _ root: any ParsableCommand.Type
    ) -> (path: [any ParsableCommand.Type], unknown: String?) {
        var path = [root]
        for argument in arguments {
            guard let last = path.last, !last.configuration.subcommands.isEmpty, !argument.hasPrefix("-") else { break }
            let next = last.configuration.subcommands.first {
                $0._commandName == argument || $0.configuration.aliases.contains(argument)
            }
            guard let next else { return (path, argument) }
            path.append(next)
        }
        return (path, nil)
    }

    /// Levenshtein.
    static func distance(_ left: String, _ right: String) -> Int {
        let right = Array(right)
        var row = Array(0...right.count)
        for (i, character) in left.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for j in right.indices {
                let above = row[j + 1]
                row[j + 1] = min(above + 1, row[j] + 1, diagonal + (character == right[j] ? 0 : 1))
                diagonal = above
            }
        }
        return row[right.count]
    }
}

extension String {
    fileprivate var replacingQuotes: String { String(map { $0 == "'" ? "`" : $0 }) }

    fileprivate func range(of text: String) -> Range<Index>? {
        for start in indices where self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
        return nil
    }
}
