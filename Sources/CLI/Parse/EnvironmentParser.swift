// SPDX-License-Identifier: Apache-2.0

/// `--env`, `--env-file` and `--label`.
enum EnvironmentParser {
    /// `K=V`; `K` alone takes the value of the caller's environment.
    static func variable(
        _ text: some StringProtocol, flag: String, environment: (String) -> String?
    ) throws(CLIError) -> (String, String) {
        let form = "write \(flag) NAME=value, or \(flag) NAME to take it from your environment"
        guard let equals = text.firstIndex(of: "=") else {
            let name = String(text)
            try check(name, flag: flag, form: form)
            guard let value = environment(name) else {
                throw .usage("\(flag) `\(name)`: your environment has no such variable", hint: form)
            }
            return (name, value)
        }
        let name = String(text[..<equals])
        try check(name, flag: flag, form: form)
        return (name, String(text[text.index(after: equals)...]))
    }

    private static func check(_ name: String, flag: String, form: String) throws(CLIError) {
        guard !name.isEmpty else { throw .usage("\(flag): a variable without a name", hint: form) }
        guard !name.unicodeScalars.contains(where: { $0.properties.isWhitespace || $0.value < 32 }) else {
            throw .usage("\(flag) `\(name)`: a name has no white space", hint: form)
        }
    }

    /// One variable a line; blank lines and lines starting with `#` are left out, values are taken as they stand.
    static func file(
        _ text: String, name: String, environment: (String) -> String?
    ) throws(CLIError) -> [(String, String)] {
        var variables: [(String, String)] = []
        for (index, raw) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            let line = raw.drop { $0 == " " || $0 == "\t" }
            if line.isEmpty || line.first == "#" { continue }
            do {
                variables.append(try variable(line, flag: "--env", environment: environment))
            } catch {
                let message = error.message.hasPrefix("--env") ? error.message.dropFirst(5) : error.message[...]
                throw .usage(
                    "\(name):\(index + 1):\(message.drop { $0 == ":" })", hint: "write NAME=value, one to a line")
            }
        }
        return variables
    }

    /// `K=V`, or `K` for an empty value.
    static func label(_ text: String) throws(CLIError) -> (String, String) {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard let key = parts.first, !key.isEmpty else {
            throw .usage("--label `\(text)`: a label without a name", hint: "write --label name=value")
        }
        return (String(key), parts.count == 2 ? String(parts[1]) : "")
    }
}
