// SPDX-License-Identifier: Apache-2.0
import Foundation
import Logging
import Model
import ServiceLifecycle

@testable import Daemon

/// An API server on a socket in a directory of its own.
struct TestServer: Sendable {
    let directory: String
    let group: ServiceGroup
    func stop() async { await group.triggerGracefulShutdown() }
    var socket: String { directory + "/api.sock" }

    func request(
        _ method: String, _ target: String, headers: [String: String] = [:], body: String? = nil
    ) async throws -> RawConnection.Answer {
        let socket = socket
        return try await onThread {
            try RawConnection(socket).request(method, target, headers: headers, body: body.map { Array($0.utf8) })
        }
    }

    var spooled: [String] {
        (try? FileManager.default.contentsOfDirectory(atPath: directory + "/data/spool")) ?? []
    }
}

/// Serves `backend` while `body` runs, then stops gracefully and removes every file.
func withServer(
    _ backend: FakeBackend = FakeBackend(), limits: RequestLimits = RequestLimits(),
    _ body: @Sendable (TestServer) async throws -> Void
) async throws {
    let directory = try temporaryDirectory()
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let (listening, told) = AsyncStream.makeStream(of: Void.self)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let server = APIServer(
        socketPath: directory + "/api.sock", dataDirectory: directory + "/data", backend: backend, logger: logger,
        version: VersionView(version: "1.2.3", api: "v1"), limits: limits, onListening: { told.yield() })
    let group = ServiceGroup(
        configuration: ServiceGroupConfiguration(
            services: [.init(service: server, successTerminationBehavior: .gracefullyShutdownGroup)], logger: logger))
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask {
            defer { told.finish() }
            try await group.run()
        }
        var iterator = listening.makeAsyncIterator()
        _ = await iterator.next()
        let result: Result<Void, any Error>
        do { result = .success(try await body(TestServer(directory: directory, group: group))) } catch {
            result = .failure(error)
        }
        await group.triggerGracefulShutdown()
        try await tasks.waitForAll()
        try result.get()
    }
}

func temporaryDirectory() throws -> String {
    let path = "/tmp/hm-api-\(UInt32.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    return path
}

/// Polls until it holds; false after the deadline.
func eventually(within limit: Duration = .seconds(10), _ condition: @Sendable () async -> Bool) async -> Bool {
    let end = ContinuousClock.now + limit
    while ContinuousClock.now < end {
        if await condition() { return true }
        try? await Task.sleep(for: .milliseconds(5))
    }
    return await condition()
}
