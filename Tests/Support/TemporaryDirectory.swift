// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc

/// A directory directly under /tmp, so that a unix socket in it stays within the kernel's 107 bytes.
public struct TemporaryDirectory: Sendable {
    public let path: String

    /// - Parameter name: a few letters that say whose it is; the path is `/tmp/hmt-<name>-XXXXXX`.
    public init(_ name: String = "t") throws {
        var template = Array("/tmp/hmt-\(name)-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw TestFailure("cannot make a directory in /tmp: \(String(cString: strerror(errno)))")
        }
        path = template.withUnsafeBufferPointer { buffer in
            String(decoding: buffer.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    private init(path: String) { self.path = path }

    public func file(_ name: String) -> String { "\(path)/\(name)" }

    /// A new directory in it.
    public func subdirectory(_ name: String) throws -> TemporaryDirectory {
        try FileManager.default.createDirectory(atPath: file(name), withIntermediateDirectories: true)
        return TemporaryDirectory(path: file(name))
    }

    @discardableResult
    public func write(_ text: String, to name: String) throws -> String {
        try Data(text.utf8).write(to: URL(fileURLWithPath: file(name)))
        return file(name)
    }

    public func read(_ name: String) throws -> String {
        try String(contentsOfFile: file(name), encoding: .utf8)
    }

    /// Removes the directory with what is in it; no error when it is gone.
    public func remove() { try? FileManager.default.removeItem(atPath: path) }
}

/// Runs `body` with a directory that is removed afterwards, also when `body` throws.
public func withTemporaryDirectory<Result>(
    _ name: String = "t", _ body: (TemporaryDirectory) async throws -> Result
) async throws -> Result {
    let directory = try TemporaryDirectory(name)
    defer { directory.remove() }
    return try await body(directory)
}

/// Why a test cannot go on.
public struct TestFailure: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}
