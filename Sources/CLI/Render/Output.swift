// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser

enum OutputFormat: String, CaseIterable, ExpressibleByArgument, Sendable {
    case table, wide, json, yaml, name

    /// Read by programs: nothing but the data is said.
    var isForPrograms: Bool { self == .json || self == .yaml || self == .name }

    /// By flag, else by `HIVEMIND_OUTPUT`, else a table.
    static func chosen(_ flag: OutputFormat?, _ terminal: Terminal) throws(CLIError) -> OutputFormat {
        guard flag == nil, let text = terminal.setting("HIVEMIND_OUTPUT") else { return flag ?? .table }
        guard let format = OutputFormat(rawValue: text) else {
            throw .usage("HIVEMIND_OUTPUT is `\(text)`", hint: "use one of table, wide, json, yaml, name")
        }
        return format
    }
}

/// Where and how a command shows its result.
struct Output: Sendable {
    let format: OutputFormat
    let terminal: Terminal
    /// Flags that make a suggested command reach the same objects, ` --namespace blue`.
    var context = ""

    var style: Style {
        Style(
            isWide: format == .wide, usesColor: terminal.usesColor,
            width: terminal.isOutputTTY ? terminal.width : nil)
    }

    /// Shows one result in the format asked for.
    /// - Parameters:
    ///   - json: the API's answer; nothing is printed when it is empty.
    ///   - names: one per line with `-o name`.
    ///   - text: for a person, ending with a line end.
    func show(json: [UInt8], names: [String], text: (Style) -> String) throws {
        switch format {
        case .table, .wide: terminal.write(Array(text(style).utf8))
        case .json: terminal.write(JSONText.pretty(json))
        case .yaml: if !json.isEmpty { terminal.write(Array(try JSONText.yaml(json).utf8)) }
        case .name: terminal.write(Array(names.map { "\($0)\n" }.joined().utf8))
        }
    }

    /// The next useful commands, each without the leading `hivemind`. After a mere look only on a terminal.
    func next(_ commands: String..., afterReading: Bool = false) {
        guard !format.isForPrograms, !afterReading || terminal.isErrorTTY else { return }
        for (index, command) in commands.enumerated() {
            let label = Paint.dim.applied(to: index == 0 ? "next:" : "     ", terminal.usesErrorColor)
            terminal.note("\(label) hivemind \(command)\(context)")
        }
    }

    /// Something to know that is no data.
    func note(_ text: String) {
        if !format.isForPrograms { terminal.note(text) }
    }
}
