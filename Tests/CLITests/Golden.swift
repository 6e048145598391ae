// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Testing

/// Compares with `Golden/NAME`; `UPDATE_GOLDEN=1` writes it instead, and the difference is reviewed in git.
func expectGolden(_ text: String, _ name: String, _ location: SourceLocation = #_sourceLocation) throws {
    let folder = String(#filePath.dropLast("Golden.swift".count)) + "Golden"
    let path = "\(folder)/\(name)"
    if ProcessInfo.processInfo.environment["UPDATE_GOLDEN"] == "1" {
        let parent = String(path.prefix(upTo: path.lastIndex(of: "/") ?? path.endIndex))
        try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: path))
        return
    }
    guard let bytes = FileManager.default.contents(atPath: path) else {
        Issue.record("Golden/\(name) is missing: run with UPDATE_GOLDEN=1 and review it", sourceLocation: location)
        return
    }
    #expect(
        text == String(decoding: bytes, as: UTF8.self), "differs from Golden/\(name); UPDATE_GOLDEN=1 rewrites it",
        sourceLocation: location)
}

extension RunResult {
    /// All a person sees, for golden files.
    var transcript: String { "exit \(status)\n--- stdout\n\(out)--- stderr\n\(err)" }
}
