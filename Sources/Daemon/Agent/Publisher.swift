// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Model
internal import ServiceLifecycle
internal import Synchronization

/// Brings names and balancing rules to the newest tables, one after the other, and says when they are in force.
///
/// Tables that arrive while one is being programmed replace each other: only the newest counts.
final class Publisher: Service {
    struct Tables: Sendable {
        var names: NameTable
        var balancing: BalancingTable
    }

    private let networking: any Networking
    private let names: any NameService
    private let log: Logger
    private let done: @Sendable (UInt64) -> Void
    private let latest = Mutex<Tables?>(nil)
    private let changes: AsyncStream<Void>
    private let changed: AsyncStream<Void>.Continuation
    private let refused = Mutex<[PublishedPort]>([])

    init(
        networking: any Networking, names: any NameService, log: Logger, done: @escaping @Sendable (UInt64) -> Void
    ) {
        self.networking = networking
        self.names = names
        self.log = log
        self.done = done
        (changes, changed) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// Ports that could not be published because a program of the host listens there.
    var refusedPorts: [PublishedPort] { refused.withLock { $0 } }

    func publish(_ tables: Tables) {
        latest.withLock { $0 = tables }
        changed.yield()
    }

    func run() async throws {
        for await _ in changes.cancelOnGracefulShutdown() {
            guard let tables = latest.withLock({ $0 }) else { continue }
            await names.publish(tables.names)
            do {
                let refused = try await networking.program(tables.balancing)
                let before = self.refused.withLock { old in
                    defer { old = refused }
                    return old
                }
                for port in refused where !before.contains(port) {
                    log.error("port is taken by another program", metadata: ["port": "\(port)"])
                }
                done(tables.balancing.index)
            } catch {
                log.warning("rules could not be programmed, will try again", metadata: ["error": "\(error)"])
                try? await Task.sleep(for: .milliseconds(500))
                changed.yield()
            }
        }
    }
}
