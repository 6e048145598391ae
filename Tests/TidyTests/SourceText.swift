// SPDX-License-Identifier: Apache-2.0

/// The code of a Swift file with comments and the text of string literals blanked out, line by line.
///
/// Code inside `\( … )` of a literal stays: it runs like any other. Line numbers and columns are kept.
struct SourceText {
    let lines: [String]

    init(_ text: String) {
        var scanner = Scanner(text)
        lines = scanner.scan().split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    }

    /// Lines, counted from 1, on which `pattern` is found.
    func lines(matching pattern: Regex<AnyRegexOutput>) -> [Int] {
        lines.indices.filter { lines[$0].contains(pattern) }.map { $0 + 1 }
    }
}

private struct Scanner {
    private let input: [Character]
    private var position = 0
    private var output = ""

    init(_ text: String) { input = Array(text) }

    mutating func scan() -> String {
        code(until: nil)
        return output
    }

    private func at(_ offset: Int) -> Character? {
        let index = position + offset
        return index < input.count ? input[index] : nil
    }

    private func starts(with text: String) -> Bool {
        var offset = 0
        for character in text {
            guard at(offset) == character else { return false }
            offset += 1
        }
        return true
    }

    private mutating func keep() {
        output.append(input[position])
        position += 1
    }

    private mutating func blank(_ count: Int = 1) {
        for _ in 0..<count where position < input.count {
            output.append(input[position].isNewline ? "\n" : " ")
            position += 1
        }
    }

    /// Reads code up to the `)` that closes an interpolation, or to the end.
    private mutating func code(until end: Character?) {
        var depth = 0
        while let next = at(0) {
            if starts(with: "//") {
                while let character = at(0), !character.isNewline { _ = character; blank() }
            } else if starts(with: "/*") {
                blockComment()
            } else if next == "\"" || next == "#", let hashes = hashesBeforeQuote() {
                literal(hashes: hashes)
            } else {
                if end != nil {
                    if next == "(" { depth += 1 }
                    if next == ")" {
                        if depth == 0 { return }
                        depth -= 1
                    }
                }
                keep()
            }
        }
    }

    private mutating func blockComment() {
        var depth = 0
        repeat {
            if starts(with: "/*") {
                depth += 1
                blank(2)
            } else if starts(with: "*/") {
                depth -= 1
                blank(2)
            } else {
                blank()
            }
        } while depth > 0 && position < input.count
    }

    /// Number of `#` in front of a quote here, nil when this is no literal.
    private func hashesBeforeQuote() -> Int? {
        var count = 0
        while at(count) == "#" { count += 1 }
        return at(count) == "\"" ? count : nil
    }

    private mutating func literal(hashes: Int) {
        let fence = String(repeating: "#", count: hashes)
        position += hashes
        output += String(repeating: " ", count: hashes)
        let quote = starts(with: "\"\"\"") ? "\"\"\"" : "\""
        let closing = quote + fence
        let escape = "\\" + fence
        output += quote
        position += quote.count
        while position < input.count {
            if starts(with: closing) {
                output += quote + String(repeating: " ", count: hashes)
                position += closing.count
                return
            }
            if starts(with: escape + "(") {
                blank(escape.count)
                keep()
                code(until: ")")
                if position < input.count { keep() }
            } else if starts(with: escape) {
                blank(escape.count + 1)
            } else if quote.count == 1, at(0)?.isNewline == true {
                return
            } else {
                blank()
            }
        }
    }
}
