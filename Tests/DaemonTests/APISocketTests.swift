// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc
import Logging
import Model
import Testing

@testable import Daemon

@Suite struct APISocketTests {
    private func server(_ socket: String, _ directory: String) -> APIServer {
        APIServer(
            socketPath: socket, dataDirectory: directory, backend: FakeBackend(),
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }),
            version: VersionView(version: "1", api: "v1"))
    }

    @Test func `only the owner and the group may open the socket and it is gone after the stop`() async throws {
        let path = try await withServerPath { server async throws in
            var status = stat()
            #expect(lstat(server.socket, &status) == 0)
            #expect(status.st_mode & 0o777 == 0o660)
            #expect(status.st_mode & S_IFMT == S_IFSOCK)
        }
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    private func withServerPath(_ body: @Sendable (TestServer) async throws -> Void) async throws -> String {
        let (paths, tell) = AsyncStream.makeStream(of: String.self)
        try await withServer { server async throws in
            tell.yield(server.socket)
            try await body(server)
        }
        tell.finish()
        return await paths.first { _ in true } ?? ""
    }

    @Test func `a second daemon does not take the socket of the first`() async throws {
        try await withServer { first async throws in
            let second = server(first.socket, first.directory + "/other")
            let error = await #expect(throws: APIServerError.self) { try await second.run() }
            #expect(error?.code == .socketInUse)
            #expect(error?.message.contains(first.socket) == true)
            #expect(error?.hint?.contains("--socket") == true)
            #expect(try await first.request("GET", "/health").status == 200)
        }
    }

    @Test func `a socket a crash left is replaced`() async throws {
        let directory = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let path = directory + "/api.sock"
        do {
            let stale = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(stale) }
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            let bound = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(stale, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            try #require(bound == 0)
        }
        let server = server(path, directory + "/data")
        let run = Task { try await server.run() }
        let serves = await eventually {
            (try? await onThread { try RawConnection(path).request("GET", "/health").status }) == 200
        }
        #expect(serves)
        run.cancel()
        try await run.value
    }

    @Test func `a file that is no socket is never replaced`() async throws {
        let directory = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let path = directory + "/precious"
        try Data("data".utf8).write(to: URL(fileURLWithPath: path))
        let error = await #expect(throws: APIServerError.self) { try await server(path, directory).run() }
        #expect(error?.code == .socketPath)
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == Data("data".utf8))
    }

    @Test(arguments: ["relative.sock", "/tmp/" + String(repeating: "x", count: 110)])
    func `a path no socket can have is refused with the reason`(path: String) async throws {
        let error = await #expect(throws: APIServerError.self) { try await server(path, "/tmp").run() }
        #expect(error?.code == .socketPath)
        #expect(error?.hint != nil)
    }

    @Test func `the lock is free again after its holder let go`() throws {
        let directory = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let first = try SocketLock(socketPath: directory + "/s")
        #expect(throws: APIServerError.self) { _ = try SocketLock(socketPath: directory + "/s") }
        first.release()
        let second = try SocketLock(socketPath: directory + "/s")
        second.release()
    }
}
