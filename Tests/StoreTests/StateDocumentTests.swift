// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import Store
import Testing

@Suite struct StateDocumentTests {
    @Test func `the reference names every table and column, in order, and no others`() async throws {
        let state = try StateMachine(path: nil)
        let columns = try await state.query(
            """
            SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c
            WHERE m.type = 'table' ORDER BY m.rowid, c.cid
            """)
        let expected = columns.rows.map { row in
            row.map { if case .text(let text) = $0 { text } else { "?" } }.joined(separator: ".")
        }
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../..")
        let text = try String(contentsOf: root.appendingPathComponent("docs/reference/state.md"), encoding: .utf8)
        var table = ""
        var named: [String] = []
        for line in text.split(separator: "\n") {
            if line.hasPrefix("## ") { table = String(line.dropFirst(3)) }
            if line.hasPrefix("| `") { named.append("\(table).\(line.dropFirst(3).prefix { $0 != "`" })") }
        }
        #expect(named == expected)
    }
}
