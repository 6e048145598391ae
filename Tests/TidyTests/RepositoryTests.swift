// SPDX-License-Identifier: Apache-2.0
import Foundation
import TestSupport
import Testing

/// The whole source tree against every rule.
@Suite struct RepositoryTests {
    static let files: [SourceFile] = ["Sources", "Tests", "Benchmarks"].flatMap { root in
        let folder = "\(Repository.root)/\(root)"
        let paths = (FileManager.default.subpaths(atPath: folder) ?? []).sorted()
        return paths.filter { $0.hasSuffix(".swift") && !$0.contains(".build") }.compactMap { path in
            (try? String(contentsOfFile: "\(folder)/\(path)", encoding: .utf8)).map {
                SourceFile(path: "\(root)/\(path)", raw: $0)
            }
        }
    }

    @Test func `the source tree is found`() {
        #expect(Self.files.contains { $0.path == "Sources/Model/Spec.swift" })
    }

    @Test(arguments: Rules.all.map(\.name))
    func `the source tree keeps to the rule`(name: String) throws {
        let rule = try #require(Rules.all.first { $0.name == name })
        let broken = Self.files.flatMap(rule.check)
        #expect(broken.isEmpty, "\n\(broken.map(\.description).joined(separator: "\n"))")
    }

    @Test func `every script and manifest bears the licence line near its top`() throws {
        let folder = "\(Repository.root)/scripts"
        // Every program: a directory (scripts/protos) holds others' interface definitions with licences of their own.
        let scripts = try FileManager.default.contentsOfDirectory(atPath: folder).filter { name in
            var isFolder: ObjCBool = false
            return FileManager.default.fileExists(atPath: "\(folder)/\(name)", isDirectory: &isFolder)
                && !isFolder.boolValue
        }
        for path in scripts.sorted().map({ "scripts/\($0)" }) + ["Makefile", "Package.swift", ".ci/run"] {
            let head = try Repository.text(path).split(separator: "\n").prefix(3)
            #expect(head.contains { $0.contains("SPDX-License-Identifier: Apache-2.0") }, "\(path):1: no SPDX line")
        }
    }
}
