// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import Synchronization
import Testing

@testable import Daemon

@Suite struct APIUploadTests {
    @Test func `an archive reaches the backend whole as a private file that is deleted afterwards`() async throws {
        let seen = Mutex((size: 0, mode: 0))
        let backend = FakeBackend(onImport: { path in
            let attributes = try FileManager.default.attributesOfItem(atPath: path)
            let size = (attributes[.size] as? NSNumber)?.intValue ?? 0
            let mode = (attributes[.posixPermissions] as? NSNumber)?.intValue ?? 0
            seen.withLock { $0 = (size, mode) }
        })
        try await withServer(backend) { server async throws in
            let socket = server.socket
            let answer = try await onThread {
                try RawConnection(socket).request(
                    "POST", "/v1/images/import?name=team%2Fapp:1", body: [UInt8](repeating: 7, count: 9_000_000))
            }
            #expect(answer.status == 200, "\(answer.text)")
            #expect(try answer.json(ItemList<ImageSummary>.self).items.first?.name == "team/app:1")
            let (size, mode) = seen.withLock { $0 }
            #expect(size == 9_000_000)
            #expect(mode == 0o600)
            #expect(server.spooled.isEmpty)
        }
    }

    @Test func `an import that fails leaves no file`() async throws {
        let backend = FakeBackend(onImport: { _ in throw Problem(.imageInvalid, "no manifest") })
        try await withServer(backend) { server async throws in
            let answer = try await server.request("POST", "/v1/images/import", body: "not a tar")
            #expect(answer.problem?.code == .imageInvalid)
            #expect(backend.state.withLock { $0.pathsSeen.count } == 1)
            #expect(server.spooled.isEmpty)
        }
    }

    @Test func `an archive above the limit or the free space is refused and leaves no file`() async throws {
        var limits = RequestLimits()
        limits.archiveBytesMax = 1000
        try await withServer(limits: limits) { server async throws in
            let large = String(repeating: "a", count: 1001)
            #expect(try await server.request("POST", "/v1/images/import", body: large).status == 413)
            let socket = server.socket
            let chunked = try await onThread {
                let connection = try RawConnection(socket)
                try connection.send("POST /v1/images/import HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
                try connection.send("3e9\r\n\(large)\r\n0\r\n\r\n")
                return try connection.answer()
            }
            #expect(chunked.status == 413)
            #expect(server.spooled.isEmpty)
        }
        limits.reserveBytes = .max
        try await withServer(limits: limits) { server async throws in
            let answer = try await server.request("POST", "/v1/images/import", body: "a")
            #expect(answer.status == 507)
            #expect(answer.problem?.code == .noSpace)
        }
    }

    @Test func `an upload whose client dies leaves no file and reaches no backend`() async throws {
        let backend = FakeBackend()
        try await withServer(backend) { server async throws in
            let socket = server.socket
            let connection = try await onThread {
                let connection = try RawConnection(socket)
                try connection.send("POST /v1/images/import HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\n")
                try connection.send([UInt8](repeating: 1, count: 2_000_000))
                return connection
            }
            let began = await eventually { !server.spooled.isEmpty }
            #expect(began)
            connection.hangUp()
            let removed = await eventually { server.spooled.isEmpty }
            #expect(removed)
            #expect(backend.state.withLock { $0.pathsSeen.isEmpty })
        }
    }

    @Test func `uploads a crash left are removed at the start and other files are not`() throws {
        let directory = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let spool = Spool(dataDirectory: directory, limits: RequestLimits())
        try spool.prepare()
        for name in ["upload-abc.tar", "mine.txt"] {
            #expect(FileManager.default.createFile(atPath: "\(spool.directory)/\(name)", contents: nil))
        }
        try spool.prepare()
        #expect(try FileManager.default.contentsOfDirectory(atPath: spool.directory) == ["mine.txt"])
    }
}
