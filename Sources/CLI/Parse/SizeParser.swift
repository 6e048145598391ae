// SPDX-License-Identifier: Apache-2.0

/// Sizes and shares of a machine.
enum SizeParser {
    private static let powers: [Character: Int] = ["k": 1, "m": 2, "g": 3, "t": 4]

    /// Bytes: `512`, `256m`, `1.5g`, `512KiB`. Units count by 1024, as memory does; case does not matter.
    static func bytes(_ text: String, flag: String) throws(CLIError) -> Int64 {
        func refuse(_ why: String) -> CLIError {
            .usage("\(flag) `\(text)`: \(why)", hint: "write a number and a unit, as 512KiB, 256m or 1.5g")
        }
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let number = Double(digits), digits.first != ".", digits.last != "." else {
            throw refuse("is not a size")
        }
        var scale = 1.0
        let unit = text.dropFirst(digits.count).lowercased()
        if !unit.isEmpty, unit != "b" {
            guard let first = unit.first, let power = powers[first], ["", "b", "ib"].contains(String(unit.dropFirst()))
            else { throw refuse("`\(text.dropFirst(digits.count))` is not a unit") }
            for _ in 0..<power { scale *= 1024 }
        }
        let bytes = number * scale
        guard bytes < 0x1p62 else { throw refuse("is too large") }
        guard bytes >= 1 || number == 0 else { throw refuse("is less than a byte") }
        return Int64(bytes)
    }

    /// Thousandths of a core: `0.5`, `2`, `250m`.
    static func cpuMillis(_ text: String, flag: String) throws(CLIError) -> Int {
        func refuse(_ why: String) -> CLIError {
            .usage("\(flag) `\(text)`: \(why)", hint: "write cores as 0.5 or 2, or thousandths as 250m")
        }
        let isMillis = text.last == "m"
        let digits = isMillis ? text.dropLast() : text[...]
        guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && ($0.isNumber || $0 == ".") }), digits.first != ".",
            digits.last != ".", let number = Double(digits)
        else { throw refuse("is not a number of cores") }
        let millis = isMillis ? number : number * 1000
        guard millis.rounded() >= 1 else { throw refuse("is less than a thousandth of a core") }
        guard millis <= 1_000_000 else { throw refuse("is more than 1000 cores") }
        guard (millis - millis.rounded()).magnitude < 1e-6 else { throw refuse("is finer than a thousandth of a core") }
        return Int(millis.rounded())
    }
}
