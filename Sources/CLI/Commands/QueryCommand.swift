// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct QueryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "query", abstract: "Ask the cluster's state with SQL; nothing can be changed.",
        discussion: """
            At most 10,000 rows. With -o name the first column.

            Examples:
              hivemind query "select node, count(*) from tasks group by node"
              hivemind query "select name from sqlite_master where type = 'table'"
            """)

    @Argument(help: "One SELECT, or - to read it from standard input.")
    var sql: String
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption

    func run() async throws {
        let output = try global.result()
        let text = sql == "-" ? String(decoding: try output.terminal.readFile(.standardInput), as: UTF8.self) : sql
        let answer: Answer<QueryView> = try await global.client().send(
            "POST", "/v1/query", read.query, body: QueryRequest(sql: text))
        let view = answer.value
        var table = Table(view.columns.map { Table.Column($0) })
        table.rows = view.rows.map { row in
            view.columns.indices.map { $0 < row.count ? Self.cell(row[$0]) : Cell("") }
        }
        for column in view.columns.indices {
            table.columns[column].isRight =
                view.rows.allSatisfy { column < $0.count && $0[column].isNumberOrNull }
                && !view.rows.isEmpty
        }
        let names = view.rows.compactMap(\.first).map { Self.cell($0).text }
        try output.show(json: answer.body, names: names) { table.rendered($0) }
        if view.truncated {
            output.terminal.note("warning: there are more rows than these \(view.rows.count); add a limit or a where")
        }
    }

    private static func cell(_ cell: QueryCell) -> Cell {
        switch cell {
        case .null: Cell("NULL", .dim)
        case .integer(let value): Cell(value)
        case .real(let value): Cell("\(value)")
        case .text(let text): text.isEmpty ? Cell("''", .dim) : Cell(text)
        }
    }
}

extension QueryCell {
    fileprivate var isNumberOrNull: Bool {
        switch self {
        case .integer, .real, .null: true
        case .text: false
        }
    }
}
