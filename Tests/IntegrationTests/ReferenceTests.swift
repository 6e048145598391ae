// SPDX-License-Identifier: Apache-2.0
import Model
import TestSupport
import Testing

/// The closed lists of the API reference are those of the code.
@Suite struct ReferenceTests {
    @Test func `the reference lists every error code with its status`() throws {
        let text = try Repository.text("docs/reference/api.md")
        for code in Problem.Code.allCases {
            #expect(text.contains("| `\(code.rawValue)` | \(code.status) | "), "\(code.rawValue)")
        }
    }

    @Test func `the reference lists every reason and says which are final`() throws {
        let rows = try Repository.text("docs/reference/api.md").split(separator: "\n")
        for code in Reason.Code.allCases {
            // Some words are error codes too: those rows have a number in the middle.
            let row = rows.filter { $0.hasPrefix("| `\(code.rawValue)` |") }.last
            #expect(row?.hasSuffix(code.isFinal ? "| yes |" : "|  |") == true, "\(code.rawValue)")
        }
    }

    @Test func `the reference names every field of a service that is set by default`() throws {
        let text = try Repository.text("docs/reference/api.md")
        let spec = ServiceSpec(name: "n", image: "i")
        let json = try JSONValue(parsing: String(decoding: JSON.encode(spec), as: UTF8.self))
        for name in json.keys where name != "image_digest" {
            #expect(text.contains("`\(name)") || text.contains("`\(name)`"), "\(name)")
        }
    }
}
