// SPDX-License-Identifier: Apache-2.0

extension String {
    /// Terminal columns it takes: wide characters two, combining ones none.
    var displayWidth: Int { reduce(0) { $0 + $1.displayWidth } }

    /// As one safe line: line ends and tabs become spaces, other control characters `?`.
    ///
    /// Text of containers and registries must not move the cursor or set colours.
    var printable: String {
        guard unicodeScalars.contains(where: { $0.value < 32 || (127...159).contains($0.value) }) else { return self }
        var clean = String.UnicodeScalarView()
        var isAfterReturn = false
        for scalar in unicodeScalars {
            switch scalar.value {
            case 10 where isAfterReturn: break
            case 9, 10, 13: clean.append(" ")
            case ..<32, 127...159: clean.append("?")
            default: clean.append(scalar)
            }
            isAfterReturn = scalar.value == 13
        }
        return String(clean)
    }

    /// At most `columns` wide, cut with `…`.
    func truncated(to columns: Int) -> String {
        guard displayWidth > columns else { return self }
        var width = 0
        var cut = ""
        for character in self {
            guard width + character.displayWidth < columns else { break }
            width += character.displayWidth
            cut.append(character)
        }
        return cut + "…"
    }

    func padded(to columns: Int, right: Bool = false) -> String {
        let spaces = String(repeating: " ", count: max(0, columns - displayWidth))
        return right ? spaces + self : self + spaces
    }
}

extension Character {
    fileprivate var displayWidth: Int {
        if unicodeScalars.contains(where: { $0.value == 0xFE0F }) { return 2 }
        return unicodeScalars.reduce(0) { max($0, $1.displayWidth) }
    }
}

extension Unicode.Scalar {
    /// East Asian wide and fullwidth blocks of UAX #11, and emoji.
    fileprivate var displayWidth: Int {
        guard value >= 0x300 else { return value < 32 || (127..<160).contains(value) ? 0 : 1 }
        switch properties.generalCategory {
        case .nonspacingMark, .enclosingMark, .format: return 0
        default: break
        }
        switch value {
        case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F,
            0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x20000...0x3FFFD:
            return 2
        default: return properties.isEmojiPresentation ? 2 : 1
        }
    }
}
