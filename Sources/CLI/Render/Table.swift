// SPDX-License-Identifier: Apache-2.0

/// Meaning of a cell, shown as a colour on a terminal.
enum Paint: String, Sendable {
    case plain = ""
    case good = "32"
    case busy = "33"
    case bad = "31"
    case dim = "2"
    case strong = "1"

    func applied(to text: String, _ isOn: Bool) -> String {
        isOn && self != .plain && !text.isEmpty ? "\u{1B}[\(rawValue)m\(text)\u{1B}[0m" : text
    }

    /// Of the states of tasks, apps, nodes and rollouts.
    static func state(_ state: String) -> Paint {
        switch state {
        case "running", "ready", "succeeded": .good
        case "failed", "down", "rolled_back": .bad
        case "stopped", "completed", "drained", "superseded": .dim
        default: .busy
        }
    }
}

struct Cell: Sendable, Hashable, ExpressibleByStringLiteral {
    var text: String
    var paint: Paint

    /// Nil and empty are shown as `-`.
    init(_ text: String?, _ paint: Paint = .plain) {
        let clean = (text ?? "").printable
        self.text = clean.isEmpty ? "-" : clean
        self.paint = paint
    }

    init(stringLiteral value: String) { self.init(value) }
    init(_ number: some BinaryInteger) { self.init(String(number)) }

    static func state(_ state: String) -> Cell { Cell(state, .state(state)) }
}

/// How text is shown where it goes.
struct Style: Sendable, Hashable {
    var isWide = false
    var usesColor = false
    /// Columns to fit into; nil where lines may be any length.
    var width: Int?

    static let plain = Style()
}

/// The one table: left-aligned columns two spaces apart, no trailing blanks.
///
/// Only the last column is cut to fit a terminal, and never with `-o wide`.
struct Table: Sendable {
    struct Column: Sendable, ExpressibleByStringLiteral {
        var title: String
        var isWide: Bool
        var isRight: Bool

        init(_ title: String, wide: Bool = false, right: Bool = false) {
            self.title = title
            isWide = wide
            isRight = right
        }

        init(stringLiteral value: String) { self.init(value) }
        static func wide(_ title: String) -> Self { Self(title, wide: true) }
    }

    var columns: [Column]
    var rows: [[Cell]]

    init(_ columns: [Column], _ rows: [[Cell]] = []) {
        self.columns = columns
        self.rows = rows
    }

    func rendered(_ style: Style) -> String {
        let shown = columns.indices.filter { style.isWide || !columns[$0].isWide }
        let header = columns.map { Cell($0.title, .strong) }
        let lines = [header] + rows
        var widths = shown.map { column in lines.map { $0[column].text.displayWidth }.max() ?? 0 }
        if let width = style.width, !style.isWide, let last = widths.indices.last {
            let before = widths.dropLast().reduce(0) { $0 + $1 + 2 }
            widths[last] = min(widths[last], max(width - before, columns[shown[last]].title.displayWidth))
        }
        return lines.map { cells in
            var line = ""
            for (position, column) in shown.enumerated() {
                let isLast = position == shown.count - 1
                let cell = cells[column]
                let text = isLast ? cell.text.truncated(to: widths[position]) : cell.text
                let padding = String(repeating: " ", count: max(0, widths[position] - text.displayWidth))
                if columns[column].isRight { line += padding }
                line += cell.paint.applied(to: text, style.usesColor)
                if !columns[column].isRight, !isLast { line += padding }
                if !isLast { line += "  " }
            }
            return line + "\n"
        }.joined()
    }
}

/// One object for a person: labelled lines, then titled tables.
struct Block: Sendable {
    var fields: [(String, Cell)] = []
    var sections: [(String, Table)] = []

    /// A line, left out when there is nothing to say.
    mutating func add(_ label: String, _ text: String?, _ paint: Paint = .plain) {
        guard let text, !text.isEmpty else { return }
        fields.append((label, Cell(text, paint)))
    }

    mutating func add(_ label: String, _ number: some BinaryInteger) { add(label, String(number)) }

    mutating func add(_ title: String, _ table: Table) {
        if !table.rows.isEmpty { sections.append((title, table)) }
    }

    func rendered(_ style: Style) -> String {
        let width = fields.map { $0.0.displayWidth + 1 }.max() ?? 0
        var text = ""
        for (label, cell) in fields {
            let name = Paint.dim.applied(to: "\(label):".padded(to: width), style.usesColor)
            text += "\(name)  \(cell.paint.applied(to: cell.text, style.usesColor))\n"
        }
        for (title, table) in sections {
            text += "\n\(Paint.strong.applied(to: title, style.usesColor))\n"
            var inner = style
            inner.width = style.width.map { $0 - 2 }
            let lines = table.rendered(inner).split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            text += lines.map { "  \($0)\n" }.joined()
        }
        return text
    }
}
