// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Testing

/// What happens step by step in situations others got wrong, with the whole exchange in a file to read.
///
/// `UPDATE_GOLDEN=1` writes what happens now; look at the difference before believing it.
@Suite struct ScenarioTests {
    private static let directory = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Scenarios")

    static let names: [String] = {
        let found = try? FileManager.default.contentsOfDirectory(atPath: directory.path)
        return (found ?? []).filter { $0.hasSuffix(".txt") }.sorted()
    }()

    @Test func `there are scenarios`() {
        #expect(Self.names.count >= 18)
    }

    @Test(arguments: names)
    func `a scenario goes as written`(name: String) throws {
        let file = Self.directory.appendingPathComponent(name)
        let text = try String(contentsOf: file, encoding: .utf8)
        let now = try Scenario.run(text)
        if ProcessInfo.processInfo.environment["UPDATE_GOLDEN"] == "1" {
            try now.write(to: file, atomically: true, encoding: .utf8)
            return
        }
        let wanted = text.split(separator: "\n", omittingEmptySubsequences: false)
        let found = now.split(separator: "\n", omittingEmptySubsequences: false)
        let place = zip(wanted, found).enumerated().first { $0.element.0 != $0.element.1 }?.offset
        #expect(text == now, "\(name) line \((place ?? min(wanted.count, found.count)) + 1)")
    }
}
